"""Invented archives whose names are in an encoding that they do not tell."""

from __future__ import annotations

import random
from collections.abc import Mapping

from tests.unit.datasets.archives.inventing.members import Invented
from tests.unit.datasets.building import DEFLATE, STORED, ZipMember, raw_tar, raw_zip, tar_entry
from tests.unit.datasets.building import pax as pax_of

# Among them characters whose second byte is a backslash, a slash's neighbour or a brace.
_WORDS: Mapping[str, str] = {
    "gbk": "猫 训练集 图片 测试 标签 数据 誠 俓 乗 新建文件夹 水稻病害 狗",
    "big5": "貓 訓練集 功能 許可 測試 標籤 資料 豬 蓋 新增資料夾 水稻",
    "cp932": "猫 ソース 表 十 能力 データ 学習 予 ﾃﾞｰﾀ 写真 新しいフォルダー",
    "cp949": "고양이 훈련 데이터 사진 새_폴더 라벨 강아지 검증",
    "cp437": "Größe Müller élève ça niño Ångström Straße",
    "cp850": "maçã São_Paulo Ações Øl forêt Größe",
    "cp1252": "maçã forêt Größe naïve “quoted” Ünïcode",
    "cp866": "Фото кошка Данные обучение Новая_папка",
    "cp1251": "Фото кошка Данные обучение Новая_папка",
    "euc_kr": "고양이 훈련 데이터 사진 라벨",
    "gb18030": "猫 𠮷野家 训练集 €uro 图片",
}
_ASCII = ("img", "train", "1", "data set", "v2.0", "IMG_0001")


def invented_names(number: int) -> tuple[Invented, str, dict[str, bytes]]:
    """Returns an archive, its encoding, and what it holds."""
    draw = random.Random(number)
    encoding = draw.choice(sorted(_WORDS))
    content = {}
    for n in range(draw.choice((1, 2, 5, 20))):
        content[_path(draw, encoding, n)] = b"%d" % n * draw.choice((1, 300))
    out = Invented(number, draw.choice((".zip", ".tar")), story=[f"names in {encoding}"])
    make = _zip if out.suffix == ".zip" else _tar
    out.data = make(draw, encoding, content, out.story)
    return out, encoding, content


def _path(draw: random.Random, encoding: str, n: int) -> str:
    words = _WORDS[encoding].split()
    parts = [draw.choice((*words, *words, *_ASCII)) for _ in range(draw.choice((1, 2, 2, 3)))]
    word = draw.choice(words)
    # Of 100 bytes or more in most encodings, and no more in UTF-8 than a disk takes.
    long = word * (190 // len(word.encode())) if draw.random() < 0.1 else ""
    # The number first: no name is another's folder.
    return "/".join([*(f"{part}_d" for part in parts[:-1]), f"{n}{parts[-1]}{long}.jpg"])


def _zip(
    draw: random.Random, encoding: str, content: Mapping[str, bytes], story: list[str]
) -> bytes:
    host = draw.choice((0, 0, 3, 11))
    members, done = [], set[str]()
    told_utf8 = draw.random() < 0.2
    story.append(f"host {host}{', some in UTF-8 with its flag' if told_utf8 else ''}")
    for path, data in content.items():
        folder = path.rpartition("/")[0]
        if folder and folder not in done and draw.random() < 0.5:
            done.add(folder)
            members.append(ZipMember(f"{folder}/".encode(encoding), host=host, mode=0o40755))
        flags, name = 0, path.encode(encoding)
        if told_utf8 and draw.random() < 0.5:
            flags, name = 0x800, path.encode()
        method = draw.choice((STORED, DEFLATE))
        members.append(ZipMember(name, data, method, flags=flags, host=host))
    return raw_zip(members)


def _tar(
    draw: random.Random, encoding: str, content: Mapping[str, bytes], story: list[str]
) -> bytes:
    told_utf8 = draw.random() < 0.2
    story.append("some in pax, which is UTF-8" if told_utf8 else "")
    entries = []
    for path, data in content.items():
        raw = path.encode(encoding)
        if told_utf8 and draw.random() < 0.5:
            entries.append(pax_of(path=path) + tar_entry(b"x", data))
        elif len(raw) > 100:
            entries.append(
                tar_entry(b"././@LongLink", raw + b"\0", b"L") + tar_entry(raw[:100], data)
            )
        else:
            entries.append(tar_entry(raw, data))
    return raw_tar(*entries)
