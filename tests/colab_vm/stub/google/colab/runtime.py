"""The machine itself."""

import os
import signal
import time

from google.colab import _machine, errors


def unassign():
    """Gives the machine back: it ends at once, and nothing is flushed to Drive."""
    if not os.environ.get("TBE_RUNTIME_ADDR"):
        msg = "Unable to find the runtime management service."
        raise errors.RuntimeManagementError(msg)
    if _machine.read("front_end.json")["refuses_unassign"]:
        msg = "Unable to request VM unassignment."
        raise errors.RuntimeManagementError(msg)
    _machine.log(type="unassign")
    # The machine's first process ends on this, and every other one with it.
    os.kill(1, signal.SIGTERM)
    time.sleep(60)
