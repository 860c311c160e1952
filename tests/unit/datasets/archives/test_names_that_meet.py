"""Members that want one name: what every other program accepts is taken, as it comes last."""

from __future__ import annotations

import struct
import zlib

import pytest

import colabkit
from colabkit.errors import ArchiveUnsafeError, ArchiveUnsupportedError
from tests.unit.datasets.building import ZipMember, raw_tar, raw_zip, tar_entry, tree

FOLDER, FILE, LINK = 0o40755, 0o100644, 0o120777
KINDS = {FOLDER: b"5", FILE: b"0", LINK: b"2"}


def zipped(*members: tuple[bytes, int, bytes]) -> bytes:
    return raw_zip([ZipMember(name, data, mode=mode) for name, mode, data in members])


def tarred(*members: tuple[bytes, int, bytes]) -> bytes:
    return raw_tar(
        *(
            tar_entry(name, b"", KINDS[mode], link=data)
            if mode == LINK
            else tar_entry(name, data, KINDS[mode])
            for name, mode, data in members
        )
    )


@pytest.fixture(params=[zipped, tarred])
def made(request, tmp_path, cache):
    """Returns what makes an archive of members, and a folder of it."""

    def make(*members: tuple[bytes, int, bytes]):
        (tmp_path / "a.archive").write_bytes(request.param(*members))
        return colabkit.dataset(tmp_path / "a.archive", progress=False)

    return make


def test_a_file_takes_the_place_of_an_empty_folder_of_its_name(made, capsys):
    folder = made((b"a/", FOLDER, b""), (b"b/c/", FOLDER, b""), (b"a", FILE, b"meow"))
    assert tree(folder) == {"a": b"meow"}
    assert (folder / "b" / "c").is_dir()


@pytest.mark.parametrize(
    "members",
    [
        [(b"a/", FOLDER, b""), (b"a/1", FILE, b"1"), (b"a", FILE, b"meow")],
        [(b"a", FILE, b"meow"), (b"a/1", FILE, b"1")],
        [(b"a/", FOLDER, b""), (b"a/b/", FOLDER, b""), (b"a", FILE, b"meow")],
        [(b"a", FILE, b"meow"), (b"a/", FOLDER, b"")],
    ],
    ids=["a folder with a file", "below a file", "a folder with a folder", "a folder later"],
)
def test_what_other_programs_fail_on_is_refused_by_name(made, members):
    with pytest.raises(ArchiveUnsafeError, match="'a' is both a file and a folder"):
        made(*members)


def test_of_a_file_and_a_link_of_one_name_the_last_one_counts(made, capsys):
    target, file, link = (b"t", FILE, b"target"), (b"a", FILE, b"file"), (b"a", LINK, b"t")
    assert tree(made(target, file, link))["a"] == b"target"
    assert "as it comes last: a." in capsys.readouterr().out
    assert tree(made(target, link, file))["a"] == b"file"
    assert tree(made(target, (b"a", LINK, b"nowhere"), link))["a"] == b"target"
    assert tree(made(target, file, link, file))["a"] == b"file"


def test_a_link_takes_the_place_of_an_empty_folder_of_its_name(made):
    assert tree(made((b"a/", FOLDER, b""), (b"t", FILE, b"x"), (b"a", LINK, b"t"))) == {
        "a": b"x",
        "t": b"x",
    }


def test_a_hard_link_to_what_comes_again_is_refused_and_not_given_other_content(tmp_path, cache):
    # tar leaves the link what the file was; both added again is one file again.
    first, link = tar_entry(b"a", b"first"), tar_entry(b"b", kind=b"1", link=b"a")
    path = tmp_path / "a.tar"
    path.write_bytes(raw_tar(first, link, tar_entry(b"a", b"second")))
    with pytest.raises(ArchiveUnsupportedError, match="'b' is a hard link to 'a', which comes"):
        colabkit.dataset(path, progress=False)
    path.write_bytes(raw_tar(first, link, tar_entry(b"a", b"second"), link))
    assert tree(colabkit.dataset(path, progress=False)) == {"a": b"second", "b": b"second"}
    path.write_bytes(raw_tar(first, link, tar_entry(b"a", b"2"), tar_entry(b"b", b"3")))
    assert tree(colabkit.dataset(path, progress=False)) == {"a": b"2", "b": b"3"}


def test_a_hard_link_to_a_folder_is_left_out_and_said(tmp_path, cache, capsys):
    path = tmp_path / "a.tar"
    path.write_bytes(raw_tar(tar_entry(b"d/", kind=b"5"), tar_entry(b"b", kind=b"1", link=b"d")))
    assert [each.name for each in colabkit.dataset(path, progress=False).iterdir()] == ["d"]
    assert "to nothing: b." in capsys.readouterr().out


def test_a_name_that_says_it_is_utf8_counts_before_the_field_for_others(tmp_path, cache):
    name = "é.txt".encode()
    data = b"\1" + zlib.crc32(name).to_bytes(4, "little") + b"another.txt"
    extra = struct.pack("<2H", 0x7075, len(data)) + data
    path = tmp_path / "a.zip"
    path.write_bytes(raw_zip([ZipMember(name, b"x", flags=0x800, extra=extra)]))
    assert tree(colabkit.dataset(path, progress=False)) == {"é.txt": b"x"}
