"""What a hostile archive asks for is refused by name, and nothing is written outside."""

from __future__ import annotations

import io
import os
import tarfile
import zlib

import pytest

import colabkit
from colabkit.datasets import Limits
from colabkit.datasets.writing.tree import Tree
from colabkit.errors import (
    ArchiveCorruptError,
    ArchiveError,
    ArchiveUnsafeError,
)
from tests.unit.datasets.building import (
    DEFLATE,
    ZipMember,
    attempt,
    deflated,
    pax,
    raw_tar,
    raw_zip,
    tar_entry,
    tar_header,
    tree,
)

LEAD_OUTSIDE = {
    "in the middle": b"a/../../canary",
    "after a parent": b"../a/../../canary",
}
# What a name becomes, as unzip and tar make it of it; None for one that is left out.
BECOME = {
    "parent": (b"../canary", "canary"),
    "parents": (b"../../.././canary", "canary"),
    "absolute": (b"/tmp/canary", "tmp/canary"),
    "absolute twice": (b"//tmp//canary", "tmp/canary"),
    "drive letter": (b"C:canary", "C:canary"),
    "drive letter and path": (b"C:/Windows/canary", "C:/Windows/canary"),
    "backslashes": (b"..\\..\\canary", "..\\..\\canary"),
    "UNC path": (b"\\\\server\\share", "\\\\server\\share"),
    "over 255 bytes": (b"n" * 256, None),
    "over 255 bytes of UTF-8": ("名".encode() * 86, None),
    "path over 4000 bytes": (b"/".join([b"n" * 200] * 21), None),
    "deep": (b"d/" * 300 + b"x", None),
}


# Those that climb and stay inside: as unzip, 7z and zipfile take them in a zip, and tar in a tar.
CLIMB = {
    "and back": (b"d/../canary", "d/canary", None),
    "at the end": (b"d/..", "d", None),
    "twice": (b"a/b/../../canary", "a/b/canary", None),
    "absolute": (b"/home/me/nb/../canary", "home/me/nb/canary", "canary"),
}


def members_zip(name: bytes) -> bytes:
    return raw_zip([ZipMember(b"first", b"1"), ZipMember(name, b"data", flags=0x800)])


def members_tar(name: bytes) -> bytes:
    if len(name) > 100:
        return raw_tar(pax(path=name.decode()), tar_entry(b"short", b"data"))
    return raw_tar(tar_entry(b"first", b"1"), tar_entry(name, b"data"))


@pytest.mark.parametrize("build", [members_zip, members_tar], ids=["zip", "tar"])
@pytest.mark.parametrize("name", LEAD_OUTSIDE.values(), ids=LEAD_OUTSIDE.keys())
def test_a_name_that_leads_outside_is_refused(tmp_path, build, name):
    manifest, error = attempt(build(name), tmp_path)
    assert manifest is None
    assert type(error) is ArchiveUnsafeError
    assert name.decode() in error.member


@pytest.mark.parametrize("build", [members_zip, members_tar], ids=["zip", "tar"])
@pytest.mark.parametrize("name", LEAD_OUTSIDE.values(), ids=LEAD_OUTSIDE.keys())
@pytest.mark.parametrize("members", ["first", ["!a*", "!..*"]])
def test_what_is_not_asked_for_is_not_judged(tmp_path, build, name, members):
    _, error = attempt(build(name), tmp_path, members=members)
    assert error is None
    assert set(tree(tmp_path / "outer" / "into")) <= {"first"}


@pytest.mark.parametrize("build", [members_zip, members_tar], ids=["zip", "tar"])
@pytest.mark.parametrize(("name", "becomes"), BECOME.values(), ids=BECOME.keys())
def test_an_untidy_name_becomes_one_inside_or_is_left_out_and_said(
    tmp_path, cache, build, name, becomes, capsys
):
    archive = tmp_path / "a.archive"
    archive.write_bytes(build(name))
    made = colabkit.dataset(archive)
    rest = {key: data for key, data in tree(made).items() if key != "first"}
    assert rest == ({} if becomes is None else {becomes: b"data"})
    said = capsys.readouterr().out
    assert ("Left out, as a " in said) == (becomes is None)
    assert ("Taken without" in said) == name.startswith((b"/", b".." + b"/"))


