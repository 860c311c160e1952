"""The members of invented archives: plain ones, odd names, links, names that come again."""

from __future__ import annotations

import random
from collections.abc import Sequence
from dataclasses import dataclass, field, replace

T_S = 1_600_000_000
_SIZES = (0, 1, 4, 300, 511, 512, 513, 5_000, 70_000)
PLAIN = ("1.jpg", "a/1.jpg", "a/2.jpg", "a/b/3.txt", "b/1.jpg", "b/c/d/4.bin", "labels.csv")
_ODD = (
    *("./a/5.jpg", "a//6.jpg", "a/./7.jpg", "d/../e.txt", "a/../b/8.jpg", "d/x/../../f.txt"),
    *("/abs/1.jpg", "../up/1.jpg", "../../2.jpg", "./../3.jpg", "a/b/../../../out.txt", "/../4"),
    *("/home/me/../5.jpg", "a/..", "...", " lead.txt", "tail ", "tail.", "a b/c d.txt", "-rf"),
    *("-x/1.txt", "~/1.txt", "~root", "we:ird.txt", "C:/x/1.txt", "CON", "a/nul.txt", "star*.txt"),
    *("what?.txt", 'quo"te', "<in>", "pipe|.txt", "per%20cent", "$HOME", "`x`", "a;b", "#1"),
    *("[1].txt", "a/[b]/{c}.txt", "@list", "back\\slash.txt", "a\\b\\9.txt", "new\nline.txt"),
    *("cr\r\n", "tab\t.txt", "bell\7", "\x7f", "\x1b[1m", "\ufeffbom.txt", "数据/猫.txt"),
    *("données/é.txt", "donne\u0301es/e\u0301.txt", "Ünïcode", "🐈/🐕.png", "a/\u202ertl.txt"),
    *("nb\u00a0sp", "zero\u200bwidth", "\ufb01.txt", "ß", "İ", ".hidden", ".h/.i/1", "a/.git/x"),
    *("A/1.jpg", "a/1.JPG", "Labels.csv", ".DS_Store", "a/._1.jpg", "__MACOSX/x", "a/Thumbs.db"),
    *("n" * 99, "n" * 100, "n" * 101, "n" * 255, "n" * 256, "a/" + "é" * 127, "a/" + "é" * 128),
    *("f" * 99 + "/1", "f" * 98 + "/1", "f" * 100 + "/1", "g" * 155 + "/" + "h" * 100),
    *(
        "p" * 60 + "/" + "q" * 60 + "/" + "r" * 60 + "/1",
        "g" * 156 + "/" + "h" * 99,
        "x/" * 40 + "1",
    ),
    "/".join("k" * 30),
)
_LEFT_OUT = {b".DS_Store", b"a/._1.jpg", b"__MACOSX/x", b"a/Thumbs.db"}


@dataclass(frozen=True, slots=True)
class Member:
    """A member, whatever the archive."""

    name: bytes
    kind: str = "file"
    data: bytes = b""
    link: bytes = b""
    mode: int = 0o644
    time_s: int = T_S


@dataclass(slots=True)
class Invented:
    """An archive, and what is odd in it."""

    number: int
    suffix: str
    data: bytes = b""
    story: list[str] = field(default_factory=list)

    def __str__(self) -> str:
        return "\n  ".join([f"invented({self.number}){self.suffix}", *self.story])


def members_of(draw: random.Random) -> list[Member]:
    """Returns a few members: plain ones, one or two of odd names, links, names that come again."""
    members = [file_of(draw, name) for name in draw.sample(PLAIN, draw.randint(1, 3))]
    for _ in range(draw.choice((0, 0, 1, 1, 2))):
        members.append(file_of(draw, draw.choice(_ODD)))
    if draw.random() < 0.35:
        members += _folders(draw)
    if draw.random() < 0.3:
        members.append(_link(draw, members))
    if draw.random() < 0.25:
        members += _again(draw, members)
    if draw.random() < 0.3:
        # A hard link comes behind what it is a link to.
        draw.shuffle(members)
        members.sort(key=lambda member: member.kind == "hard")
    return members


def file_of(draw: random.Random, name: str) -> Member:
    nbytes = draw.choice(_SIZES)
    data = draw.randbytes(nbytes) if draw.random() < 0.3 else (draw.randbytes(3) * nbytes)[:nbytes]
    mode = draw.choice((0o644, 0o644, 0o600, 0o755, 0o664, 0o444, 0o2644, 0o1644))
    return Member(name.encode(), "file", data, b"", mode, T_S + draw.randrange(0, 10**8, 2))


def _folders(draw: random.Random) -> list[Member]:
    names = ("a", "a/b", "empty", "deep/er/est", ".", "./", "é", "a/b/../z", "/abs", "sp ace", "..")
    mode = draw.choice((0o755, 0o755, 0o700, 0o2775, 0o1777, 0o555))
    chosen = draw.sample(names, draw.randint(1, 2))
    return [Member(name.encode(), "folder", mode=mode) for name in chosen]


def _link(draw: random.Random, members: Sequence[Member]) -> Member:
    kind = draw.choice(("symlink", "hard"))
    others = [member for member in members if member.name not in _LEFT_OUT]
    names = [
        m.name for m in others if b".." not in m.name and (kind == "symlink" or m.kind == "file")
    ]
    target = draw.choice(names or [b"1"])
    place = draw.choice((b"link", b"a/link", b"b/c/link"))
    if kind == "symlink":
        target = b"../" * place.count(b"/") + target
        odd = (
            b"nowhere",
            b"../../../etc/passwd",
            b"/etc/passwd",
            b".",
            b"..",
            b"a",
            place,
            b"a/",
        )
        target = draw.choice((target, target, target, draw.choice(odd)))
    else:
        target = draw.choice((target, target, b"./" + target, b"nowhere", b"/" + target))
    return Member(place, kind, link=target, mode=0o777)


def _again(draw: random.Random, members: Sequence[Member]) -> list[Member]:
    """Returns members whose name came before: as a file, as a folder, as one above another."""
    one = draw.choice(members)
    file = file_of(draw, "x")
    match draw.choice(("same", "folder first", "folder later", "below", "link", "case")):
        case "same":
            return [replace(file, name=one.name)]
        case "folder first":
            return [Member(b"both", "folder", mode=0o755), replace(file, name=b"both")]
        case "folder later":
            return [replace(file, name=b"both"), Member(b"both", "folder", mode=0o755)]
        case "below":
            pair = [replace(file, name=b"both"), replace(file, name=b"both/1.jpg")]
            return pair if draw.random() < 0.5 else pair[::-1]
        case "link":
            pair = [
                replace(file, name=b"both"),
                Member(b"both", "symlink", link=one.name, mode=0o777),
            ]
            return pair if draw.random() < 0.5 else pair[::-1]
        case _:
            return [replace(file, name=one.name.swapcase())]


def told(member: Member, *more: object) -> str:
    name = member.name if len(member.name) < 60 else member.name[:57] + b"..."
    facts = [member.kind, repr(name), oct(member.mode), f"{len(member.data)} bytes"]
    if member.link:
        facts.append(f"-> {member.link[:60]!r}")
    return " ".join([*facts, *(str(each) for each in more if each)])
