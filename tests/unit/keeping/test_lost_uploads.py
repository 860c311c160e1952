"""What a cache loses on its way to the cloud is never called safe, and is sent anew."""

from __future__ import annotations

import pytest

from colabkit.keeping.bringing import bring_back
from colabkit.keeping.store import VersionStore
from colabkit.keeping.units import WHOLE
from colabkit.storage import LocalVolume
from tests.unit.keeping.test_crash_points import Session


class Uploads(LocalVolume):
    """A volume that takes everything at once, and uploads it once it is told to."""

    is_up = False

    def confirmed(self, names):
        return self.is_up


@pytest.mark.parametrize("already_safe", [False, True])
def test_what_is_lost_on_its_way_is_not_safe_until_it_is_there_again(
    already_safe, tmp_path, monkeypatch
):
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    place, folder = tmp_path / "place", tmp_path / "runs"
    volume = Uploads(place)
    session = Session(volume, folder, tmp_path / "cache")
    if already_safe:
        (folder / "log.txt").write_text("1")
        volume.is_up = True
        session.rounds()
        assert session.keeper.progress.is_safe
        volume.is_up = False
    (folder / "log.txt").write_text("1, 2")
    (folder / "new.txt").write_text("new")
    session.rounds()
    assert session.keeper.progress.newest is not session.keeper.progress.confirmed
    lost = session.keeper.progress.newest
    for name in [*(f"files/{blob}" for blob in lost.blobs), f"versions/{lost.name}.json"]:
        if "g0001-00000001" not in name or not already_safe:
            (place / name).unlink()
    for _ in range(30):
        session.rounds(1)
        assert not session.keeper.progress.is_safe
    volume.is_up = True
    session.rounds()
    assert session.keeper.progress.is_safe
    store = VersionStore(LocalVolume(place))
    bring_back(tmp_path / "next", store, whole=WHOLE, skip=(), remembered=None, inputs={})
    found = {path.name: path.read_text() for path in (tmp_path / "next").iterdir()}
    assert found == {"log.txt": "1, 2", "new.txt": "new"}


@pytest.mark.parametrize("is_written", [False, True])
def test_a_version_that_names_what_is_gone_is_neither_written_nor_safe(
    is_written, tmp_path, monkeypatch
):
    """Another machine removes what only its own older versions name, as far as it knows."""
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    place, folder = tmp_path / "place", tmp_path / "runs"
    volume = Uploads(place)
    volume.is_up = True
    session = Session(volume, folder, tmp_path / "cache")
    (folder / "old.txt").write_text("old")
    session.rounds()
    volume.is_up = False
    (folder / "new.txt").write_text("new")
    if is_written:
        session.rounds(1)
    (shared,) = [path for path in (place / "files").iterdir() if "-00000001-" in path.name]
    shared.unlink()
    volume.is_up = True
    session.rounds(1)
    assert not session.keeper.progress.is_safe
    store = VersionStore(LocalVolume(place))
    whole = [name for name in store.names() if not store.lacks(store.version(name))]
    assert whole == []
    assert len(store.names()) == 1 + is_written
    session.rounds(5)
    assert session.keeper.progress.is_safe
    bring_back(tmp_path / "next", store, whole=WHOLE, skip=(), remembered=None, inputs={})
    assert {path.name for path in (tmp_path / "next").iterdir()} == {"old.txt", "new.txt"}