@pytest.mark.parametrize(("name", "in_zip", "in_tar"), CLIMB.values(), ids=CLIMB.keys())
def test_a_name_that_climbs_and_stays_inside_is_taken_as_others_do(
    tmp_path, cache, name, in_zip, in_tar, capsys
):
    for kind, build, becomes in (("zip", members_zip, in_zip), ("tar", members_tar, in_tar)):
        archive = tmp_path / f"a.{kind}"
        archive.write_bytes(build(name))
        if becomes is None:
            with pytest.raises(ArchiveUnsafeError, match="behind a folder, which tar refuses too"):
                colabkit.dataset(archive, progress=False)
            continue
        made = colabkit.dataset(archive, progress=False)
        assert tree(made) == {"first": b"1", becomes: b"data"}
        assert f"{name.decode()}." in capsys.readouterr().out


@pytest.mark.parametrize("host", [0, 10, 11, 14])
def test_backslashes_of_windows_are_slashes(tmp_path, host):
    names = [b"train\\cat\\1.jpg", b"train\\", b"C:\\data\\2.jpg", b"..\\3.jpg"]
    archive = raw_zip([ZipMember(name, b"x" * (name[-1:] != b"\\"), host=host) for name in names])
    _, error = attempt(archive, tmp_path)
    assert error is None
    assert set(tree(tmp_path / "outer" / "into")) == {"train/cat/1.jpg", "data/2.jpg", "3.jpg"}


@pytest.mark.parametrize(
    "archive",
    [raw_zip([ZipMember(b"a\0b.txt", b"x")]), raw_tar(pax(path="a\0b"), tar_entry(b"c", b"x"))],
    ids=["zip", "tar"],
)
def test_a_nul_in_a_name_is_refused(tmp_path, archive):
    _, error = attempt(archive, tmp_path)
    assert type(error) is ArchiveUnsafeError


LINKS = {
    "outside": b"../canary",
    "far outside": b"../../../../../../etc/passwd",
    "absolute": b"/etc/passwd",
    "to itself": b"link",
    "to its own folder": b".",
    "to nothing": b"missing",
}


@pytest.mark.parametrize("target", LINKS.values(), ids=LINKS.keys())
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_symlink_leads_to_a_member_or_is_left_out_and_said(tmp_path, cache, kind, target, capsys):
    if kind == "zip":
        archive = raw_zip([ZipMember(b"link", target, mode=0o120777), ZipMember(b"f", b"x")])
    else:
        archive = raw_tar(tar_entry(b"link", kind=b"2", link=target), tar_entry(b"f", b"x"))
    (tmp_path / "a.archive").write_bytes(archive)
    made = colabkit.dataset(tmp_path / "a.archive")
    assert [path.name for path in made.iterdir()] == ["f"]
    assert "Left out, as a link that leads outside or to nothing: link." in (
        capsys.readouterr().out
    )


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("target", ["..", "/tmp", "real"])
def test_nothing_is_written_through_a_symlink(tmp_path, kind, target):
    link, member = target.encode(), b"payload"
    if kind == "zip":
        archive = raw_zip(
            [
                ZipMember(b"real/", mode=0o40755),
                ZipMember(b"link", link, mode=0o120777),
                ZipMember(b"link/x", member),
            ]
        )
    else:
        archive = raw_tar(
            tar_entry(b"real/", kind=b"5"),
            tar_entry(b"link", kind=b"2", link=link),
            tar_entry(b"link/x", member),
        )
    manifest, error = attempt(archive, tmp_path)
    assert manifest is None
    assert type(error) is ArchiveUnsafeError
    assert error.member.startswith("link")


