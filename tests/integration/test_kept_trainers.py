"""Trainers whose folder is kept, on machines that are killed while uploads lag behind."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests import abilities
from tests.colab_vm import DriveRules
from tests.trainer_life import Lines, read, safe_step
from tests.trainer_patterns import PATTERNS

# A folder counts when it has rested for two seconds.
NBYTES, STEP_S, UPLOAD_BYTES_PER_S = 120_000, 1.5, 60_000


def wait_for(diary: Path, is_there: Callable[[Lines], bool], process: subprocess.Popen) -> Lines:
    until_s = time.monotonic() + 300
    while not is_there(lines := read(diary)):
        assert process.poll() is None, diary.with_suffix(".said").read_text()
        assert time.monotonic() < until_s, lines
        time.sleep(0.05)
    return lines


@contextmanager
def life(cloud, diary: Path, *command: str, rate: int | None) -> Iterator[subprocess.Popen]:
    diary.parent.mkdir(exist_ok=True)
    diary.touch()
    rules = DriveRules(upload_bytes_per_s=rate)
    machine = cloud.machine(rules=rules, visible=[diary.parent])
    machine.drive.mount()
    what = [sys.executable, "-m", *command]
    with diary.with_suffix(".said").open("w") as said:
        process = machine.start(what, stdout=said, stderr=said)
        try:
            yield process
        finally:
            machine.kill()
            process.wait()


@pytest.mark.parametrize("name", PATTERNS)
def test_a_killed_trainer_goes_on_from_what_was_uploaded(name, cloud, tmp_path):
    command = ["tests.trainer_life", name, "exp"]
    how = [str(NBYTES), str(STEP_S), "keep"]
    one, two = tmp_path / "notes/one", tmp_path / "notes/two"
    with life(cloud, one, *command, str(one), *how, rate=UPLOAD_BYTES_PER_S) as process:
        safe = safe_step(wait_for(one, lambda lines: safe_step(lines) > 0, process))
    with life(cloud, two, *command, str(two), *how, rate=None) as process:
        first = wait_for(two, bool, process)[0]
    assert safe <= first["began"] <= max(line["step"] for line in read(one)[1:])


@pytest.mark.soak
@pytest.mark.needs(abilities.SOAK, abilities.trainer("transformers", "accelerate"))
def test_a_real_trainer_that_is_killed_ends_as_if_it_never_was(cloud, tmp_path):
    module = "tests.real_trainer_life"
    one, two, alone = (tmp_path / "notes" / each for each in ("one", "two", "alone"))
    with life(cloud, alone, module, "/content/alone", str(alone), "0", rate=None) as process:
        expected = wait_for(alone, lambda lines: "digest" in lines[-1] if lines else False, process)
    kept = ("/content/out", "MyDrive/out")
    command = (module, kept[0], str(one), "0.3", kept[1])
    with life(cloud, one, *command, rate=20_000) as process:
        lines = wait_for(one, lambda lines: any(line.get("safe") for line in lines), process)
        safe = max(line.get("safe", 0) for line in lines)
    command = (module, kept[0], str(two), "0", kept[1])
    with life(cloud, two, *command, rate=None) as process:
        lines = wait_for(two, lambda lines: "digest" in lines[-1] if lines else False, process)
    assert lines[0]["began"] >= safe > 0
    assert lines[-1] == expected[-1]
