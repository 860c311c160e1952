"""A machine's process killed at any instant while a folder is brought back loses nothing."""

from __future__ import annotations

import os
import shutil
from pathlib import Path

import pytest

from colabkit.keeping.bringing import bring_back
from colabkit.keeping.store import VersionStore
from colabkit.keeping.units import WHOLE
from colabkit.storage import LocalVolume

CALLS = ("rename", "chmod", "mkdir", "symlink_to", "open")


def bring(folder, place):
    store = VersionStore(LocalVolume(place))
    return bring_back(folder, store, whole=WHOLE, skip=(), remembered=None, inputs={})


def brought_until(call, folder, place):
    """Whether it was brought to its end by a process that dies before its so manieth call."""
    child = os.fork()
    if child:
        return os.waitpid(child, 0)[1] == 0
    left = iter(range(call))

    def dying(real):
        def made(*args, **kwargs):
            if next(left, None) is None:
                os._exit(9)
            return real(*args, **kwargs)

        return made

    for name in CALLS:
        setattr(Path, name, dying(getattr(Path, name)))
    try:
        bring(folder, place)
    except BaseException:  # a child of the tests
        os._exit(8)
    os._exit(0)


@pytest.mark.parametrize("is_there_another", [False, True])
def test_killed_at_any_call_it_is_all_there_the_next_time(machine, tree, is_there_another):
    kept = machine.keep()
    for name in ("model.bin", "trainer_state.json"):
        machine.put(f"checkpoint-1/{name}", "[1]")
    machine.put("weights/last.pt", b"\x80\x02" * 200_000)
    machine.put("log.txt", "1")
    (machine.folder / "newest").symlink_to("checkpoint-1")
    kept.flush()
    before = tree(machine.folder)
    machine.kill()
    for call in range(100):
        if is_there_another:
            machine.put("log.txt", "mine")
            machine.put("checkpoint-1/model.bin", "mine")
        is_whole = brought_until(call, machine.folder, machine.place)
        if (machine.folder / "checkpoint-1").exists() and not is_there_another:
            assert len(list((machine.folder / "checkpoint-1").iterdir())) == 2
        bring(machine.folder, machine.place)
        assert tree(machine.folder) == before, call
        assert (machine.folder / "newest/model.bin").read_text() == "[1]"
        if is_there_another:
            aside = [path.read_text() for path in machine.disk.rglob("runs.before-*/log.txt")]
            assert aside == ["mine"], call
        for path in machine.disk.glob("runs*"):
            shutil.rmtree(path)
        if is_whole:
            break
    assert 5 < call < 99