def test_chained_symlinks_that_end_outside_are_left_out(tmp_path):
    archive = raw_tar(
        tar_entry(b"a/", kind=b"5"),
        tar_entry(b"a/up", kind=b"2", link=b".."),
        tar_entry(b"b", kind=b"2", link=b"a/up/.."),
        tar_entry(b"f", b"x"),
    )
    _, error = attempt(archive, tmp_path)
    assert error is None
    assert not os.path.lexists(tmp_path / "outer/into/b")


@pytest.mark.parametrize("target", [b"../canary", b"/etc/passwd", b"missing", b"folder"])
def test_a_hard_link_leads_to_a_member_or_is_left_out(tmp_path, target):
    archive = raw_tar(
        tar_entry(b"folder/", kind=b"5"),
        tar_entry(b"folder/f", b"x"),
        tar_entry(b"folder/hard", kind=b"1", link=target),
    )
    manifest, error = attempt(archive, tmp_path)
    assert error is None
    assert {file.path for file in manifest} == {"folder/f"}
    assert not os.path.lexists(tmp_path / "outer/into/folder/hard")


@pytest.mark.parametrize("links", [1, 3])
def test_a_hard_link_is_unpacked_though_its_target_was_not_asked_for(tmp_path, links):
    archive = raw_tar(
        tar_entry(b"train/1.jpg", b"pixels"),
        tar_entry(b"train/2.jpg", b"others"),
        *(tar_entry(b"val/%d.jpg" % n, kind=b"1", link=b"train/1.jpg") for n in range(links)),
    )
    manifest, error = attempt(archive, tmp_path, members="val")
    assert error is None
    expected = {f"val/{n}.jpg": b"pixels" for n in range(links)}
    assert tree(tmp_path / "outer" / "into") == expected
    assert {file.path for file in manifest} == set(expected)


def test_links_within_the_archive_come_out(tmp_path):
    archive = raw_tar(
        tar_entry(b"d/f", b"content"),
        tar_entry(b"d/soft", kind=b"2", link=b"f"),
        tar_entry(b"hard", kind=b"1", link=b"d/f"),
        tar_entry(b"folder", kind=b"2", link=b"d"),
    )
    manifest, error = attempt(archive, tmp_path)
    assert error is None
    assert manifest is not None
    into = tmp_path / "outer" / "into"
    assert tree(into)["d/soft"] == tree(into)["hard"] == (into / "folder/f").read_bytes()
    assert {file.path for file in manifest} == {"d/f", "d/soft", "hard"}


@pytest.mark.parametrize("mode", [0o020644, 0o060644, 0o010644, 0o140644])
def test_devices_pipes_and_sockets_in_a_zip_are_refused(tmp_path, mode):
    _, error = attempt(raw_zip([ZipMember(b"dev", mode=mode)]), tmp_path)
    assert type(error) is ArchiveUnsafeError
    assert error.member == "dev"


@pytest.mark.parametrize("kind", [b"3", b"4", b"6"])
def test_devices_and_pipes_in_a_tar_are_refused(tmp_path, kind):
    _, error = attempt(raw_tar(tar_entry(b"dev", kind=kind)), tmp_path)
    assert type(error) is ArchiveUnsafeError
    assert error.member == "dev"


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_a_setgid_bit_of_a_file_that_is_no_program_is_dropped(tmp_path, kind):
    if kind == "zip":
        archive = raw_zip([ZipMember(b"data", b"x", mode=0o102664)])
    else:
        archive = raw_tar(tar_entry(b"data", b"x", mode=0o2664))
    _, error = attempt(archive, tmp_path)
    assert error is None
    assert tree(tmp_path / "outer" / "into") == {"data": b"x"}


@pytest.mark.parametrize("bits", [0o4755, 0o2755, 0o6755])
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_setuid_and_setgid_bits_are_refused(tmp_path, kind, bits):
    if kind == "zip":
        archive = raw_zip([ZipMember(b"prog", b"x", mode=0o100000 | bits)])
    else:
        archive = raw_tar(tar_entry(b"prog", b"x", mode=bits))
    _, error = attempt(archive, tmp_path)
    assert type(error) is ArchiveUnsafeError
    assert error.member == "prog"


