"""Requests to the front end, the browser tab."""

import threading
import time

import IPython
from google.colab import _machine, errors

_DENIED = "Error: credential propagation was unsuccessful"


class MessageError(errors.Error):
    """The front end answered with an error."""


def send_request(request_type, request):
    """Sends and does not wait."""
    kernel = IPython.get_ipython().kernel
    assert kernel is not None
    _machine.log(type=request_type, request=request)


def blocking_request(request_type, request="", timeout_sec=5, parent=None):
    """Asks and waits; returns None when nobody answered in time. No time-out means for ever."""
    # In a process without a kernel this is None, and the attribute error is what users see.
    kernel = IPython.get_ipython().kernel
    assert kernel is not None
    if threading.current_thread() is not threading.main_thread():
        _machine.log(type=request_type, request=request, thread=threading.current_thread().name)
        msg = (
            f"blocking_request({request_type!r}) off the main thread: on Colab another thread "
            "that waits for the front end can be left deadlocked."
        )
        raise RuntimeError(msg)
    return _ask(request_type, request, timeout_sec)


def _ask(request_type, request, timeout_sec):
    _machine.log(type=request_type, request=request, timeout_sec=timeout_sec)
    asked_at, deadline = time.monotonic(), _machine.Deadline(timeout_sec)
    while not deadline.has_passed:
        front_end = _machine.read("front_end.json")
        if front_end["kind"] != "page" and request_type != "request_auth":
            # Known to Colab's own page alone: any other client leaves it without an answer.
            time.sleep(0.01)
            continue
        waited_s = (time.monotonic() - asked_at) * front_end["clock_rate"]
        match front_end["answer"]:
            case "silent":
                return _reply(request_type, request, front_end)
            case "consent" if waited_s >= front_end["consent_s"]:
                return _reply(request_type, request, front_end)
            case "denied" if request_type == "request_auth":
                raise MessageError(_DENIED)
            case "denied":
                raise MessageError("Error: request was denied")
        time.sleep(0.01)
    return None


def _reply(request_type, request, front_end):
    if request_type == "GetSecret":
        return front_end["secrets"].get(request["key"], {"exists": False})
    if request_type == "request_auth":
        (_machine.control() / f"authorised-{request['authType']}").touch()
    return None
