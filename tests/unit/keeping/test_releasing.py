"""Before a machine is given back: what a failing place does not have is never called safe."""

from __future__ import annotations

import random

import pytest

from colabkit.errors import ColabKitError, StorageError
from colabkit.keeping import calls, opening, staging, upload_all
from colabkit.keeping import kept as kept_module
from colabkit.keeping.bringing import bring_back
from colabkit.keeping.store import VersionStore
from colabkit.keeping.units import WHOLE
from colabkit.storage import Files, LocalVolume
from tests.unit.keeping.test_crash_points import put


class Undurable(Files):
    def fsync(self, descriptor):
        pass

    def fsync_folder(self, path):
        pass


class Failing(LocalVolume):
    """A place of which so many calls fail, before or after they did their work.

    What it has taken it may lose until it was said to be uploaded.
    """

    def __init__(self, root, chooser):
        super().__init__(root, Undurable(), empty_first=True)
        self._chooser = chooser
        self._uploaded = set()
        self.fails = 0.0

    def _tried(self, call, *args):
        is_done, is_failing = self._chooser.random() < 0.5, self._chooser.random() < self.fails
        found = call(*args) if is_done or not is_failing else None
        if is_failing:
            raise StorageError(
                "gone", path="x", operation="any", may_pass=self._chooser.random() < 0.5
            )
        return found

    def write(self, name, parts):
        self._tried(super().write, name, parts)

    def read(self, name):
        return self._tried(super().read, name)

    def list(self, folder):
        return self._tried(super().list, folder)

    def delete(self, names):
        self._tried(super().delete, names)

    def confirmed(self, names):
        names = [name for name in names if name not in self._uploaded]
        for name in names:
            if self._chooser.random() < self.fails / 4:
                super().delete([name])
            elif self._chooser.random() >= self.fails:
                self._uploaded.add(name)
        return self._tried(lambda: self._uploaded.issuperset(names))


@pytest.fixture
def failing(machine, monkeypatch):
    """Has what is kept at one address kept in a place that fails."""

    def begin(seed):
        volume = Failing(machine.root / f"safe-{seed}", random.Random(seed))
        for module in (opening, kept_module, calls):
            monkeypatch.setattr(module, "volume_at", lambda _: volume)
        return volume

    monkeypatch.setattr(staging, "SMALL_BYTES", 100)
    monkeypatch.setattr(kept_module, "_PAUSES_S", (0.0,) * 4)
    return begin


def test_what_may_be_given_up_is_there_whatever_failed(machine, failing, tree):
    outcomes = []
    for seed in range(9):
        volume = failing(seed)
        kept = machine.keep()
        volume.fails = (seed % 3) * 0.12
        put(machine.folder, 1)
        said = []
        for step in (2, 3):
            put(machine.folder, step)
            try:
                upload_all(said.append, timeout_s=0.5 if volume.fails else 300)
            except ColabKitError:
                outcomes.append("kept")
                continue
            outcomes.append("given back")
            store = VersionStore(LocalVolume(volume.root))
            there = machine.root / f"next-{seed}-{step}"
            bring_back(there, store, whole=WHOLE, skip=(), remembered=None, inputs={})
            assert tree(there) == tree(machine.folder), (seed, step)
        assert not any("is kept" in each for each in said)
        kept.end()
        machine.next()
    assert set(outcomes) == {"kept", "given back"}


def test_what_a_dead_kernel_left_is_named_where_it_is_not_whole(machine, monkeypatch):
    monkeypatch.setattr(kept_module, "_PATIENCE_S", 1.0)
    kept = machine.keep()
    put(machine.folder, 1)
    kept.flush()
    kept.end()
    put(machine.folder, 2)
    machine.put("checkpoint-5/training_args.bin", "x")
    said = []
    assert not upload_all(said.append)
    (told,) = said
    assert "it is kept in" in told
    assert told.endswith("now, but for 1: checkpoint-5 lacks trainer_state.json.")
    (machine.folder / "checkpoint-5/trainer_state.json").write_text("{}")
    assert upload_all(said.append)
    assert said[-1].endswith(" now.")
    machine.next()
    assert (machine.keep() / "checkpoint-5/training_args.bin").read_text() == "x"
