"""The double's Drive keeps what it was given: against an ordinary folder, over many changes."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest

from tests.colab_vm import DriveRules, UploadOrder

FOLDERS = ("", "a", "b", "a/c")
NAMES = ("x", "y", "z.bin")
SOAK = bool(os.environ.get("COLABKIT_SOAK"))


def content(folder: Path) -> dict[str, bytes | None]:
    """Returns every file's bytes, and None for every folder, by path."""
    found = {}
    for path in folder.rglob("*"):
        found[str(path.relative_to(folder))] = None if path.is_dir() else path.read_bytes()
    return found


def change(folder: Path, chance: random.Random) -> tuple[str, int | None]:
    """Makes one random change; returns what it was and the errno, if it failed."""
    old = folder / chance.choice(FOLDERS) / chance.choice(NAMES)
    new = folder / chance.choice(FOLDERS) / chance.choice(NAMES)
    data, offset = chance.randbytes(chance.choice((0, 10, 300_000))), chance.randrange(400_000)
    place = folder / chance.choice(FOLDERS[1:])
    elsewhere = folder / chance.choice(FOLDERS[1:])

    def append() -> None:
        with old.open("ab") as file:
            file.write(data)

    def write_within() -> None:
        with old.open("r+b") as file:
            file.seek(offset)
            file.write(data)

    changes = {
        "write": lambda: old.write_bytes(data),
        "append": append,
        "within": write_within,
        "truncate": lambda: os.truncate(old, offset),
        "unlink": old.unlink,
        "replace": lambda: old.replace(new),
        "mkdir": place.mkdir,
        "rmdir": place.rmdir,
        "rename": lambda: place.rename(elsewhere),
    }
    name = chance.choice(list(changes))
    try:
        changes[name]()
    except OSError as error:
        return name, error.errno
    return name, None


@pytest.mark.parametrize("seed", range(40 if SOAK else 2))
def test_random_changes_end_as_in_an_ordinary_folder(cloud, tmp_path, seed):
    chance = random.Random(seed)
    rules = DriveRules(
        upload_delay_s=chance.choice((0.0, 0.02)),
        upload_bytes_per_s=chance.choice((None, 20_000_000)),
        upload_order=chance.choice(list(UploadOrder)),
    )
    machine = cloud.machine(rules=rules)
    machine.drive.mount()
    drive, model = machine.path("/content/drive/MyDrive"), tmp_path / "model"
    model.mkdir()
    for number in range(300):
        step = f"{seed}-{number}"
        ours, theirs = (change(f, random.Random(step)) for f in (drive, model))
        assert ours == theirs, step
        if number % 60 == 59:
            machine.drive.kill_mount()
            machine.drive.unmount()
            machine.drive.mount()
        if number % 30 == 29:
            assert content(drive) == content(model), step
    machine.drive.wait_until_uploaded()
    assert content(cloud.path("")) == content(model)
    other = cloud.machine()
    other.drive.mount()
    assert content(other.path("/content/drive/MyDrive")) == content(model)