CLASHES = {
    "a file and a folder": (b"a", b"a/x"),
    "a folder and a file": (b"a/x", b"a"),
}
TWICE = {"twice": (b"a/x", b"a/x"), "twice by another way": (b"a/x", b"a/./x")}
TWINS = {
    "case": (b"a/Img.jpg", b"a/img.jpg"),
    "folders' case": (b"A/x", b"a/y"),
    "composed and decomposed": ("é".encode(), "e\u0301".encode()),
}


@pytest.mark.parametrize("names", CLASHES.values(), ids=CLASHES.keys())
@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_two_members_never_share_a_name(tmp_path, kind, names):
    if kind == "zip":
        archive = raw_zip([ZipMember(name, b"data", flags=0x800) for name in names])
    else:
        archive = raw_tar(*(tar_entry(name, b"data") for name in names))
    manifest, error = attempt(archive, tmp_path)
    assert manifest is None
    assert type(error) is ArchiveUnsafeError
    assert error.member


@pytest.mark.parametrize("names", TWICE.values(), ids=TWICE.keys())
@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("between", [0, 1500])
def test_of_two_members_of_one_name_the_last_is_taken(tmp_path, kind, names, between):
    # With many files between them, processes write both.
    files = [(b"%d" % n, b"") for n in range(between)]
    contents = [*files, (names[0], b"old and longer"), (names[1], b"new"), (b"z", b"")]
    if kind == "zip":
        archive = raw_zip([ZipMember(name, data) for name, data in contents])
    else:
        archive = raw_tar(*(tar_entry(name, data) for name, data in contents))
    manifest, error = attempt(archive, tmp_path)
    assert error is None
    assert tree(tmp_path / "outer" / "into")["a/x"] == b"new"
    assert [file.nbytes for file in manifest if file.path == "a/x"] == [3]
    assert len(manifest) == between + 2


@pytest.mark.parametrize(("first", "then"), [(b"0", b"2"), (b"2", b"0"), (b"0", b"1")])
def test_a_file_added_again_as_a_link_is_the_link(tmp_path, first, then):
    archive = raw_tar(
        tar_entry(b"f", b"target"),
        *(
            tar_entry(b"x", b"own" if kind == b"0" else b"", kind, link=b"f" * (kind != b"0"))
            for kind in (first, then)
        ),
    )
    manifest, error = attempt(archive, tmp_path)
    assert error is None
    expected = b"own" if then == b"0" else b"target"
    assert tree(tmp_path / "outer" / "into") == {"f": b"target", "x": expected}
    assert sorted((f.path, f.nbytes) for f in manifest) == [("f", 6), ("x", len(expected))]


@pytest.mark.parametrize("names", TWINS.values(), ids=TWINS.keys())
@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("keeps_case", [True, False])
def test_twins_come_out_where_the_disk_keeps_both(tmp_path, monkeypatch, kind, names, keeps_case):
    if kind == "zip":
        archive = raw_zip([ZipMember(name, name, flags=0x800) for name in names])
    else:
        archive = raw_tar(*(tar_entry(name, name) for name in names))
    if not keeps_case:
        monkeypatch.setattr(Tree, "keeps_case", False)
    manifest, error = attempt(archive, tmp_path)
    if keeps_case:
        assert error is None
        assert tree(tmp_path / "outer" / "into") == {name.decode(): name for name in names}
    else:
        assert manifest is None
        assert type(error) is ArchiveUnsafeError
        assert error.member


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_names_that_differ_in_case_come_out_where_they_are_allowed(tmp_path, kind):
    if kind == "zip":
        archive = raw_zip([ZipMember(b"A", b"1"), ZipMember(b"a", b"2")])
    else:
        archive = raw_tar(tar_entry(b"A", b"1"), tar_entry(b"a", b"2"))
    _, error = attempt(archive, tmp_path, limits=Limits(case_clashes=True))
    assert error is None
    assert tree(tmp_path / "outer" / "into") == {"A": b"1", "a": b"2"}


