"""What notebooks on the double run: setup, then a small training that tells what it does."""

from __future__ import annotations

import html
import json
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.abilities import COLAB
from tests.colab_vm import CellResult, Cloud

SETUP = "import colabkit\nsession = colabkit.setup()\nsession"

STEPS_PER_EPOCH = 10  # 320 samples, 32 in a batch
TRAIN = """
import hashlib, json, os, time
import colabkit, torch

torch.manual_seed(0)
model = torch.nn.Sequential(
    torch.nn.Linear(16, {width}), torch.nn.BatchNorm1d({width}), torch.nn.ReLU(),
    torch.nn.Dropout(0.2), torch.nn.Linear({width}, 3),
)
x, y = torch.randn(320, 16), torch.randint(0, 3, (320,))
diary = open({diary!r}, "a", buffering=1)

def note(event):
    saves = event.run.save_status
    told = [event.step, time.time(), saves.upload.committed_step, saves.upload.confirmed_step]
    diary.write(json.dumps([*told, saves.error is not None]) + "\\n")

def is_slowed(step):
    return os.path.exists({slow!r}) and step >= int(open({slow!r}).read())

def watch(event):
    if event.name == "batch_end":
        time.sleep({pause_s})
        note(event)
        end_s = time.monotonic() + 1
        while time.monotonic() < end_s and is_slowed(event.step):
            time.sleep(0.02)
            note(event)

history = colabkit.fit(
    model, (x, y), {ckpt_dir!r}, epochs={epochs}, save_every={save_every!r}, callbacks=[watch],
)
state = b"".join(value.numpy().tobytes() for value in model.state_dict().values())
print("DIGEST", hashlib.sha256(state + repr(history.epochs and [
    {{k: v for k, v in row.items() if k != "seconds"}} for row in history.epochs
]).encode()).hexdigest())
"""


@dataclass(frozen=True)
class Note:
    """What a step noted: itself, when, what was on the volume and uploaded, and a save's error."""

    step: int
    at_s: float
    committed: int | None
    confirmed: int | None
    has_failed: bool


class Diary:
    """The notes of all machines, in a folder of the host that they may write to."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.folder = folder
        self.path = folder / "diary.jsonl"
        self.slow = folder / "slow"
        self.path.touch()

    def notes(self) -> list[Note]:
        lines = self.path.read_text().splitlines()
        return [Note(*json.loads(line)) for line in lines if line.endswith("]")]

    def clear(self) -> None:
        self.path.write_text("")

    def slow_from(self, step: int) -> None:
        """Has a training take a second for each step from this one on, noting on, until let go.

        It is not halted: what waits for the next boundary between two steps still comes to pass.
        """
        aside = self.slow.with_name("slow.new")
        aside.write_text(str(step))
        aside.replace(self.slow)

    def let_go(self) -> None:
        self.slow.unlink()

    def wait_for(
        self, holds: Callable[[list[Note]], Any], *, timeout_s: float = 300.0
    ) -> list[Note]:
        end_s = time.monotonic() + timeout_s
        while not (notes := self.notes()) or not holds(notes):
            assert time.monotonic() < end_s, f"it did not come to pass: {self.notes()[-1:]}"
            time.sleep(0.02)
        return notes


def train_cell(
    diary: Diary,
    *,
    epochs: int = 6,
    ckpt_dir: str = "MyDrive/runs/a",
    save_every: str | int = "0.2s",
    pause_s: float = 0.04,
    width: int = 24,
) -> str:
    return TRAIN.format(
        diary=str(diary.path),
        slow=str(diary.slow),
        epochs=epochs,
        ckpt_dir=ckpt_dir,
        save_every=save_every,
        pause_s=pause_s,
        width=width,
    )


def epochs_past(step: int) -> int:
    """Returns how many epochs reach past a step, however far a training came before it ended."""
    return step // STEPS_PER_EPOCH + 2


def undisturbed(folder: Path, *, epochs: int) -> str:
    """Returns the digest of a training that nothing happens to."""
    COLAB.require()
    diary = Diary(folder / "diary")
    with Cloud(folder / "cloud") as cloud:
        machine = cloud.machine(visible=[diary.folder])
        machine.run_cell(SETUP).check()
        return digest_in(machine.run_cell(train_cell(diary, epochs=epochs, pause_s=0)).check())


def digest_in(result: CellResult) -> str:
    return next(line for line in result.stdout.splitlines() if line.startswith("DIGEST"))


def said_in(result: CellResult) -> str:
    """Returns what a cell told its reader: its lines, and the panel as it was left standing."""
    shown = [*result.data, *result.updates]
    panels = [html.unescape(data["text/html"]) for data in shown if "text/html" in data]
    return result.stdout + "".join(panels[-1:])
