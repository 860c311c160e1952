"""setup() finds the machine as it is, what the user did before it included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

import colabkit
from colabkit.storage import active_mount, use_mount


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
