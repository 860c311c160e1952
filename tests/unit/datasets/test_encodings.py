"""Names whose encoding an archive does not tell are read in one, chosen by all of them."""

from __future__ import annotations

import io
import tarfile
import unicodedata
import zipfile

import pytest

import colabkit
from colabkit import errors
from tests.unit.datasets.building import ZipMember, pax, raw_tar, raw_zip, tar_entry, tree
from tests.unit.datasets.sources import content_of, make_folder, make_tar, make_zip

NAMES = {
    "gb18030": ["数据/猫.jpg", "新建文件夹/麒麟.txt", "甲骨文拓片/龘.png", "訓練集/水稻.csv"],
    "big5": ["資料/貓.jpg", "測試集/蝴蝶蘭.png", "臺北/捷運.txt"],
    "cp932": ["写真/ねこ.jpg", "ﾃｽﾄ/ｶﾒﾗ.png", "新しいフォルダー/漢字.txt"],
    "cp949": ["고양이/사진.jpg", "새 폴더/강아지.png", "데이터/뷁.txt"],
    "cp437": ["Straße/Müller.jpg", "Größe/Öl.txt", "élève/ça.txt", "niño.txt"],
    "cp850": ["Anotação/maçã.jpg", "São_Paulo/Ações.txt", "Øl/ærlig.txt"],
    "cp1252": ["Anotação/maçã.jpg", "São_Paulo/Ações.txt", "Größe/forêt.txt"],
    "cp866": ["Фото/кошка.jpg", "Данные/обучение.txt"],
}


def zipped(names: list[bytes], flags: int = 0) -> bytes:
    return raw_zip([ZipMember(name, b"%d" % n, flags=flags) for n, name in enumerate(names)])


def tarred(names: list[bytes]) -> bytes:
    return raw_tar(*(tar_entry(name, b"%d" % n) for n, name in enumerate(names)))


@pytest.mark.parametrize("build", [zipped, tarred])
@pytest.mark.parametrize("encoding", NAMES)
@pytest.mark.parametrize("turned", [False, True])
def test_names_come_out_as_they_were_written_and_it_is_said(
    tmp_path, cache, capsys, build, encoding, turned
):
    names = NAMES[encoding][::-1] if turned else NAMES[encoding]
    path = tmp_path / "a.archive"
    path.write_bytes(build([name.encode(encoding) for name in names]))
    made = colabkit.dataset(path)
    assert tree(made) == {name: b"%d" % n for n, name in enumerate(names)}
    assert sum(folder.is_dir() for folder in made.iterdir()) == len(
        {name.partition("/")[0] for name in names if "/" in name}
    )
    assert "encoding= overrules it" in capsys.readouterr().out


@pytest.mark.parametrize("build", [zipped, tarred])
def test_utf8_is_taken_name_by_name(tmp_path, cache, build):
    path = tmp_path / "a.archive"
    names = ["数据/1", "文件夹/2", "猫/3"]
    path.write_bytes(build([names[0].encode(), names[1].encode("gbk"), names[2].encode()]))
    assert set(tree(colabkit.dataset(path, progress=False))) == set(names)


@pytest.mark.parametrize("build", [zipped, tarred])
@pytest.mark.parametrize(
    ("encoding", "names"),
    [
        ("gbk", ["猫/1.jpg", "训练集/狗.jpg", "QQ图片/2.jpg", "屏幕截图_2.png"]),
        ("gbk", ["训练集/狗.jpg", "猫/1.jpg", "水稻/猫.jpg"]),
        ("big5", ["貓/1.jpg", "豬/2.jpg", "測試集/3.jpg"]),
    ],
)
def test_a_name_that_is_utf8_by_chance_is_read_like_the_others(
    tmp_path, cache, build, encoding, names
):
    path = tmp_path / "a.archive"
    path.write_bytes(build([name.encode(encoding) for name in names]))
    assert set(tree(colabkit.dataset(path, progress=False))) == set(names)


@pytest.mark.parametrize("build", [zipped, tarred])
def test_accents_in_utf8_stay_beside_names_in_gbk(tmp_path, cache, build):
    path = tmp_path / "a.archive"
    names = ["données/été.txt", "Größe.txt", "cafe\u0301.txt", "façade.txt"]
    path.write_bytes(build([*(name.encode() for name in names), "训练集/狗.jpg".encode("gbk")]))
    assert set(tree(colabkit.dataset(path, progress=False))) == {*names, "训练集/狗.jpg"}


