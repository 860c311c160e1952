"""What the stub knows of the machine it is on: the control folder. Not part of google.colab."""

import json
import os
import time
from pathlib import Path

_CONTROL = "COLAB_VM_CONTROL"


def control() -> Path:
    return Path(os.environ[_CONTROL])


def read(name: str) -> dict:
    return json.loads((control() / name).read_text())


def write(name: str, value: dict) -> None:
    aside = control() / f".{name}-{os.getpid()}"
    aside.write_text(json.dumps(value))
    aside.replace(control() / name)


def log(**event: object) -> None:
    """Adds a line to what the host reads as ``front_end.requests``."""
    with (control() / "requests.jsonl").open("a") as file:
        file.write(json.dumps({"at": time.time(), **event}) + "\n")


class Deadline:
    """A time-out on the machine's clock, which may run faster than the host's."""

    def __init__(self, timeout_sec: float | None) -> None:
        rate = read("front_end.json")["clock_rate"]
        self._end = time.monotonic() + timeout_sec / rate if timeout_sec else None

    @property
    def has_passed(self) -> bool:
        return self._end is not None and time.monotonic() >= self._end
