"""An archive in whose place another lies is read again, though size and time are the same."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import pytest

import colabkit
from tests.unit.datasets.sources import LONG_AGO_S, content_of, make_tar, make_zip

# Of the same size packed, and in the middle: the ends of a tar tell nothing of it.
OLD = {"a": b"1" * 100_000, "b": bytes(300_000), "c": b"3" * 100_000}
NEW = OLD | {"b": bytes(150_000) + b"\1" + bytes(149_999)}


def in_place(old: Path, new: Path) -> None:
    old.write_bytes(new.read_bytes())
    os.utime(old, (LONG_AGO_S, LONG_AGO_S))


def copied_with_its_time(old: Path, new: Path) -> None:
    shutil.copy2(new, old)


def renamed_over(old: Path, new: Path) -> None:
    new.replace(old)


@pytest.mark.parametrize("put", [in_place, copied_with_its_time, renamed_over])
@pytest.mark.parametrize("make", [make_tar, make_zip])
def test_another_archive_of_the_same_size_and_time_is_read_again(
    tmp_path, cache, make: Callable[..., Path], put: Callable[[Path, Path], None]
):
    ending = make.__name__.removeprefix("make_")
    old, new = (make(tmp_path / f"{n}.{ending}", f) for n, f in (("old", OLD), ("new", NEW)))
    nbytes = max(old.stat().st_size, new.stat().st_size)
    for path in (old, new):
        os.truncate(path, nbytes)
        os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    for _ in range(2):
        assert content_of(colabkit.dataset(old, progress=False)) == OLD
    put(old, new)
    assert (old.stat().st_size, old.stat().st_mtime) == (nbytes, LONG_AGO_S)
    assert content_of(colabkit.dataset(old, progress=False)) == NEW