def test_members_that_share_their_bytes_are_refused(tmp_path):
    kernel = ZipMember(b"a", bytes(1 << 20), DEFLATE)
    archive = raw_zip([kernel, ZipMember(b"b", bytes(1 << 20), DEFLATE, offset=0)])
    _, error = attempt(archive, tmp_path)
    assert type(error) is ArchiveUnsafeError
    assert error.member in {"a", "b"}


def test_a_member_that_reaches_into_the_next_is_refused(tmp_path):
    inner = raw_zip([ZipMember(b"inner", b"x" * 100)])
    archive = raw_zip(
        [ZipMember(b"a", b"abc", packed_bytes=150, nbytes=150), ZipMember(b"b", inner)]
    )
    _, error = attempt(archive, tmp_path)
    assert isinstance(error, ArchiveUnsafeError | ArchiveCorruptError)
    assert error.member == "a"


def zip_bomb(ratio_times: int) -> bytes:
    return raw_zip([ZipMember(b"bomb", bytes(ratio_times << 20), DEFLATE)])


@pytest.mark.parametrize("kind", ["zip", "tar.gz"])
def test_a_bomb_is_refused_and_limits_override(tmp_path, kind):
    data = bytes(8 << 20)
    if kind == "zip":
        archive = raw_zip([ZipMember(b"bomb", data, DEFLATE)])
    else:
        packer = zlib.compressobj(9, zlib.DEFLATED, 31)
        archive = packer.compress(raw_tar(tar_entry(b"bomb", data))) + packer.flush()
    strict = Limits(ratio=100, ratio_free_bytes=1 << 20)
    for number, (limits, refused) in enumerate(
        [
            (strict, True),
            (Limits(total_bytes=4 << 20), True),
            (Limits(ratio=5000, ratio_free_bytes=1 << 20), False),
            (Limits(), False),
        ]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        _, error = attempt(archive, folder, limits=limits)
        assert (type(error) is ArchiveUnsafeError) is refused
        assert not refused or error.member == "bomb"


def test_a_member_that_unpacks_to_more_than_it_declares_stops_there(tmp_path):
    data = bytes(64 << 20)
    for number, declared in enumerate([10, 9 << 20]):
        folder = tmp_path / str(number)
        folder.mkdir()
        lie = ZipMember(b"lie", data[:declared], DEFLATE, packed=deflated(data))
        _, error = attempt(raw_zip([lie]), folder)
        assert type(error) is ArchiveCorruptError
        assert error.member == "lie"
        written = sum(len(found) for found in tree(folder / "outer" / "into").values())
        assert written <= declared + (64 << 10)


def test_a_zip_within_a_zip_stays_packed(tmp_path):
    inner = raw_zip([ZipMember(b"../canary", b"x")])
    _, error = attempt(raw_zip([ZipMember(b"inner.zip", inner)]), tmp_path)
    assert error is None
    assert tree(tmp_path / "outer" / "into") == {"inner.zip": inner}


@pytest.mark.parametrize("kind", ["zip", "tar"])
def test_too_many_empty_members_are_refused(tmp_path, kind):
    count = 3000
    limits = Limits(empty_files=count - 1)
    if kind == "zip":
        archive = raw_zip([ZipMember(b"%d" % n) for n in range(count)])
    else:
        archive = raw_tar(*(tar_header(b"%d" % n) for n in range(count)))
    _, error = attempt(archive, tmp_path, limits=limits)
    assert type(error) is ArchiveUnsafeError
    assert error.member
    (tmp_path / "as many").mkdir()
    as_many = Limits(empty_files=count, files=count)
    assert attempt(archive, tmp_path / "as many", limits=as_many)[1] is None
    (tmp_path / "fewer").mkdir()
    _, error = attempt(archive, tmp_path / "fewer", limits=Limits(files=count - 1))
    assert type(error) is ArchiveUnsafeError


def test_a_million_empty_members_are_refused_before_anything_is_written(tmp_path):
    one = raw_zip([ZipMember(b"%07d" % 0)])
    local, entry = one[:37], one[37 : 37 + 53]
    count = 1_000_000
    body = b"".join(local[:30] + b"%07d" % n for n in range(count))
    directory = b"".join(
        entry[:42] + (n * 37).to_bytes(4, "little") + b"%07d" % n for n in range(count)
    )
    end = raw_zip([], n_entries=count)
    end = _moved(end, len(body), len(directory), count)
    manifest, error = attempt(body + directory + end, tmp_path)
    assert manifest is None
    assert type(error) is ArchiveUnsafeError
    assert error.member == "0000000"
    assert "1,000,000" in str(error)
    assert not tree(tmp_path / "outer" / "into")


def _moved(end: bytes, body_bytes: int, directory_bytes: int, count: int) -> bytes:
    import struct

    record = struct.pack(
        "<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, directory_bytes, body_bytes
    )
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, body_bytes + directory_bytes, 1)
    last = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    assert end.startswith(b"PK\6\6")
    return record + locator + last


