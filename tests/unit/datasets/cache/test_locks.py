"""A lock is one process's at a time, and ends with the block, whoever else has its descriptor."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from colabkit.datasets.cache.slots import alone_at


def descriptor_of(path: Path) -> int:
    descriptors = Path("/proc/self/fd").iterdir()
    return next(int(fd.name) for fd in descriptors if fd.resolve() == path.resolve())


def test_nobody_waits_unless_told_to(tmp_path):
    with alone_at(tmp_path / "lock") as first, alone_at(tmp_path / "lock") as second:
        assert (first, second) == (True, False)
    with alone_at(tmp_path / "lock") as third:
        assert third


def test_who_waits_has_it_once_it_is_free(tmp_path):
    holder = alone_at(tmp_path / "lock")
    holder.__enter__()
    waited = []

    def wait() -> None:
        waited.append(1)
        holder.__exit__(None, None, None)

    with alone_at(tmp_path / "lock", wait=wait) as is_held:
        assert is_held
    assert waited == [1]


@pytest.mark.parametrize("fails", [False, True])
def test_a_process_forked_meanwhile_does_not_hold_it_on(tmp_path, fails):
    # What a fork does to a descriptor, without one.
    try:
        with alone_at(tmp_path / "lock"):
            inherited = os.dup(descriptor_of(tmp_path / "lock"))
            if fails:
                raise KeyboardInterrupt
    except KeyboardInterrupt:
        assert fails
    with alone_at(tmp_path / "lock") as is_held:
        assert is_held
    os.close(inherited)


def test_a_link_in_its_place_is_not_followed(tmp_path):
    (tmp_path / "lock").symlink_to(tmp_path / "other")
    with pytest.raises(OSError, match="symbolic"), alone_at(tmp_path / "lock"):
        pass
    assert not (tmp_path / "other").exists()
