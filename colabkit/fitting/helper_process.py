"""A process that ``fit(..., devices=n)`` has started: it trains along, and ends with who began it.

``python -P -m colabkit.fitting.helper_process ORDERS``: what it is told, as JSON. Nothing is ever
written to its input, which ends when the process does that started it.
"""

from __future__ import annotations

import contextlib
import ctypes
import enum
import json
import os
import signal
import sys
import threading
import traceback
from typing import NamedTuple

_PR_SET_PDEATHSIG = 1


class Event(enum.Enum):
    """What a process that trains along says of itself."""

    READY = "has all that it is to train"
    UNFIT = "what was handed over cannot be made again here"
    FAILED = "training has failed here"
    LOST = "training has failed elsewhere"
    DONE = "all is trained"


class Word(NamedTuple):
    """One word of such a process.

    Attributes:
        event: What has come about.
        text: An error in one line, or its traceback.
    """

    event: Event
    text: str = ""

    @classmethod
    def read(cls, line: bytes) -> Word:
        """Returns what ``line()`` wrote."""
        event, text = json.loads(line)
        return cls(Event[event], text)

    def line(self) -> bytes:
        """Returns it as one line."""
        return json.dumps([self.event.name, self.text]).encode() + b"\n"


class Orders(NamedTuple):
    """What such a process is told.

    Attributes:
        parent: Number of the process that started it, with which it ends.
        words: Number of an open file, to which it says how it fares.
        package: Number of an open file, in which lies what it is to train.
        offset: Where in it that begins.
        rank: Its own number, from 1.
        size: How many train together.
        port: Where on this machine they meet.
        backend: How: "gloo" or "nccl".
    """

    parent: int
    words: int
    package: int
    offset: int
    rank: int
    size: int
    port: int
    backend: str


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
        sys.exit(1)
    sys.stdout.flush()
    say(Event.DONE)


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
