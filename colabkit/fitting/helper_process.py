"""A process that ``fit(..., devices=n)`` has started: it trains along, and ends with who began it.

``python -P -m colabkit.fitting.helper_process ORDERS``: what it is told, as JSON. Nothing is ever
written to its input, which ends when the process does that started it.
"""

from __future__ import annotations

import atexit
import contextlib
import ctypes
import json
import os
import signal
import sys
import threading
import traceback
from typing import NoReturn

from colabkit.fitting.helper_words import Event, Orders, Word

_PR_SET_PDEATHSIG = 1


def main() -> None:
    """Trains along."""
    orders = Orders(*json.loads(sys.argv[1]))
    _end_with(orders.parent)
    # PyTorch takes seconds to load, and the parent may go meanwhile.
    from colabkit.fitting.torch.helping import Helping

    def say(event: Event, text: str = "") -> None:
        os.write(orders.words, Word(event, text).line())

    try:
        helping = Helping(orders)
    except Exception as error:  # noqa: BLE001  # whatever an object's own way to be made raises
        say(Event.UNFIT, f"{type(error).__name__}: {error}")
        return
    say(Event.READY)
    try:
        helping.train()
    except BaseException as error:  # noqa: BLE001  # told in the cell
        say(Event.LOST if helping.is_elsewhere(error) else Event.FAILED, traceback.format_exc())
        _end(1)
    sys.stdout.flush()
    say(Event.DONE)
    _end(0)


def _end(status: int) -> NoReturn:
    """Ends this process without PyTorch's own end, which may abort over threads of its engine."""
    with contextlib.suppress(Exception):  # what the user's own code has left to be done
        atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError, ValueError):
            stream.flush()
    os._exit(status)


def _end_with(parent: int) -> None:
    """Ends this process, and those that it starts, when its parent does, however that ends."""
    with contextlib.suppress(OSError, AttributeError):  # Linux has it
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, int(signal.SIGKILL))
    if os.getppid() != parent:
        os._exit(1)
    lifeline = os.dup(0)
    with open(os.devnull, "rb") as nothing:  # noqa: PTH123  # by its descriptor
        os.dup2(nothing.fileno(), 0)

    def wait() -> None:
        while os.read(lifeline, 1):
            pass
        os.killpg(0, signal.SIGKILL)

    threading.Thread(target=wait, name="colabkit-lifeline", daemon=True).start()


if __name__ == "__main__":
    main()
