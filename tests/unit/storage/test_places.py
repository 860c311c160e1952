"""Every name users give to a place on Drive means that place."""

from __future__ import annotations

from pathlib import Path

import pytest

from colabkit.runtime import Platform
from colabkit.storage import ColabMounter, DriveMount, drive_part, locate, use_mount


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


def test_without_drive_a_name_of_drive_is_a_folder_like_any_other():
    assert locate("MyDrive/a", platform=Platform.OTHER) == Path("MyDrive/a")


def test_the_root_itself_has_an_empty_part():
    assert drive_part("/content/drive/MyDrive") == ""
    assert locate("MyDrive", platform=Platform.COLAB) == Path("/content/drive/MyDrive")
