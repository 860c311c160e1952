"""Archives as other programs write them come out as other programs unpack them."""

from __future__ import annotations

import io
import shutil
import struct
import subprocess
import tarfile
import time
import zipfile
from pathlib import Path

import pytest

import colabkit
from colabkit.datasets import open_source, plan_archive
from colabkit.datasets.archives.zip_directory import read_entries
from colabkit.datasets.archives.zip_format import Tail, zip_end
from colabkit.datasets.writing.writer_process import WriterProcess
from colabkit.errors import ArchiveCorruptError, ArchiveUnsupportedError
from tests.data.dialects.build import HERE, archives, with_end64, without_zip64
from tests.unit.datasets.building import (
    DEFLATE,
    ZipMember,
    attempt,
    deflated,
    pax,
    raw_tar,
    raw_zip,
    side_by_side,
    tar_entry,
    tree,
)

DIALECTS = sorted(path.name for path in HERE.iterdir() if path.suffix not in {".py", ""})
PROGRAMS = {
    ".zip": (["unzip", "-qo", "-d", "{into}"], ["7z", "x", "-y", "-o{into}"], ["bsdtar", "xfC"]),
    ".tar": (["tar", "xfC"], ["bsdtar", "xfC"]),
    ".rar": (["7z", "x", "-y", "-o{into}"], ["bsdtar", "xfC"]),
}
# What some programs do otherwise: an error of theirs, or names that they leave as they are.
OTHERWISE = {
    ("answered.zip", "7z"),
    ("links.rar", "bsdtar"),
    ("behind-a-picture.zip", "7z"),
    ("two-zips.zip", "7z"),
    ("network-path.zip", "7z"),
    ("empty-name.zip", "7z"),
    ("newer.zip", "unzip"),
    ("odd-names.zip", "unzip"),
    ("ppmd.zip", "unzip"),
    ("twins.zip", "bsdtar"),
    ("end-in-comment.zip", "unzip"),
    ("end-in-comment.zip", "bsdtar"),
    ("program.zip", "7z"),
    ("program-unshifted.zip", "7z"),
    ("for-others.tar.lz4", "tar"),
    ("for-others-first.tar.lz4", "tar"),
    ("for-others-first.tar.lz4", "bsdtar"),
    ("winrar-names.zip", "7z"),
    ("absolute.tar", "bsdtar"),
    ("from-a-pipe.zip", "bsdtar"),
    ("windows-absolute.zip", "unzip"),
    ("windows-absolute.zip", "bsdtar"),
    ("windows-absolute.zip", "7z"),
    ("winrar-names.zip", "bsdtar"),
    ("powershell5.zip", "7z"),
    ("folder-without-slash.zip", "unzip"),
    ("renamed-in-directory.zip", "bsdtar"),
    ("shorter-in-front.zip", "bsdtar"),
}


def unpacked_by(program: list[str], archive: Path, into: Path) -> dict[str, bytes]:
    """Returns what another program makes of an archive."""
    into.mkdir()
    if shutil.which(program[0]) is None:
        pytest.skip(f"{program[0]} is not installed")
    options = [part.format(into=into) for part in program[1:]]
    subprocess.run(
        [program[0], *options, archive, *([into] if "xfC" in options else [])],
        check=False,
        capture_output=True,
    )
    return tree(into)


def test_the_archives_are_those_that_the_script_builds():
    assert {name: (HERE / name).read_bytes() for name in DIALECTS} == archives()


@pytest.mark.parametrize(
    ("name", "program"),
    [
        pytest.param(name, program, id=f"{name}-{program[0]}")
        for name in DIALECTS
        for program in PROGRAMS[next(kind for kind in PROGRAMS if kind in name)]
        if (name, program[0]) not in OTHERWISE
    ],
)
def test_a_dialect_comes_out_as_another_program_unpacks_it(tmp_path, cache, name, program):
    archive = HERE / name
    made = tree(colabkit.dataset(archive, progress=False))
    assert made == unpacked_by(program, archive, tmp_path / "into")
    assert made or name == "empty.tar"


