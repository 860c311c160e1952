"""Every kind of archive comes out byte for byte as the system's own programs unpack it."""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import hmac
import io
import lzma
import os
import random
import struct
import subprocess
import tarfile
import threading
import zipfile
import zlib
from pathlib import Path

import pytest

import colabkit
from colabkit.datasets import TransferProgress, open_source, plan_archive, unpack
from colabkit.datasets.archives.zip_encryption import all_decrypted, decrypted, keys_of
from colabkit.errors import (
    ArchiveCorruptError,
    ArchiveError,
    ArchivePasswordError,
    ArchiveUnsupportedError,
    ArgumentError,
    ColabKitError,
    MissingPackageError,
)
from tests.abilities import BZIP2, SEVEN_ZIP, UNZIP, XZ, ZIP
from tests.unit.datasets.building import (
    DEFLATE,
    RAR_TIME_S,
    ZipMember,
    deflated,
    raw_zip,
    stored_rar,
    tree,
)


def unpacked(archive: Path, into: Path, **options: object) -> dict[str, bytes]:
    """Unpacks an archive; returns what lies there, which must be what the manifest says."""
    into.mkdir(exist_ok=True)
    source = open_source(archive)
    try:
        plan = plan_archive(source, **options)
        manifest = unpack(plan, source, into, password=options.get("password"))
    finally:
        source.close()
    found = tree(into)
    assert sorted((f.path, f.nbytes, f.crc32) for f in manifest) == sorted(
        (path, len(data), zlib.crc32(data)) for path, data in found.items()
    )
    return found


def content(number: int) -> bytes:
    """Returns bytes that differ for each number: some pack well, some not, some are long."""
    draw = random.Random(number)
    nbytes = draw.choice([0, 1, 100, 5000, 70_000, 200_000])
    return draw.randbytes(nbytes) if number % 2 else (b"%d;" % number * nbytes)[:nbytes]


