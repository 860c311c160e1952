"""The machine itself."""

import os
import subprocess

import httplib2
from google.colab import _machine, errors, output


def unassign():
    """Asks for the machine's end and returns: it comes seconds later, and nothing is flushed."""
    address = os.environ.get("TBE_RUNTIME_ADDR")
    if not address:
        msg = "Unable to find the runtime management service."
        raise errors.RuntimeManagementError(msg)
    front_end = _machine.read("front_end.json")
    if not front_end["has_network"]:
        raise httplib2.ServerNotFoundError(f"Unable to find the server at {address.split(':')[0]}")
    if front_end["refuses_unassign"]:
        msg = "Unable to request VM unassignment."
        raise errors.RuntimeManagementError(msg)
    _machine.log(type="unassign")
    # The machine's first process ends on this, and every other one with it.
    subprocess.Popen(
        ["sh", "-c", f"sleep {front_end['ends_after_s']}; kill -TERM 1"],
        cwd="/",
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )
    # Accepted by now: without a kernel what comes is an AttributeError all the same.
    output.eval_js("google.colab.kernel.disconnect();", ignore_result=True)