@pytest.mark.parametrize("name", DIALECTS)
def test_a_dialect_comes_out_by_threads_as_without_them(tmp_path, name):
    made = []
    for number, by_threads in enumerate((False, True)):
        (tmp_path / str(number)).mkdir()
        with side_by_side(really=by_threads):
            made.append(attempt(HERE / name, tmp_path / str(number))[0])
    assert made[0] is not None
    assert sorted(made[0]) == sorted(made[1])
    assert tree(tmp_path / "0/outer") == tree(tmp_path / "1/outer")


def test_names_that_a_code_page_could_not_hold_are_told(cache):
    made = colabkit.dataset(HERE / "winrar-names.zip", progress=False)
    assert tree(made) == {"数据/猫.txt": b"meow", "a/1.jpg": b"meow"}


def test_a_file_gets_the_time_that_macos_notes_for_it(cache):
    made = colabkit.dataset(HERE / "archive-utility.zip", progress=False)
    assert [path.stat().st_mtime for path in made.rglob("*.txt")] == [1_600_000_000]


def test_zeros_up_to_the_end_of_a_block_are_nothing_to_speak_of(cache, capsys):
    colabkit.dataset(HERE / "blocks.zip", progress=False)
    assert capsys.readouterr().out == ""
    colabkit.dataset(HERE / "bytes-behind.zip", progress=False)
    assert "follows the end" in capsys.readouterr().out


def test_a_zip_packed_by_ppmd_is_damaged_or_whole(tmp_path, cache):
    data = (HERE / "ppmd.zip").read_bytes()
    begin = data.index(bytes.fromhex("6cf68b2f"))
    for place in (begin, begin + 9):
        broken = data[:place] + bytes([data[place] ^ 0x55]) + data[place + 1 :]
        (tmp_path / "a.zip").write_bytes(broken)
        with pytest.raises(ArchiveCorruptError, match=r"a/1\.txt"):
            colabkit.dataset(tmp_path / "a.zip", progress=False)


def test_frames_for_others_are_skipped_wherever_they_stand(cache):
    first, among = HERE / "for-others-first.tar.lz4", HERE / "for-others.tar.lz4"
    made = tree(colabkit.dataset(first, progress=False))
    assert made == tree(colabkit.dataset(among, progress=False))
    assert made == {"a/1.jpg": b"meow", "a/1.txt": b"meow" * 300}


def test_a_frame_for_others_that_is_cut_is_said(tmp_path, cache):
    (tmp_path / "a.tar.lz4").write_bytes((HERE / "for-others.tar.lz4").read_bytes()[:-2])
    with pytest.raises(ArchiveCorruptError, match="ends too early"):
        colabkit.dataset(tmp_path / "a.tar.lz4", progress=False)


def test_a_member_of_an_unknown_kind_is_taken_and_said(cache, capsys):
    made = tree(colabkit.dataset(HERE / "unknown-kind.tar", progress=False))
    assert made == {"a/1.jpg": b"meow", "a/2.jpg": b"purr"}
    assert "a/2.jpg" in capsys.readouterr().out


def test_a_tar_that_goes_on_from_another_is_called_so(cache, tmp_path):
    (tmp_path / "a.tar").write_bytes(raw_tar(tar_entry(b"a/1.jpg", b"meow", b"M")))
    with pytest.raises(ArchiveUnsupportedError, match="tar -M"):
        colabkit.dataset(tmp_path / "a.tar", progress=False)


def test_a_volume_that_goes_on_by_the_header_for_all_members_is_called_so(cache, tmp_path):
    # So begins `tar -M --format=posix` a volume: what is left looks like a whole file.
    begins = pax(b"g", **{"GNU.volume.filename": "a/1.jpg", "GNU.volume.offset": "2"})
    left = tar_entry(b"./GNUFileParts/1.jpg.2", b"ow")
    (tmp_path / "a.tar").write_bytes(raw_tar(begins, left))
    with pytest.raises(ArchiveUnsupportedError, match=r"a/1\.jpg.*tar -M") as caught:
        colabkit.dataset(tmp_path / "a.tar", progress=False)
    assert "tar -xMf" in caught.value.hint


def test_a_label_for_all_members_is_no_volume(cache, tmp_path):
    label = pax(b"g", **{"GNU.volume.label": "backup"})
    (tmp_path / "a.tar").write_bytes(raw_tar(label, tar_entry(b"a/1.jpg", b"meow")))
    made = colabkit.dataset(tmp_path / "a.tar", progress=False)
    assert tree(made) == {"a/1.jpg": b"meow"}


