"""What a process that trains along is told, and what it says of itself."""

from __future__ import annotations

import enum
import json
from typing import NamedTuple


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
