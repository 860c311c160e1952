"""Talking to the page a notebook is shown on."""

import contextlib
import sys

import IPython
from google.colab import _message


def eval_js(script, ignore_result=False, timeout_sec=None):
    """Runs JavaScript in the page; with no front end it waits for ever."""
    if ignore_result:
        _message.send_request("eval_js", {"script": script})
        return None
    request = {"script": script}
    return _message.blocking_request("eval_js", request=request, timeout_sec=timeout_sec)


def clear(wait=False, output_tags=()):
    """Clears what has all of these tags: only Colab's page looks at them, others clear all."""
    tags = (output_tags,) if isinstance(output_tags, str) else tuple(output_tags)
    sys.stdout.flush()
    sys.stderr.flush()
    shell = IPython.get_ipython()
    if not hasattr(shell, "kernel"):
        return
    publisher = shell.display_pub
    shell.kernel.session.send(
        publisher.pub_socket,
        "clear_output",
        {"wait": wait, "output_tags": tags},
        parent=publisher.parent_header,
        ident=publisher.topic,
    )


@contextlib.contextmanager
def use_tags(tags):
    yield


@contextlib.contextmanager
def temporary():
    yield
