"""Signing in for Google's other services."""

import os

from google.colab import _machine, _message, errors


def authenticate_user(clear_output=True, project_id=None):
    """Returns at once when signed in, else asks the front end with no time-out."""
    if not os.path.exists("/var/colab/hostname"):
        msg = f"{__name__} is unsupported in this environment."
        raise NotImplementedError(msg)
    if _is_signed_in():
        return
    request = {"authType": "auth_user_ephemeral"}
    _message.blocking_request("request_auth", request=request, timeout_sec=None)
    if not _is_signed_in():
        msg = "Failed to fetch user credentials"
        raise errors.AuthorizationError(msg)


def _is_signed_in():
    return (_machine.control() / "authorised-auth_user_ephemeral").exists()