@pytest.mark.parametrize(
    ("map_of_pieces", "size", "kind"),
    [
        ("0,1", "x", ArchiveCorruptError),
        ("0,one", "5", ArchiveCorruptError),
        ("0,2", "5", ArchiveCorruptError),
        ("4,1,0,0", "5", ArchiveCorruptError),
        ("9,1", "5", ArchiveCorruptError),
        ("-1,1", "5", ArchiveCorruptError),
        ("0,1", "9" * 12, ArchiveUnsafeError),
        ("0,1", "-5", ArchiveCorruptError),
    ],
)
def test_a_sparse_member_that_lies_is_refused(tmp_path, map_of_pieces, size, kind):
    records = {"GNU.sparse.map": map_of_pieces, "GNU.sparse.size": size}
    _, error = attempt(raw_tar(pax(**records), tar_entry(b"sparse", b"x")), tmp_path)
    assert type(error) is kind


@pytest.mark.parametrize("head", [b"", b"x\n", b"99999999999\n", b"1\n0\n", b"1\n0\n9\n"])
def test_a_sparse_member_whose_map_breaks_off_is_refused(tmp_path, head):
    records = {"GNU.sparse.major": "1", "GNU.sparse.realsize": "5"}
    archive = raw_tar(pax(**records), tar_entry(b"sparse", head.ljust(512, b"\0") + b"x"))
    _, error = attempt(archive, tmp_path)
    assert type(error) is ArchiveCorruptError
    _, error = attempt(raw_tar(tar_entry(b"sparse", b"x", b"S")), tmp_path / "gnu")
    assert type(error) is ArchiveCorruptError


def test_a_pax_header_for_all_members_may_not_name_them(tmp_path):
    header = pax(path="../canary")
    archive = raw_tar(header[:156] + b"g" + header[157:512] + header[512:], tar_entry(b"f", b"x"))
    _, error = attempt(archive, tmp_path)
    assert isinstance(error, ArchiveError)


def test_the_library_behind_7z_is_held_to_the_same_rules(tmp_path):
    import py7zr

    for number, name in enumerate(["ok/../../canary", "img.jpg/below"]):
        out = io.BytesIO()
        with py7zr.SevenZipFile(out, "w") as packed:
            packed.writestr(b"first", "img.jpg")
            try:
                packed.writestr(b"data", name)
            except ValueError:
                packed.writestr(b"data", "x")
                packed.header.files_info.files[-1]["filename"] = name
        folder = tmp_path / str(number)
        folder.mkdir()
        _, error = attempt(out.getvalue(), folder)
        assert type(error) is ArchiveUnsafeError


def test_an_executable_stays_executable_and_other_bits_are_dropped(tmp_path):
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as packed:
        for name, mode in (("run", 0o777), ("read", 0o666)):
            info = tarfile.TarInfo(name)
            info.mode, info.size = mode, 1
            packed.addfile(info, io.BytesIO(b"x"))
    _, error = attempt(buffer.getvalue(), tmp_path)
    assert error is None
    into = tmp_path / "outer" / "into"
    assert (into / "run").stat().st_mode & 0o111
    assert not (into / "read").stat().st_mode & 0o133