@pytest.mark.parametrize("nbytes", [1500, 5000], ids=["more than is left", "more than there is"])
@pytest.mark.parametrize("more", [0, 100])
def test_a_tar_that_ends_within_a_member_may_be_a_volume_where_it_is_whole_blocks(
    cache, tmp_path, nbytes, more
):
    entries = tar_entry(b"a/0.jpg", b"meow"), tar_entry(b"a/1.jpg", bytes(nbytes))
    (tmp_path / "a.tar").write_bytes(raw_tar(*entries)[: 2560 + more])
    with pytest.raises(ArchiveCorruptError, match=r"a/1\.jpg") as caught:
        colabkit.dataset(tmp_path / "a.tar", progress=False)
    assert ("tar -xMf" in caught.value.hint) is (not more)


@pytest.mark.parametrize(("count", "told"), [(65_540, 4), (65_536, 0), (65_540, 65_535)])
def test_a_zip_of_more_files_than_its_end_can_tell(tmp_path, count, told):
    path = tmp_path / "a.zip"
    path.write_bytes(without_zip64(count, told))
    assert plan_archive(open_source(path)).n_files == count == len(zipfile.ZipFile(path).filelist)
    path.write_bytes(without_zip64(count, told ^ 2))
    with pytest.raises(ArchiveCorruptError, match="lists 65,5"):
        plan_archive(open_source(path))


def test_sizes_in_the_64_bit_field_stand_in_the_order_of_the_format(cache, tmp_path):
    data = b"meow" * 5000
    packed = deflated(data)
    extra = struct.pack("<2H2Q", 1, 16, len(data), len(packed))
    told = {"nbytes": 0xFFFFFFFF, "packed_bytes": 0xFFFFFFFF, "extra": extra}
    archive = raw_zip([ZipMember(b"a/1.jpg", data, DEFLATE, packed=packed, **told)])
    (tmp_path / "a.zip").write_bytes(archive)
    assert tree(colabkit.dataset(tmp_path / "a.zip", progress=False)) == {"a/1.jpg": data}
    assert zipfile.ZipFile(tmp_path / "a.zip").read("a/1.jpg") == data


def test_a_directory_without_crcs_does_not_tell_all(tmp_path):
    # As of zips encrypted with AES, whose seals stand with the members.
    for crc, tells_all in ((None, True), (0, False)):
        members = [ZipMember(b"empty"), ZipMember(b"a/1.jpg", b"meow", crc=crc)]
        (tmp_path / "a.zip").write_bytes(raw_zip(members))
        assert plan_archive(open_source(tmp_path / "a.zip")).digest_tells_all is tells_all


class BehindMuch:
    """A zip behind so many bytes that nobody has written."""

    name = "much.zip"
    starts = (0,)

    def __init__(self, before: int, archive: bytes) -> None:
        self._before, self._archive = before, archive
        self.nbytes = before + len(archive)

    def read(self, offset: int, nbytes: int) -> bytes:
        zeros = bytes(min(nbytes, max(0, self._before - offset)))
        return (zeros + self._archive[max(0, offset - self._before) :])[:nbytes]

    def close(self) -> None:
        """Holds nothing."""


@pytest.mark.parametrize("has_64", [False, True])
def test_offsets_count_anew_after_4_gib_only_where_none_has_64_bits(has_64):
    cat = [ZipMember(b"a/1.jpg", b"meow")]
    archive = with_end64(cat) if has_64 else raw_zip(cat)
    source = BehindMuch(4 << 30, archive)
    end = zip_end(source, Tail(source))
    # Without them it is what macOS writes; with them, a zip that was appended to something.
    assert (end.wraps, end.shift_bytes) == ((False, 4 << 30) if has_64 else (True, 0))
    assert end.directory_offset == (4 << 30) + archive.index(b"PK\1\2")


def test_a_count_that_does_not_fit_is_in_the_64_bit_record(tmp_path):
    (tmp_path / "a.zip").write_bytes(raw_zip([ZipMember(b"%d" % n) for n in range(70_000)]))
    assert plan_archive(open_source(tmp_path / "a.zip")).n_files == 70_000