@pytest.mark.parametrize("build", [zipped, tarred])
def test_the_encoding_can_be_told(tmp_path, cache, build):
    path = tmp_path / "a.archive"
    path.write_bytes(build(["猫".encode("gbk"), b"\xb2\xe2"]))
    made = colabkit.dataset(path, encoding="latin-1", progress=False)
    assert set(tree(made)) == {"猫".encode("gbk").decode("latin-1"), "²â"}
    assert "测" in tree(colabkit.dataset(path, encoding="GBK", refresh=True, progress=False))
    with pytest.raises(errors.ArgumentError, match="not 'klingon'"):
        colabkit.dataset(path, encoding="klingon", progress=False)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_gbk_tar_of_long_names_has_one_folder(tmp_path, cache, form):
    names = [f"图像分类/猫/{'深' * 60}{n}.jpg" for n in range(5)]
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=form, encoding="gbk") as archive:
        for name in names:
            archive.addfile(tarfile.TarInfo(name))
    path = tmp_path / "a.tar"
    path.write_bytes(buffer.getvalue())
    assert set(tree(colabkit.dataset(path, progress=False))) == set(names)


@pytest.mark.parametrize("password", ["密码123", "密码123".encode("gbk")])
def test_a_password_is_tried_in_the_encoding_of_the_archive(tmp_path, cache, password):
    path = tmp_path / "a.zip"
    path.write_bytes(encrypted(b"meow", "密码123".encode("gbk")))
    with zipfile.ZipFile(path) as archive:
        assert archive.read("a", pwd="密码123".encode("gbk")) == b"meow"
    assert tree(colabkit.dataset(path, password=password, progress=False)) == {"a": b"meow"}


def encrypted(data: bytes, password: bytes) -> bytes:
    """Returns a zip of one member with the old encryption."""
    import zlib

    keys = [0x12345678, 0x23456789, 0x34567890]

    def crc(old: int, byte: int) -> int:
        return zlib.crc32(bytes([byte]), old ^ 0xFFFFFFFF) ^ 0xFFFFFFFF

    def update(byte: int) -> None:
        keys[0] = crc(keys[0], byte)
        keys[1] = ((keys[1] + (keys[0] & 0xFF)) * 134775813 + 1) & 0xFFFFFFFF
        keys[2] = crc(keys[2], keys[1] >> 24)

    for byte in password:
        update(byte)
    packed = bytearray()
    for byte in bytes(11) + bytes([zlib.crc32(data) >> 24]) + data:
        key = keys[2] | 2
        packed.append(byte ^ ((key * (key ^ 1) >> 8) & 0xFF))
        update(byte)
    member = ZipMember(
        b"a", data, packed=bytes(packed), flags=1, packed_bytes=len(packed), nbytes=len(data)
    )
    return raw_zip([member])


@pytest.mark.parametrize("encoding", ["gbk", "cp1252", "big5"])
def test_a_name_in_pax_is_utf8_whatever_the_others_are_told_to_be(tmp_path, cache, encoding):
    path = tmp_path / "a.tar"
    names = ["Anotação/maçã.jpg", "图像分类/" + "深" * 40, "données.txt"]
    raw = "plain.txt" if encoding == "big5" else {"gbk": "猫.jpg", "cp1252": "é.jpg"}[encoding]
    entries = [pax(path=name) + tar_entry(b"x", b"") for name in names]
    path.write_bytes(raw_tar(*entries, tar_entry(raw.encode(encoding))))
    assert set(tree(colabkit.dataset(path, encoding=encoding, progress=False))) == {*names, raw}


def apart(text: str) -> str:
    """Returns a name as macOS writes it: accents apart from their letters."""
    return unicodedata.normalize("NFD", text)


@pytest.mark.parametrize("make", [make_zip, make_tar, make_folder])
@pytest.mark.parametrize(
    ("members", "taken"),
    [
        ("donn\u00e9es", {"donn\u00e9es/\u00e9.txt"}),
        ("donn\u00e9es/*", {"donn\u00e9es/\u00e9.txt"}),
        ("./donn\u00e9es/", {"donn\u00e9es/\u00e9.txt"}),
        ("!donn\u00e9es", {"b.txt"}),
        (["b.txt", "!*\u00e9.txt"], {"b.txt"}),
    ],
)
def test_members_are_those_that_look_as_asked_for(tmp_path, cache, make, members, taken):
    source = make(tmp_path / "source", {apart("donn\u00e9es/\u00e9.txt"): b"x", "b.txt": b"y"})
    many = [members] if isinstance(members, str) else members
    for asked in (members, [apart(each) for each in many]):
        made = colabkit.dataset(source, members=asked, progress=False)
        assert set(content_of(made)) == set(map(apart, taken))


@pytest.mark.parametrize("text", ["\u00e9/donn\u00e9es.zip", "\u00e9/*.zip", "\u00e9"])
def test_a_source_whose_accents_are_written_apart_is_found_as_it_looks(tmp_path, cache, text):
    folder = tmp_path / apart("\u00e9")
    folder.mkdir()
    make_zip(folder / apart("donn\u00e9es.zip"), {"a.txt": b"meow"})
    made = content_of(colabkit.dataset(tmp_path / text, progress=False))
    assert set(made) == ({"a.txt"} if "zip" in text else {apart("donn\u00e9es.zip")})
    with pytest.raises(errors.DatasetNotFoundError):
        colabkit.dataset(tmp_path / "\u00e8", progress=False)