@pytest.fixture(scope="module")
def original(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("original") / "top"
    for number in range(90):
        path = folder / f"class {number % 7}" / f"{number:03}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content(number))
    (folder / "empty").mkdir()
    (folder / "run.sh").write_text("#!/bin/sh\n")
    (folder / "run.sh").chmod(0o755)
    part = b"".join(b"%d,%d\n" % (n, n * n) for n in range(30_000))
    (folder / "large.csv").write_bytes(part * 22)
    (folder / ("é" * 60)).mkdir()
    (folder / ("é" * 60) / ("n" * 150)).write_bytes(b"long")
    return folder


def by_program(archive: Path, into: Path) -> dict[str, bytes]:
    """Unpacks with unzip or tar."""
    into.mkdir()
    if archive.suffix == ".zip":
        # unzip tells with 1 that it warns, as of names in another encoding.
        done = subprocess.run(["unzip", "-q", archive, "-d", into], check=False)
        assert done.returncode in {0, 1}
    else:
        subprocess.run(["tar", "-xf", archive, "-C", into], check=True)
    return tree(into)


METHODS = {
    "stored": zipfile.ZIP_STORED,
    "deflate": zipfile.ZIP_DEFLATED,
    "bzip2": zipfile.ZIP_BZIP2,
    "lzma": zipfile.ZIP_LZMA,
}


@pytest.mark.needs(UNZIP)
@pytest.mark.parametrize("method", METHODS.values(), ids=METHODS.keys())
def test_a_zip_of_each_method_comes_out_as_unzip_says(tmp_path, original, method):
    archive = tmp_path / "a.zip"
    with zipfile.ZipFile(archive, "w", method, compresslevel=1) as packed:
        for path in sorted(original.rglob("*")):
            packed.write(path, Path("top") / path.relative_to(original))
    ours = unpacked(archive, tmp_path / "ours")
    # Debian's unzip has no lzma; zipfile reads it.
    if method == zipfile.ZIP_LZMA:
        assert ours == tree(original.parent)
    else:
        assert ours == by_program(archive, tmp_path / "theirs") == tree(original.parent)
    assert (tmp_path / "ours/top/empty").is_dir()
    assert os.access(tmp_path / "ours/top/run.sh", os.X_OK)
    assert not os.access(tmp_path / "ours/top/large.csv", os.X_OK)


@pytest.mark.needs(UNZIP)
def test_a_zip64_with_streamed_members_comes_out(tmp_path, original):
    archive = tmp_path / "a.zip"
    read, write = os.pipe()
    with archive.open("wb") as out:
        reader = subprocess.Popen(["cat"], stdin=read, stdout=out)
    os.close(read)
    # A pipe cannot be sought in, so sizes follow the data and each header is a 64-bit one.
    with os.fdopen(write, "wb") as pipe, zipfile.ZipFile(pipe, "w", DEFLATE) as packed:
        for path in sorted(original.rglob("*")):
            if path.is_file():
                with packed.open(f"top/{path.relative_to(original)}", "w", force_zip64=True) as f:
                    f.write(path.read_bytes())
    assert reader.wait() == 0
    assert unpacked(archive, tmp_path / "ours") == by_program(archive, tmp_path / "theirs")


def test_more_members_than_a_plain_zip_can_count_come_out(tmp_path):
    archive = tmp_path / "a.zip"
    names = [f"{n % 50}/{n}" for n in range(66_000)]
    archive.write_bytes(raw_zip([ZipMember(name.encode(), b"x") for name in names]))
    assert unpacked(archive, tmp_path / "ours") == dict.fromkeys(names, b"x")


@pytest.mark.needs(SEVEN_ZIP)
def test_deflate64_comes_out(tmp_path, original):
    archive = tmp_path / "a.zip"
    subprocess.run(
        ["7z", "a", "-bd", "-mm=Deflate64", archive, original], check=True, stdout=subprocess.PIPE
    )
    assert unpacked(archive, tmp_path / "ours") == tree(original.parent)


TARS = [
    "tar",
    "gz",
    pytest.param("bz2", marks=pytest.mark.needs(BZIP2)),
    pytest.param("xz", marks=pytest.mark.needs(XZ)),
]


@pytest.mark.parametrize("layout", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("packing", TARS)
def test_a_tar_of_each_kind_comes_out_as_tar_says(tmp_path, original, packing, layout):
    archive = tmp_path / "archive"
    mode = "w" if packing == "tar" else f"w:{packing}"
    level = {"gz": {"compresslevel": 1}, "bz2": {"compresslevel": 1}, "xz": {"preset": 0}}
    with tarfile.open(archive, mode, format=layout, **level.get(packing, {})) as packed:
        for path in sorted(original.rglob("*")):
            name = Path("top") / path.relative_to(original)
            if layout != tarfile.USTAR_FORMAT or len(path.name) < 100:
                packed.add(path, name, recursive=False)
    theirs = by_program(archive, tmp_path / "theirs")
    assert unpacked(archive, tmp_path / "ours") == theirs
    assert (tmp_path / "ours/top/empty").is_dir()
    assert os.access(tmp_path / "ours/top/run.sh", os.X_OK)


def test_a_tar_zst_of_several_frames_comes_out(tmp_path, original):
    import zstandard

    plain = tmp_path / "plain.tar"
    with tarfile.open(plain, "w") as packed:
        packed.add(original, "top")
    data = plain.read_bytes()
    frames = [zstandard.compress(data[i : i + (1 << 20)]) for i in range(0, len(data), 1 << 20)]
    archive = tmp_path / "archive"
    archive.write_bytes(b"".join(frames))
    assert unpacked(archive, tmp_path / "ours") == tree(original.parent)


def test_a_tar_gz_of_several_streams_comes_out(tmp_path, original):
    import gzip

    plain = tmp_path / "plain.tar"
    with tarfile.open(plain, "w") as packed:
        packed.add(original, "top")
    data = plain.read_bytes()
    parts = [gzip.compress(data[i : i + (1 << 20)], 1) for i in range(0, len(data), 1 << 20)]
    archive = tmp_path / "archive"
    archive.write_bytes(b"".join(parts) + bytes(512))
    assert unpacked(archive, tmp_path / "ours") == tree(original.parent)


def test_a_tar_zst_that_needs_a_dictionary_is_called_so(tmp_path):
    import zstandard

    draw = random.Random(0)
    samples = [b"sample %d " % n + draw.randbytes(50) * 9 for n in range(300)]
    packer = zstandard.ZstdCompressor(dict_data=zstandard.train_dictionary(4096, samples))
    (tmp_path / "a.tar.zst").write_bytes(packer.compress(samples[0] * 9))
    with pytest.raises(ArchiveUnsupportedError, match="zstd -d -D DICTIONARY"):
        unpacked(tmp_path / "a.tar.zst", tmp_path / "ours")


@pytest.mark.needs(SEVEN_ZIP)
def test_a_7z_comes_out_with_and_without_a_password(tmp_path, original):
    for number, options in enumerate([[], ["-psecret", "-mhe=on"], ["-psecret"]]):
        archive = tmp_path / f"{number}.7z"
        command = ["7z", "a", "-bd", "-mx=1", *options, archive, original]
        subprocess.run(command, check=True, stdout=subprocess.PIPE)
        into = tmp_path / f"ours{number}"
        if options:
            with pytest.raises(ArchivePasswordError):
                unpacked(archive, into)
        password = "secret" if options else None
        assert unpacked(archive, into, password=password) == tree(original.parent)


@pytest.mark.needs(SEVEN_ZIP)
@pytest.mark.parametrize("options", [[], ["-mhe=on"], ["-mx=0"], ["-mx=0", "-mhe=on"]])
def test_a_wrong_password_of_a_7z_is_said(tmp_path, original, options):
    archive = tmp_path / "archive.7z"
    command = ["7z", "a", "-bd", "-psecret", *options, archive, original]
    subprocess.run(command, check=True, stdout=subprocess.PIPE)
    with pytest.raises(ArchivePasswordError, match="password"):
        unpacked(archive, tmp_path / "ours", password="wrong")


@pytest.mark.needs(SEVEN_ZIP)
def test_a_damaged_7z_that_is_not_encrypted_is_corrupt_whatever_the_password(tmp_path, original):
    archive = tmp_path / "archive.7z"
    command = ["7z", "a", "-bd", "-mx=1", archive, original]
    subprocess.run(command, check=True, stdout=subprocess.PIPE)
    data = bytearray(archive.read_bytes())
    data[len(data) // 2] ^= 0xFF
    archive.write_bytes(data)
    with pytest.raises(ArchiveCorruptError):
        unpacked(archive, tmp_path / "ours", password="needless")


@pytest.mark.needs(SEVEN_ZIP)
def test_a_7z_that_its_package_stumbles_over_comes_out_or_the_program_is_named(tmp_path):
    """py7zr does not get the last bytes behind a filter for programs."""
    original = tmp_path / "in"
    original.mkdir()
    for name, times in (("abc", 171), ("qrs", 23_334), ("xyz", 23_333), ("zlmn", 170)):
        (original / name).write_bytes(name[-3:].encode() * times)
    archive = tmp_path / "archive.7z"
    command = ["7z", "a", "-bd", "-m0=PPC", "-m1=LZMA", archive, "."]
    subprocess.run(command, check=True, cwd=original, stdout=subprocess.PIPE)
    said = ""
    try:
        assert unpacked(archive, tmp_path / "ours") == tree(original)
    except ArchiveCorruptError as error:
        said = str(error)
    assert not said or "does not master PPC: run !7z x" in said


def test_a_rar_comes_out(tmp_path):
    files = {"top/a.txt": b"text" * 100, "top/b.bin": bytes(range(256))}
    archive = tmp_path / "archive"
    archive.write_bytes(stored_rar(files))
    assert unpacked(archive, tmp_path / "ours") == files
    assert {(tmp_path / "ours" / path).stat().st_mtime for path in files} == {RAR_TIME_S}


def test_links_of_a_rar_lead_within_it_or_are_left_out(tmp_path, cache, capsys):
    links = {
        "a/near": (1, "../b/2.txt"),
        "far": (1, "/etc/passwd"),
        "up": (1, "../up"),
        "d": (1, "a"),
    }
    files = {"a/1.txt": b"meow", "b/2.txt": b"purr"}
    (tmp_path / "a.rar").write_bytes(stored_rar(files, links=links))
    made = colabkit.dataset(tmp_path / "a.rar", progress=False)
    assert tree(made) == {**files, "a/near": b"purr"}
    assert (made / "d").readlink() == Path("a")
    assert "2 members (far, up)" in capsys.readouterr().out


@pytest.mark.needs(SEVEN_ZIP)
@pytest.mark.parametrize("options", [[], ["-ms=off"], ["-psecret", "-mhe=on"]], ids=str)
def test_links_of_a_7z_lead_within_it_or_are_left_out(tmp_path, cache, capsys, options):
    folder = tmp_path / "in"
    (folder / "a").mkdir(parents=True)
    (folder / "a/1.txt").write_bytes(b"meow")
    for name, target in {
        "a/near": "../a/1.txt",
        "far": "/etc/passwd",
        "lost": "b",
        "d": "a",
    }.items():
        (folder / name).symlink_to(target)
    archive = tmp_path / "a.7z"
    command = ["7z", "a", "-bd", "-snl", *options, archive, "."]
    subprocess.run(command, check=True, cwd=folder, stdout=subprocess.DEVNULL)
    made = colabkit.dataset(
        archive, password="secret" if "-psecret" in options else None, progress=False
    )
    assert tree(made) == {"a/1.txt": b"meow", "a/near": b"meow"}
    assert (made / "d").readlink() == Path("a")
    assert "2 members (far, lost)" in capsys.readouterr().out
    with pytest.raises(ArgumentError, match="what it leads to"):
        colabkit.dataset(archive, password="secret", members=["a/near"], progress=False)


def test_all_volumes_of_a_rar_come_out(tmp_path, cache):
    first, second = {"a.txt": b"text" * 100}, {"b.bin": bytes(range(256))}
    path = tmp_path / "cats.part1.rar"
    path.write_bytes(stored_rar(first, volume=0, more=True))
    (tmp_path / "cats.part2.rar").write_bytes(stored_rar(second, volume=1))
    assert tree(colabkit.dataset(path, progress=False)) == {**first, **second}
    (tmp_path / "cats.part2.rar").unlink()
    with pytest.raises(ArchiveError, match=r"part2\.rar"):
        colabkit.dataset(path, refresh=True, progress=False)


def test_a_member_of_a_rar_that_lies_in_several_volumes_comes_out(tmp_path, cache):
    whole = random.Random(3).randbytes(30_000)
    parts = [whole[:10_000], whole[10_000:20_000], whole[20_000:]]
    for number, part in enumerate(parts):
        volume = stored_rar({"a.bin": part}, volume=number, more=number < 2, whole=whole)
        (tmp_path / f"cats.part{number + 1}.rar").write_bytes(volume)
    for number in (1, 2, 3):
        made = colabkit.dataset(tmp_path / f"cats.part{number}.rar", progress=False)
        assert tree(made) == {"a.bin": whole}
    for gone in (1, 2, 3):
        path = tmp_path / f"cats.part{gone}.rar"
        data = path.read_bytes()
        path.unlink()
        with pytest.raises(ColabKitError, match=rf"part{gone}\.rar"):
            colabkit.dataset(tmp_path / f"cats.part{gone % 3 + 1}.rar", refresh=True)
        path.write_bytes(data)


@pytest.mark.parametrize("streams", [1, 3])
def test_a_tar_lz4_and_a_tar_lzma_come_out(tmp_path, original, streams):
    lz4 = pytest.importorskip("lz4.frame")
    with tarfile.open(tmp_path / "a.tar", "w") as packed:
        packed.add(original, "top")
    data = (tmp_path / "a.tar").read_bytes()
    step = len(data) // streams + 1
    pieces = [data[begin : begin + step] for begin in range(0, len(data), step)]
    (tmp_path / "lz4").write_bytes(b"".join(map(lz4.compress, pieces)))
    assert unpacked(tmp_path / "lz4", tmp_path / "ours") == tree(original.parent)
    if streams == 1:
        (tmp_path / "lzma").write_bytes(lzma.compress(data, lzma.FORMAT_ALONE, preset=0))
        assert unpacked(tmp_path / "lzma", tmp_path / "again") == tree(original.parent)


@pytest.mark.parametrize(
    ("magic", "package"),
    [
        (b"7z\xbc\xaf\x27\x1c" + bytes(32), "py7zr"),
        (b"Rar!\x1a\x07\x01\x00" + bytes(32), "rarfile"),
    ],
)
def test_a_missing_package_is_named(tmp_path, monkeypatch, magic, package):
    monkeypatch.setitem(__import__("sys").modules, package, None)
    archive = tmp_path / "archive"
    archive.write_bytes(magic + bytes(32))
    with pytest.raises(MissingPackageError, match=package):
        unpacked(archive, tmp_path / "ours")


@pytest.mark.needs(SEVEN_ZIP)
def test_an_encrypted_zip_needs_its_password(tmp_path, original):
    small = original / "class 1"
    archive = tmp_path / "a.zip"
    command = ["7z", "a", "-bd", "-psecret", "-mem=ZipCrypto", archive, small / "001.bin"]
    command += [small / "008.bin", small / "015.bin"]
    subprocess.run(command, check=True, stdout=subprocess.PIPE)
    with pytest.raises(ArchivePasswordError, match=r"001\.bin"):
        unpacked(archive, tmp_path / "none")
    with pytest.raises(ArchivePasswordError, match="bin"):
        unpacked(archive, tmp_path / "wrong", password="wrong")
    found = unpacked(archive, tmp_path / "ours", password="secret")
    assert found == {name: (small / name).read_bytes() for name in found}
    assert len(found) == 3


@pytest.mark.needs(SEVEN_ZIP)
@pytest.mark.parametrize(
    ("encryption", "method"),
    [
        ("ZipCrypto", "Deflate"),
        ("ZipCrypto", "Copy"),
        ("AES128", "BZip2"),
        ("AES192", "Copy"),
        ("AES256", "Deflate"),
    ],
)
def test_an_encrypted_zip_comes_out_as_it_went_in(tmp_path, original, encryption, method):
    pytest.importorskip("Cryptodome")
    (original / "large.bin").write_bytes(random.Random(0).randbytes(400_000) + bytes(9_000_000))
    archive = tmp_path / "a.zip"
    command = ["7z", "a", "-tzip", "-bd", "-pse cret", f"-mem={encryption}", f"-mm={method}", "-r"]
    subprocess.run([*command, archive, "."], check=True, stdout=subprocess.PIPE, cwd=original)
    assert unpacked(archive, tmp_path / "ours", password="se cret") == tree(original)
    with pytest.raises(ArchivePasswordError, match="wrong for member"):
        unpacked(archive, tmp_path / "wrong", password="secret")
    whole = bytearray(archive.read_bytes())
    whole[len(whole) // 2] ^= 1
    archive.write_bytes(whole)
    with pytest.raises(ArchiveError):
        unpacked(archive, tmp_path / "damaged", password="se cret")


@pytest.mark.needs(ZIP)
@pytest.mark.parametrize("sizes", [[8_000_000], [1_900_000] * 4, [400_000] * 20], ids=len)
def test_who_decrypts_ends_when_nobody_waits_any_more(tmp_path, monkeypatch, sizes):
    for number, nbytes in enumerate(sizes):
        (tmp_path / f"{number}.bin").write_bytes(random.Random(number).randbytes(nbytes))
    archive = tmp_path / "a.zip"
    command = ["zip", "-q", "-0", "-P", "secret", archive, *(f"{n}.bin" for n in range(len(sizes)))]
    subprocess.run(command, check=True, cwd=tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    source = open_source(archive)
    (tmp_path / "into").mkdir()

    def give_up(_: TransferProgress) -> None:
        message = "enough"
        raise RuntimeError(message)

    plan = plan_archive(source, password="secret")
    with pytest.raises(RuntimeError, match="enough"), contextlib.closing(source):
        unpack(plan, source, tmp_path / "into", password="secret", on_progress=give_up)
    assert not [t.name for t in threading.enumerate() if t.name.startswith("colabkit-unpack")]


@pytest.mark.needs(ZIP)
@pytest.mark.parametrize(
    ("password", "with_unzip"),
    [("passwort", True), ("a b", True), ("pässwört", True), ("q'\"\\$`", True), ("a b", False)],
)
def test_a_large_member_is_decrypted_with_and_without_unzip(
    tmp_path, monkeypatch, password, with_unzip
):
    (tmp_path / "in").mkdir()
    data = random.Random(1).randbytes(300_000)
    (tmp_path / "in" / "large.bin").write_bytes(data + bytes(9_000_000))
    archive = tmp_path / "a.zip"
    command = ["zip", "-q", "-P", password, archive, "large.bin"]
    subprocess.run(command, check=True, cwd=tmp_path / "in")
    if not with_unzip:
        monkeypatch.setenv("PATH", str(tmp_path))
    assert unpacked(archive, tmp_path / "ours", password=password) == tree(tmp_path / "in")


def sealed(data: bytes, password: bytes, method: int) -> ZipMember:
    """Returns a member as WinZip writes small ones: AES-256, with a seal and without a CRC."""
    aes = pytest.importorskip("Cryptodome.Cipher.AES")
    counter = pytest.importorskip("Cryptodome.Util.Counter")
    salt = bytes(range(16))
    keys = hashlib.pbkdf2_hmac("sha1", password, salt, 1000, 66)
    count = counter.new(128, little_endian=True, initial_value=1)
    packed = deflated(data) if method == DEFLATE else data
    hidden = aes.new(keys[:32], aes.MODE_CTR, counter=count).encrypt(packed)
    seal = hmac.new(keys[32:64], hidden, "sha1").digest()[:10]
    extra = struct.pack("<2HH2sBH", 0x9901, 7, 2, b"AE", 3, method)
    whole = salt + keys[64:] + hidden + seal
    return ZipMember(b"a", data, method=99, flags=1, packed=whole, crc=0, extra=extra)


@pytest.mark.parametrize("method", [0, DEFLATE])
@pytest.mark.parametrize("data", [b"secret" * 100, b"", bytes(9_000_000)])
def test_a_zip_sealed_without_a_crc_comes_out_and_its_crc_is_learned(tmp_path, method, data):
    archive = tmp_path / "a.zip"
    archive.write_bytes(raw_zip([sealed(data, b"pw", method)]))
    assert unpacked(archive, tmp_path / "ours", password="pw") == {"a": data}
    whole = sealed(data, b"pw", method)
    assert whole.packed is not None
    torn = whole.packed[:-1] + bytes([whole.packed[-1] ^ 1])
    archive.write_bytes(raw_zip([dataclasses.replace(whole, packed=torn)]))
    with pytest.raises(ArchiveCorruptError):
        unpacked(archive, tmp_path / "torn", password="pw")


def test_members_decrypted_in_step_say_what_each_says_alone():
    draw = random.Random(2)
    sizes = [draw.choice([12, 13, 40, 700, 701, 1500, 4000]) for _ in range(150)]
    streams = [memoryview(draw.randbytes(nbytes)) for nbytes in sizes]
    keys = keys_of(b"secret")
    for stream, plain in zip(streams, all_decrypted(streams, keys, lambda: None), strict=True):
        assert bytes(plain) == decrypted(stream, keys)[0][12:]


NAMES = {
    "gbk": ["数据集/训练/图片 一.jpg", "数据集/测试/猫和狗.txt"],
    "cp932": ["データ/画像/ねこ.jpg", "データ/訓練/テスト.txt"],
    "utf-8": ["données/été.txt", "数据/图.jpg"],
    "cp437": ["données/été.txt", "Größe/übung.txt"],
}


@pytest.mark.parametrize("encoding", NAMES)
def test_names_without_a_flag_come_out_right(tmp_path, encoding):
    archive = tmp_path / "a.zip"
    archive.write_bytes(
        raw_zip([ZipMember(n.encode(encoding), n.encode()) for n in NAMES[encoding]])
    )
    assert unpacked(archive, tmp_path / "ours") == {n: n.encode() for n in NAMES[encoding]}


def test_a_folder_named_in_gbk_by_tar_comes_out_right(tmp_path):
    archive = tmp_path / "a.tar"
    with tarfile.open(archive, "w", format=tarfile.GNU_FORMAT, encoding="gbk") as packed:
        for name in NAMES["gbk"]:
            packed.addfile(tarfile.TarInfo(name))
    assert unpacked(archive, tmp_path / "ours") == dict.fromkeys(NAMES["gbk"], b"")


ODD = ["a\nb", "x/.hidden", ".top", "a..b", "...", "x/ lead", "tail ", "50%#&!~", "n" * 255, "é/ü"]


@pytest.mark.parametrize("kind", ["zip", "tar"])
@pytest.mark.parametrize("plain", [[], [f"plain/{n}" for n in range(6000)]], ids=["few", "many"])
def test_odd_but_harmless_names_come_out(tmp_path, kind, plain):
    names = [*plain, *ODD]
    archive = tmp_path / "archive"
    if kind == "zip":
        members = [ZipMember(name.encode(), name.encode(), flags=0x800) for name in names]
        archive.write_bytes(raw_zip(members))
    else:
        with tarfile.open(archive, "w") as packed:
            for name in names:
                info = tarfile.TarInfo(name)
                info.size = len(name.encode())
                packed.addfile(info, io.BytesIO(name.encode()))
    assert unpacked(archive, tmp_path / "ours") == {name: name.encode() for name in names}


def test_what_desktops_leave_behind_is_left_out_and_a_single_top_folder_kept(tmp_path):
    kept = {"data/a.jpg": b"a", "data/sub/b.jpg": b"b"}
    junk = ["__MACOSX/data/._a.jpg", "data/.DS_Store", "data/sub/Thumbs.db", "__MACOSX/._data"]
    archive, plain = tmp_path / "a.zip", tmp_path / "a.tar"
    with zipfile.ZipFile(archive, "w") as packed, tarfile.open(plain, "w") as tarred:
        for name in [*kept, *junk]:
            packed.writestr(name, kept.get(name, b"junk"))
            source = tmp_path / "member"
            source.write_bytes(kept.get(name, b"junk"))
            tarred.add(source, name)
    assert unpacked(archive, tmp_path / "zip") == kept
    assert unpacked(plain, tmp_path / "tar") == kept


def test_members_chooses_files_folders_and_patterns(tmp_path):
    names = ["train/a.jpg", "train/b.txt", "test/c.jpg", "readme"]
    archive = tmp_path / "a.zip"
    archive.write_bytes(raw_zip([ZipMember(name.encode(), b"x") for name in names]))
    for number, (chosen, expected) in enumerate(
        [
            (["train"], ["train/a.jpg", "train/b.txt"]),
            (["*.jpg"], ["train/a.jpg", "test/c.jpg"]),
            (["readme"], ["readme"]),
            (lambda path: path.endswith("b.txt"), ["train/b.txt"]),
        ]
    ):
        found = unpacked(archive, tmp_path / str(number), members=chosen)
        assert sorted(found) == sorted(expected)


def test_the_type_is_told_by_content_not_by_name(tmp_path, original):
    archive = tmp_path / "photos.zip"
    with tarfile.open(archive, "w:gz", compresslevel=1) as packed:
        packed.add(original / "run.sh", "run.sh")
    assert set(unpacked(archive, tmp_path / "ours")) == {"run.sh"}


@pytest.mark.needs(SEVEN_ZIP)
def test_a_name_like_a_drive_of_windows_in_a_7z_comes_out_or_the_program_is_named(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("a:b", "c"):
        (tmp_path / "in" / name).write_text(name)
    archive = tmp_path / "a.7z"
    command = ["7z", "a", "-bd", archive, "."]
    subprocess.run(command, check=True, stdout=subprocess.PIPE, cwd=tmp_path / "in")
    assert unpacked(archive, tmp_path / "some", members="!a:b") == {"c": b"c"}
    said = ""
    try:
        assert unpacked(archive, tmp_path / "ours") == {"a:b": b"a:b", "c": b"c"}
    except ArchiveUnsupportedError as error:
        said = str(error)
    assert not said or ("a:b" in said and "run !7z x" in said)