@pytest.mark.parametrize("program", PROGRAMS[".tar"], ids=lambda program: program[0])
def test_a_long_name_that_ends_with_a_slash_is_a_folder_unless_data_follows(
    tmp_path, cache, program
):
    deep = b"a" * 120
    long_name = tar_entry(b"././@LongLink", deep + b"/\0", b"L")
    below = tar_entry(b"././@LongLink", deep + b"/1.jpg\0", b"L") + tar_entry(deep[:100], b"meow")
    archive = tmp_path / "a.tar"
    archive.write_bytes(raw_tar(long_name, tar_entry(deep[:100]), below))
    made = tree(colabkit.dataset(archive, progress=False))
    assert made == {f"{deep.decode()}/1.jpg": b"meow"}
    assert made == unpacked_by(program, archive, tmp_path / "into")


def inner() -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w") as inside:
        for n in range(3):
            info = tarfile.TarInfo(f"{n}.JPEG")
            info.size = 4
            inside.addfile(info, io.BytesIO(b"JPEG"))
    return buffer.getvalue()


# Around the hundred bytes of a header's name, with a slash before, at and behind its end.
FOLDERS = [f"d/{'a' * (nbytes - 3)}" for nbytes in (96, 97, 98, 99, 100, 101, 155, 180, 254)]
DEEP = [f"{'a' * 49}/{'b' * 49}", "/".join("c" * 24 for _ in range(8)), "é" * 49 + "/x"]


