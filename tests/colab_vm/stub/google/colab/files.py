"""Moving files through the browser."""

import os

from google.colab import _message


def upload(target_dir=""):
    """Asks the page for files; waits for ever when nobody is there."""
    return _message.blocking_request("files_upload", request={"dir": target_dir}, timeout_sec=None)


def download(filename):
    if not os.path.exists(filename):
        msg = f"Cannot find file: {filename}"
        raise FileNotFoundError(msg)
    request = {"file": os.path.abspath(filename)}
    _message.blocking_request("files_download", request=request, timeout_sec=None)
