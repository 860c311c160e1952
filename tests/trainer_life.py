"""One life of a trainer on a machine that will be killed; what it saved is in its diary.

``python -m tests.trainer_life TRAINER PLACE DIARY BYTES STEP_SECONDS keep|drive``
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import colabkit
from tests.trainer_patterns import PATTERNS

_DRIVE = Path("/content/drive/MyDrive")
Lines = list[dict[str, Any]]


def read(diary: Path) -> Lines:
    """Returns the whole lines of a diary."""
    whole = diary.read_text().rpartition("\n")[0]
    return [json.loads(line) for line in whole.splitlines()]


def safe_step(lines: Sequence[dict[str, Any]]) -> int:
    """Returns the step that was uploaded when a life ended, as far as it was told."""
    told = [line for line in lines if line.get("uploaded")]
    if not told:
        return 0
    _, taken_s, step = told[-1]["uploaded"]
    if step is not None:
        return step
    # A file is taken as soon as it is closed.
    return max((s["step"] for s in lines if s.get("ended_s", taken_s + 1) <= taken_s), default=0)


def main() -> None:
    """Goes on from what is there, and trains until the machine is gone."""
    name, place, diary, nbytes, step_s, how = sys.argv[1:]
    notes = Path(diary)

    def note(**line: object) -> None:
        with notes.open("a") as file:
            file.write(json.dumps(line) + "\n")

    def uploaded() -> object:
        version = kept.status.uploaded if kept is not None else None
        return None if version is None else (version.checkpoint, version.saved_s, version.step)

    kept = None
    try:
        if how == "keep":
            kept = colabkit.keep("/content/exp", f"MyDrive/{place}", progress=False)
            trainer = PATTERNS[name](kept.path, int(nbytes))
            newest = kept.latest(trainer.newest)
        else:
            trainer = PATTERNS[name](_DRIVE / place, int(nbytes))
            newest = trainer.find()
        step = trainer.load(Path(newest)) if newest is not None else 0
        note(began=step)
    except Exception as error:  # whatever it is, it does not go on
        note(crashed=f"{type(error).__name__}: {error}")
        step, trainer = 0, PATTERNS[name](_DRIVE / next_place(place), int(nbytes))
    while True:
        step += 1
        time.sleep(float(step_s))
        trainer.save(step)
        note(step=step, ended_s=time.time(), uploaded=uploaded())


def next_place(place: str) -> str:
    """Returns the folder to begin anew in, where nobody can go on from the one before."""
    return f"exp{int(place.removeprefix('exp')) + 1}"


if __name__ == "__main__":
    main()
