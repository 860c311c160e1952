"""Whatever call of a place fails, before or after it did its work: nothing whole is lost."""

from __future__ import annotations

import re
import shutil

import pytest

from colabkit.errors import StorageError
from colabkit.keeping import staging, taking
from colabkit.keeping.bringing import bring_back
from colabkit.keeping.open_files import Writers
from colabkit.keeping.store import VersionStore
from colabkit.keeping.units import WHOLE
from colabkit.storage import Files, LocalVolume
from tests.unit.keeping.test_crash_points import Session, put


class Undurable(Files):
    """A disk that no machine dies on: nothing need be made durable."""

    def fsync(self, descriptor):
        pass

    def fsync_folder(self, path):
        pass


class Faulty(LocalVolume):
    """A volume of which the call of one number fails."""

    def __init__(self, root, fails_at, *, is_done):
        super().__init__(root, Undurable(), empty_first=True)
        self._fails_at, self._is_done = fails_at, is_done
        self.calls = 0

    def _counted(self, call, *args):
        self.calls += 1
        if self.calls != self._fails_at:
            return call(*args)
        if self._is_done:
            call(*args)
        raise StorageError("gone", path="x", operation="any", may_pass=True)

    def write(self, name, parts):
        return self._counted(super().write, name, parts)

    def read(self, name):
        return self._counted(super().read, name)

    def list(self, folder):
        return self._counted(super().list, folder)

    def delete(self, names):
        return self._counted(super().delete, names)

    def sweep(self):
        return self._counted(super().sweep)

    def confirmed(self, names):
        return self._counted(lambda: True)


class Life:
    """Two machines one after the other on a place that fails once."""

    def __init__(self, root, volume):
        self.root, self.volume = root, volume
        self.promised = 0

    def run(self):
        for number, steps in enumerate(([1, 2], [3])):
            folder = self.root / f"disk-{number}"
            session = self.begun(folder)
            assert self.step_in(folder) >= self.promised
            for step in steps:
                put(folder, step)
                for _ in range(4):
                    self.round(session)
                    progress = session.keeper.progress
                    if progress.is_safe and progress.error is None:
                        self.promised = step
                    self.check()
                assert self.promised == step
        return self.volume.calls

    def begun(self, folder):
        try:
            return Session(self.volume, folder, self.root / "cache")
        except StorageError:
            return Session(self.volume, folder, self.root / "cache")

    def round(self, session):
        try:
            session.rounds(1)
        except StorageError as error:
            session.keeper._put_off(error)

    def check(self):
        """Whatever is promised is whole there, at any time."""
        store = VersionStore(LocalVolume(self.root / "place"))
        whole = [v for v in map(store.version, store.names()) if not store.lacks(v)]
        found = re.findall(r"checkpoint-(\d)/model", " ".join(p for v in whole for p in v.files))
        assert max(map(int, found), default=0) >= self.promised

    def step_in(self, folder):
        path = folder / "last.pt"
        return int(path.read_text()[:3]) if path.exists() else 0


@pytest.mark.parametrize("is_done", [False, True])
def test_every_call_may_fail(tmp_path, monkeypatch, is_done):
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(staging, "SMALL_BYTES", 100)
    monkeypatch.setattr(taking, "writers_in", lambda _: Writers(frozenset(), sees_all=True))
    fails_at, calls = 0, 1
    while fails_at <= calls:
        root = tmp_path / str(fails_at)
        root.mkdir()
        life = Life(root, Faulty(root / "place", fails_at, is_done=is_done))
        calls = life.run()
        store = VersionStore(LocalVolume(root / "place"))
        versions = [store.version(name) for name in store.names()]
        assert len(versions) <= 3
        bring_back(root / "next", store, whole=WHOLE, skip=(), remembered=None, inputs={})
        for step in (2, 3):
            assert (root / f"next/checkpoint-{step}/model.bin").read_text() == f"{step}" * 300
        assert life.step_in(root / "next") == 3
        shutil.rmtree(root)
        fails_at += 1
    assert calls > 60
