"""Every name users give to a place on Drive means that place."""

from __future__ import annotations

from pathlib import Path

import pytest

from colabkit.runtime import Platform
from colabkit.storage import (
    ColabMounter,
    DriveMount,
    DriveVolume,
    FolderMounter,
    MountState,
    OcamlfuseMounter,
    RcloneMounter,
    drive_part,
    locate,
    mount_of,
    use_mount,
    volume_at,
)


@pytest.mark.parametrize(
    "path",
    [
        "Shareddrives/Team/cats.zip",
        "Shared drives/Team/cats.zip",
        "drive/Shareddrives/Team/cats.zip",
        "/content/drive/Shared drives/Team/cats.zip",
    ],
)
def test_every_name_of_a_shared_drive_leads_to_the_mount(path):
    there = Path("/content/drive/Shareddrives/Team/cats.zip")
    assert locate(path, platform=Platform.COLAB) == there
    assert locate(path, platform=Platform.OTHER) == Path(path)


@pytest.mark.parametrize(
    "path",
    [
        "MyDrive/runs/cats",
        "My Drive/runs/cats",
        "drive/MyDrive/runs/cats",
        "drive/My Drive/runs/cats",
        "/content/drive/MyDrive/runs/cats",
        "/content/drive/My Drive/runs/cats/",
        Path("/content/drive/MyDrive/runs/cats"),
        Path("MyDrive") / "runs" / "cats",
    ],
)
def test_every_name_of_a_place_on_drive_leads_to_the_mount(path):
    assert drive_part(path) == "runs/cats"
    assert locate(path, platform=Platform.COLAB) == Path("/content/drive/MyDrive/runs/cats")


@pytest.mark.parametrize(
    "path", ["runs/cats", "/content/runs", "MyDriveX/runs", "/data/My Drives/x", "."]
)
def test_a_path_elsewhere_stays_what_it_is(path):
    assert drive_part(path) is None
    assert locate(path, platform=Platform.COLAB) == Path(path)


def test_another_mountpoint_is_known():
    assert drive_part("/mnt/d/MyDrive/a", "/mnt/d") == "a"
    use_mount(DriveMount("/mnt/d", ColabMounter()))
    try:
        assert locate("MyDrive/a", platform=Platform.OTHER) == Path("/mnt/d/MyDrive/a")
        assert locate("/content/drive/My Drive/a") == Path("/mnt/d/MyDrive/a")
    finally:
        use_mount(None)


def test_a_shared_drive_is_watched_as_my_drive_is(tmp_path, monkeypatch):
    run = tmp_path / "drive" / "Shareddrives" / "Team" / "run"
    (tmp_path / "drive" / "MyDrive").mkdir(parents=True)
    run.mkdir(parents=True)
    mount = DriveMount(tmp_path / "drive", FolderMounter())
    mount.probe()
    use_mount(mount)
    try:
        monkeypatch.chdir(tmp_path)
        for path in (run, "drive/Shareddrives/Team/run"):
            volume = volume_at(path)
            assert isinstance(volume, DriveVolume)
            assert volume.mount is mount
        assert mount_of(tmp_path / "driver") is None
    finally:
        use_mount(None)


def test_on_colab_nothing_is_written_where_a_shared_drive_is_not_mounted():
    path = "/content/drive/Shareddrives/Team/run"
    mount = mount_of(path, platform=Platform.COLAB)
    assert mount is not None
    assert mount.probe() is MountState.ABSENT
    assert mount_of("/content/driver/run", platform=Platform.COLAB) is None


def test_without_drive_a_name_of_drive_is_a_folder_like_any_other():
    assert locate("MyDrive/a", platform=Platform.OTHER) == Path("MyDrive/a")


def test_the_root_itself_has_an_empty_part():
    assert drive_part("/content/drive/MyDrive") == ""
    assert locate("MyDrive", platform=Platform.COLAB) == Path("/content/drive/MyDrive")


def folder_on(mounter, mountpoint, inside):
    mount = DriveMount(mountpoint, mounter)
    return DriveVolume(mount.mountpoint / inside, mount)


def test_a_folder_is_the_same_wherever_its_drive_is_mounted():
    here = folder_on(ColabMounter(), "/content/drive", "MyDrive/runs/a")
    there = folder_on(ColabMounter(), "/mnt/d", "MyDrive/runs/a")
    assert here.identity == there.identity
    assert here.anywhere == there.anywhere == "/content/drive/MyDrive/runs/a"
    shared = folder_on(ColabMounter(), "/mnt/d", "Shareddrives/team/a")
    assert shared.identity != here.identity
    use_mount(there.mount)
    try:
        assert locate(here.anywhere, platform=Platform.COLAB) == there.root
        assert locate(shared.anywhere, platform=Platform.COLAB) == shared.root
    finally:
        use_mount(None)


def test_another_drive_is_another_place_also_at_the_same_mountpoint(tmp_path):
    volumes = [
        folder_on(mounter, tmp_path, "runs/a")
        for mounter in (
            ColabMounter(),
            FolderMounter(),
            OcamlfuseMounter("other"),
            RcloneMounter("drive"),
            RcloneMounter("work:"),
        )
    ]
    assert len({volume.identity for volume in volumes}) == len(volumes)
    renewed = folder_on(RcloneMounter("drive:"), tmp_path / "b", "runs/a")
    assert renewed.identity == volumes[3].identity