@pytest.mark.parametrize("folder", [*FOLDERS, *DEEP], ids=lambda name: f"{len(name.encode())}")
@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT, "gnu", "ustar", "pax"])
def test_long_names_are_cut_nowhere(tmp_path, folder, form):
    files = {
        f"{folder}/1.jpg": b"\xff\xd8" * 600,
        f"{folder}/empty.txt": b"",
        f"{folder}/inner.tar": inner(),
        f"{folder}/sub/{'x' * 90}": b"deep",
        "z/labels.csv": b"a,b",
    }
    archive = tmp_path / "a.tar"
    if isinstance(form, str):
        for name, data in files.items():
            (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
            (tmp_path / "in" / name).write_bytes(data)
        done = subprocess.run(
            [
                "tar",
                f"--format={form}",
                "-cf",
                archive,
                *{name.partition("/")[0] for name in files},
            ],
            cwd=tmp_path / "in",
            check=False,
            capture_output=True,
        )
        shutil.rmtree(tmp_path / "in")
        if done.returncode:
            pytest.skip("a name that this format cannot hold")
    else:
        with tarfile.open(archive, "w", format=form) as packed:
            for name, data in files.items():
                info = tarfile.TarInfo(name)
                info.size = len(data)
                packed.addfile(info, io.BytesIO(data))
    _, error = attempt(archive, tmp_path)
    assert error is None
    assert tree(tmp_path / "outer" / "into") == files


def test_what_stands_in_a_header_counts_only_as_far_as_no_other_overrules_it(tmp_path):
    long = tar_entry(b"././@LongLink", b"real/file\0", b"L")
    cases = {
        "size": pax(path="real/file", size="4") + tar_entry(b"x", size_field=b"zzzzzzzzzzz\0"),
        "name with a slash": long + tar_entry(b"n" * 99 + b"/", b"data"),
        "pax with a slash": pax(path="real/file") + tar_entry(b"n/", b"data"),
        "a long name's slash before data": pax(path="real/file/") + tar_entry(b"x", b"data"),
        "empty record": pax(path="") + tar_entry(b"real/file", b"data"),
        "pax, then long": pax(path="other") + long + tar_entry(b"x", b"data"),
        "Solaris": pax(path="real/file")[:156] + b"X" + pax(path="real/file")[157:],
    }
    cases["size"] += b"data" + bytes(508)
    solaris = bytearray(cases["Solaris"])
    solaris[148:156] = b" " * 8
    solaris[148:156] = b"%06o\0 " % sum(solaris[:512])
    cases["Solaris"] = bytes(solaris) + tar_entry(b"x", b"data")
    for number, (name, entries) in enumerate(cases.items()):
        folder = tmp_path / str(number)
        folder.mkdir()
        _, error = attempt(raw_tar(entries, tar_entry(b"last", b"1")), folder)
        assert error is None, name
        assert tree(folder / "outer" / "into") == {"real/file": b"data", "last": b"1"}, name


@pytest.mark.parametrize("kind", [b"3", b"6", b"S", b"M"])
def test_a_kind_that_is_not_unpacked_may_be_left_out(tmp_path, kind):
    odd = tar_entry(b"odd", b"" if kind in {b"3", b"6"} else b"some data", kind)
    archive = raw_tar(tar_entry(b"a", b"1"), odd, tar_entry(b"b", b"2"))
    for number, members in enumerate([None, "!odd", ["a", "b"]]):
        folder = tmp_path / str(number)
        folder.mkdir()
        manifest, error = attempt(archive, folder, members=members)
        if members is None:
            assert manifest is None
            assert error.member == "odd"
        else:
            assert error is None
            assert tree(folder / "outer" / "into") == {"a": b"1", "b": b"2"}


def test_offsets_that_begin_anew_at_four_gigabytes():
    offsets = [0, 3 << 30, 5 << 30, 8 << 30]
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for n in range(len(offsets)):
            archive.writestr(f"{n}", b"")
    data = bytearray(buffer.getvalue())
    place = data.index(b"PK\1\2")
    begin, end = place, data.index(b"PK\5\6")
    for offset in offsets:
        data[place + 42 : place + 46] = (offset & 0xFFFFFFFF).to_bytes(4, "little")
        place += 47
    directory_offset = 10 << 30
    data[end + 16 : end + 20] = (directory_offset & 0xFFFFFFFF).to_bytes(4, "little")

    class Large:
        name = "large.zip"
        starts = (0,)
        nbytes = directory_offset + len(data) - begin

        def read(self, offset, nbytes):
            if offset < directory_offset:
                return bytes(directory_offset - offset) + bytes(data[begin:])[:nbytes]
            return bytes(data[begin:])[offset - directory_offset :][:nbytes]

    tail = Tail(Large())
    found = zip_end(Large(), tail)
    directory = tail.read(found.directory_offset, found.directory_bytes)
    entries = read_entries(directory, found, archive="large.zip", most=100)
    assert entries.offsets.tolist() == offsets


def test_a_member_that_comes_again_is_written_last_however_slow_the_first_is(tmp_path, monkeypatch):
    slow, put = [], WriterProcess.put

    def late(self, items, pieces):
        if any(item[0] == "same" for item in items) and not slow:
            slow.append(items)
            time.sleep(0.3)
        return put(self, items, pieces)

    monkeypatch.setattr(WriterProcess, "put", late)
    monkeypatch.setattr("os.cpu_count", lambda: 2)
    others = [tar_entry(b"%d" % n, b"x") for n in range(600)]
    between = [tar_entry(b"b%d" % n, bytes(250_000)) for n in range(9)]
    archive = tmp_path / "a.tar"
    first, last = tar_entry(b"same", b"before"), tar_entry(b"same", b"after")
    archive.write_bytes(raw_tar(*others, first, *between, last))
    _, error = attempt(archive, tmp_path)
    assert error is None
    assert slow, "a process wrote the first"
    assert (tmp_path / "outer" / "into" / "same").read_bytes() == b"after"


@pytest.mark.parametrize("form", ["gnu", "pax 0.0", "pax 0.1", "pax 1.0"])
def test_sparse_files_come_out_as_tar_unpacks_them(tmp_path, form):
    inside = tmp_path / "in"
    inside.mkdir()
    with (inside / "holes.bin").open("wb") as file:
        for number in range(60):
            file.seek(number * 70_000)
            file.write(b"%04d" % number)
        file.truncate(5_000_000)
    with (inside / "hole.bin").open("wb") as file:
        file.truncate(300_000)
    (inside / "plain.txt").write_bytes(b"text")
    options = [f"--format={form.partition(' ')[0]}"]
    options += [f"--sparse-version={form[4:]}"] if form != "gnu" else []
    archive = tmp_path / "a.tar"
    subprocess.run(["tar", "--sparse", *options, "-C", inside, "-cf", archive, "."], check=True)
    assert archive.stat().st_size < 600_000
    _, error = attempt(archive, tmp_path)
    assert error is None
    assert tree(tmp_path / "outer" / "into") == tree(inside)


def test_what_was_taken_otherwise_than_it_is_called_is_said_without_progress_too(cache, capsys):
    colabkit.dataset(HERE / "absolute.tar", progress=False)
    assert "which would lead outside: " in capsys.readouterr().out
