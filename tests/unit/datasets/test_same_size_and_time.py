"""What lies in a source's place is read again at the same size and time, and what does not, not."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

import colabkit
from tests.unit.datasets.sources import (
    LONG_AGO_S,
    aged,
    content_of,
    inodes_of,
    make_folder,
    make_tar,
    make_zip,
)

# Of the same size packed, and in the middle: the ends of a tar tell nothing of it.
OLD = {"a.txt": b"1" * 100_000, "b.txt": bytes(300_000), "c.txt": b"3" * 100_000}
NEW = OLD | {"b.txt": bytes(150_000) + b"\1" + bytes(149_999)}


def in_place(old: Path, new: Path) -> None:
    status = old.stat()
    with old.open("r+b") as file:
        file.write(new.read_bytes())
    os.utime(old, ns=(status.st_atime_ns, status.st_mtime_ns))


def copied_with_its_time(old: Path, new: Path) -> None:
    shutil.copy2(new, old)


def renamed_over(old: Path, new: Path) -> None:
    new.replace(old)


def linked_over(old: Path, new: Path) -> None:
    old.unlink()
    old.symlink_to(new)


PUTS = [in_place, copied_with_its_time, renamed_over, linked_over]
MAKERS = {"zip": make_zip, "tar": make_tar}


def dataset(*args, **options) -> Path:
    return colabkit.dataset(*args, progress=False, **options)


@pytest.mark.parametrize("put", PUTS)
@pytest.mark.parametrize("name", ["x.zip", "x.tar", "zip", "tar", "x.zip.bin"])
def test_another_archive_of_the_same_size_and_time_is_read_again(
    tmp_path, cache, name: str, put: Callable[[Path, Path], None]
):
    make = MAKERS["zip" if "zip" in name else "tar"]
    (tmp_path / "new").mkdir()
    old, new = (make(tmp_path / n, f) for n, f in ((name, OLD), (f"new/{name}", NEW)))
    nbytes = max(old.stat().st_size, new.stat().st_size)
    for path in (old, new):
        os.truncate(path, nbytes)
        os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    for _ in range(2):
        assert content_of(dataset(old)) == OLD
    put(old, new)
    assert (old.stat().st_size, old.stat().st_mtime) == (nbytes, LONG_AGO_S)
    assert content_of(dataset(old)) == NEW


def two_folders(where: Path) -> tuple[Path, Path]:
    """Returns a folder, and one of the same names, sizes and times."""
    old, new = make_folder(where / "data/masks", OLD), make_folder(where / "others/masks", NEW)
    for folder in (old, new):
        for path in folder.iterdir():
            os.utime(path, (LONG_AGO_S, LONG_AGO_S))
    return old, new


def the_folder(old: Path, new: Path) -> None:
    old.rename(old.with_name("before"))
    new.rename(old)


def what_it_lies_in(old: Path, new: Path) -> None:
    old.parent.rename(old.parent.with_name("before"))
    new.parent.rename(old.parent)


def a_link_to_it(old: Path, new: Path) -> None:
    old.unlink()
    old.symlink_to(new)


def made_a_link(folder: Path) -> None:
    folder.rename(folder.with_name("v1"))
    folder.symlink_to(folder.with_name("v1"))


def on_one_file(put: Callable[[Path, Path], None]) -> Any:
    return pytest.param(lambda old, new: put(old / "b.txt", new / "b.txt"), id=put.__name__)


ONE_FILE = [on_one_file(put) for put in PUTS[:3]]
FOLDER_PUTS = [*ONE_FILE, the_folder, what_it_lies_in, a_link_to_it]


@pytest.mark.parametrize("put", FOLDER_PUTS)
@pytest.mark.parametrize("source", ["", "*", "b.txt"])
def test_another_file_of_the_same_size_and_time_is_copied_again(
    tmp_path, cache, source: str, put: Callable[[Path, Path], None]
):
    old, new = two_folders(tmp_path)
    if put is a_link_to_it:
        made_a_link(old)
    named = str(old / source) if source else old
    for _ in range(2):
        assert content_of(dataset(named)).items() <= OLD.items()
    put(old, new)
    made = content_of(dataset(named))
    assert made == {name: NEW[name] for name in made}
    assert "b.txt" in made


@pytest.mark.parametrize("put", FOLDER_PUTS)
def test_another_file_of_the_same_size_and_time_is_packed_again(
    tmp_path, cache, put: Callable[[Path, Path], None]
):
    old, new = two_folders(tmp_path)
    if put is a_link_to_it:
        made_a_link(old)
    pack = tmp_path / "masks.zip"
    for _ in range(2):
        colabkit.pack(old, pack, progress=False)
        assert content_of(dataset(pack)) == OLD
    put(old, new)
    colabkit.pack(old, pack, progress=False)
    assert content_of(dataset(pack)) == NEW


def test_a_folder_behind_a_link_is_packed_again_where_another_came_to_lie(tmp_path, cache):
    old, new = two_folders(tmp_path)
    link, pack = tmp_path / "link", tmp_path / "masks.zip"
    link.symlink_to(old)
    colabkit.pack(link, pack, progress=False)
    what_it_lies_in(old, new)
    colabkit.pack(link, pack, progress=False)
    assert content_of(dataset(pack)) == NEW


@pytest.mark.parametrize("put", ONE_FILE)
def test_a_folder_beside_its_pack_is_read_again(tmp_path, cache, put: Callable[[Path, Path], None]):
    old, new = two_folders(tmp_path)
    for _ in range(2):
        assert content_of(dataset(old, pack=True)) == OLD
    put(old, new)
    for _ in range(2):
        assert content_of(dataset(old)) == NEW


def with_another_mode(folder: Path) -> None:
    for path in folder.iterdir():
        path.chmod(0o600)


def with_hard_links(folder: Path) -> None:
    shutil.copytree(folder, folder.with_name("backup"), copy_function=os.link)


def copied_whole(folder: Path) -> None:
    folder.rename(folder.with_name("before"))
    shutil.copytree(folder.with_name("before"), folder)


def renamed_and_back(folder: Path) -> None:
    folder.rename(folder.with_name("before")).rename(folder)


SAME = [with_another_mode, with_hard_links, copied_whole, renamed_and_back]


@pytest.mark.parametrize("touch", SAME)
def test_a_folder_of_the_same_content_is_not_copied_again(
    tmp_path, cache, touch: Callable[[Path], None]
):
    folder = two_folders(tmp_path)[0]
    made = inodes_of(dataset(folder))
    touch(folder)
    for _ in range(2):
        assert inodes_of(dataset(folder)) == made
    aged(folder / "a.txt")
    assert content_of(dataset(folder)) == OLD


@pytest.mark.parametrize("touch", SAME)
def test_a_pack_of_the_same_content_is_not_packed_again(
    tmp_path, cache, touch: Callable[[Path], None]
):
    folder, archive = two_folders(tmp_path)[0], tmp_path / "data/masks.packed.zip"
    made = inodes_of(dataset(folder, pack=True))
    packed = archive.stat().st_ino, archive.read_bytes()
    touch(folder)
    for _ in range(2):
        assert inodes_of(dataset(folder)) == made
        assert (archive.stat().st_ino, archive.read_bytes()) == packed
    (folder / "new").write_bytes(b"x")
    assert content_of(dataset(folder)) == OLD | {"new": b"x"}


def test_a_folder_copied_with_its_pack_is_not_packed_again(tmp_path, cache):
    folder, archive = two_folders(tmp_path)[0], tmp_path / "data/masks.packed.zip"
    dataset(folder, pack=True)
    there = tmp_path / "there"
    there.mkdir()
    shutil.copytree(folder, there / "masks")
    again = Path(shutil.copy2(archive, there))
    before = again.stat().st_ino
    assert content_of(dataset(there / "masks")) == OLD
    assert again.stat().st_ino == before


def test_a_copied_cache_is_used_and_knows_of_a_change(tmp_path, cache, monkeypatch):
    folder, other = two_folders(tmp_path)
    made = dataset(folder)
    copy = tmp_path / "copied"
    # What is in the trash goes away meanwhile.
    shutil.copytree(cache.parent, copy, ignore=shutil.ignore_patterns(".trash"))
    monkeypatch.setenv("COLABKIT_CACHE", str(copy))
    there = copy / made.relative_to(cache.parent)
    before = inodes_of(there)
    assert dataset(folder) == there
    assert inodes_of(there) == before
    in_place(folder / "b.txt", other / "b.txt")
    assert content_of(dataset(folder)) == NEW
