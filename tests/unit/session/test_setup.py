"""setup() finds the machine as it is, what the user did before it included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import colabkit
from colabkit.storage import FolderMounter, active_mount, use_mount


@pytest.fixture(autouse=True)
def without_a_mount() -> Iterator[None]:
    use_mount(None)
    yield
    use_mount(None)


def test_setup_keeps_the_place_where_drive_was_mounted_by_other_means(tmp_path: Path):
    colabkit.mount(tmp_path, backend="folder")
    session = colabkit.setup(gpu=False)
    assert session.drive.is_mounted
    assert session.drive.path == tmp_path
    mount = active_mount()
    assert mount is not None
    assert mount.mountpoint == tmp_path


def test_a_mount_that_is_asked_for_again_is_the_one_in_use(tmp_path: Path, monkeypatch):
    colabkit.mount(tmp_path, backend="folder", remount_after_hours=11)
    mount = active_mount()
    assert mount is not None
    mount.note_written(tmp_path / "waiting")
    monkeypatch.chdir(tmp_path.parent)
    colabkit.mount(tmp_path.name, backend="folder", remount_after_hours=11)
    colabkit.mount(tmp_path)
    colabkit.mount(remount_after_hours=11)
    colabkit.setup(gpu=False)
    assert active_mount() is mount
    assert mount.renew_after_s == 11 * 3600


def test_another_place_or_program_is_another_mount(tmp_path: Path):
    (tmp_path / "other").mkdir()
    seen = set()
    own = (FolderMounter(), FolderMounter())
    for place, backend in [
        (tmp_path, "folder"),
        (tmp_path / "other", "folder"),
        (tmp_path / "other", own[0]),
        (tmp_path / "other", own[1]),
    ]:
        colabkit.mount(place, backend=backend)
        seen.add(active_mount())
    assert len(seen) == 4
