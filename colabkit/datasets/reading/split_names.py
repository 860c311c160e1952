"""The parts of an archive that was split, told by their names."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Callable, Collection, Iterable, Sequence

_ARCHIVE = r"(?:zip|7z|tar|t?gz|t?bz2?|t?xz|t?zst|lz4)"
# Of 7-Zip (cats.zip.001), of `split` (cats.tar.gz.aa) and as people name them (cats.zip.part1).
_CUT = re.compile(
    rf"(?P<stem>.+\.{_ARCHIVE})(?P<mark>[._-]?(?:part|vol|chunk)[._-]?|[._-])"
    r"(?P<number>\d{1,3}|0\d{3}|[a-z]{2,3})",
    re.IGNORECASE,
)
_CUT_WITHOUT_NAME = re.compile(r"(?P<stem>x)(?P<mark>)(?P<number>[a-z]{2})")
# Of `zip -s` and WinZip: cats.z01, cats.z02 and at last cats.zip.
_SPANNED = re.compile(r"(?P<stem>.+)\.z(?P<number>\d{2,3}|ip)", re.IGNORECASE)
# Google Drive and Takeout give a large folder as several archives, each of them whole.
_DRIVE = re.compile(r"(?P<stem>.+-\d{8}T\d{6}Z(?:-\d+)?)-(?P<number>\d{3})\.(?P<ending>zip|tgz)")
# WinRAR's: the first names the others, and rarfile reads them itself.
_RAR = re.compile(r"(?P<stem>.+)\.part(?P<number>\d{1,5})\.rar", re.IGNORECASE)
# As it called them before RAR 5: cats.rar, cats.r00, cats.r01.
_OLD_RAR = re.compile(r"(?P<stem>.+)\.r(?P<number>\d{2}|ar)", re.IGNORECASE)
# `split --additional-suffix=.zip` and --numeric-suffixes: the number stands before the ending.
_SLICE = re.compile(
    rf"(?P<stem>.*?)(?P<number>\d{{2,3}}|[a-z]{{2}})(?P<ending>(?:\.tar)?\.{_ARCHIVE})",
    re.IGNORECASE,
)
_NUMBERED = re.compile(r"(?P<stem>.+[-_ ])(?P<number>0*\d{1,3})\.zip", re.IGNORECASE)
# A suffix of letters that would be a later part is one, as .bak and .old are none.
_LETTERED_MAX = 100
_LETTERS = 26
# In cats.tar.gz the letters say how it is packed, though part 182 would be called so too.
_PACKINGS = frozenset({"gz", "bz", "xz", "lz", "br", "zst", "lzo", "tgz", "zip", "rar"})


@dataclasses.dataclass(frozen=True, slots=True)
class SplitArchive:
    """An archive in parts.

    Attributes:
        name: What it would be called whole; the same whichever part was named.
        parts: The parts that are there, in order.
        missing: Names of parts that are not there, though later ones are.
        are_whole: Whether each part is an archive of its own.
        around: The names of the parts that would come before the first and behind the last.
        before: The name of the part that may have come before the first.
        are_joined: Whether its bytes are those of the parts in a row.
    """

    name: str
    parts: tuple[str, ...]
    missing: tuple[str, ...] = ()
    are_whole: bool = False
    around: tuple[str, ...] = ()
    before: str = ""
    are_joined: bool = True

    @property
    def label(self) -> str:
        """A short name for the user."""
        count = f"{len(self.parts):,} parts" if len(self.parts) > 1 else "1 part"
        return f"{_placed(self.name)[1]} ({count})"

    def words(self) -> str:
        """Returns what to say where it cannot be read."""
        first, last = (_placed(self.parts[i])[1] for i in (0, -1))
        read = f"It was read from the one part {first}"
        if len(self.parts) > 1:
            read = f"It was read from {len(self.parts):,} parts, {first} to {last}"
        lacks = " or ".join(_placed(name)[1] for name in self.around)
        return f"{read}: is {lacks} missing, or one not uploaded whole?"


@dataclasses.dataclass(frozen=True, slots=True)
class _Part:
    folder: str
    stem: str
    mark: str
    number: int
    text: str
    query: str

    def name_of(self, number: int) -> str:
        """Returns what the part of another number is called."""
        if self.text.isdecimal():
            return f"{self.mark}{number:0{len(self.text)}}"
        letters = ""
        for _ in self.text:
            number, letter = divmod(number, _LETTERS)
            letters = chr(ord("a") + letter) + letters
        return self.mark + (letters.upper() if self.text.isupper() else letters)

    def path_of(self, number: int) -> str:
        """Returns the path of the part of another number."""
        return f"{self.folder}{self.stem}{self.name_of(number)}{self.query}"


def split_archive(path: str, names: Collection[str]) -> SplitArchive | None:
    """Returns the archive that a file is a part of, None where it is none.

    Args:
        path: A path or URL.
        names: The names of the files beside it.

    Example:
        >>> split_archive("d/cats.zip.002", ["cats.zip.001", "cats.zip.002"]).parts
        ('d/cats.zip.001', 'd/cats.zip.002')
        >>> split_archive("d/cats.tar.gz.ac", ["cats.tar.gz.aa", "cats.tar.gz.ac"]).missing
        ('d/cats.tar.gz.ab',)
        >>> split_archive("d/cats.r00", ["cats.rar", "cats.r00", "cats.r01"]).parts
        ('d/cats.rar', 'd/cats.r00', 'd/cats.r01')
    """
    folder, base, query = _placed(path)
    if found := _DRIVE.fullmatch(base):
        return _of_drive(folder, query, found, names)
    if found := _SPANNED.fullmatch(base):
        return _spanned(folder, query, found["stem"], {base, *names})
    if found := _RAR.fullmatch(base):
        return _volumes(folder, query, found["stem"], {base, *names})
    if found := _OLD_RAR.fullmatch(base):
        return _old_volumes(folder, query, found["stem"], {base, *names})
    part = _part(path)
    if part is None or part.text.lower() in _PACKINGS:
        return None
    there = {part.number: path}
    for name in names:
        other = _part(folder + name + query)
        if other is not None and _are_of_one(other, part):
            there.setdefault(other.number, folder + name + query)
    first = 0 if not part.text.isdecimal() or 0 in there else 1
    if not part.text.isdecimal() and 0 not in there and part.number > _LETTERED_MAX:
        return None
    numbers = range(min(first, *there), max(there) + 1)
    # Two digits begin at 00 where `split -d` wrote them, three at 001.
    before = part.path_of(0) if numbers[0] == 1 else ""
    shown = [before] if before and len(part.text) < 3 else []
    return SplitArchive(
        name=folder + (part.stem if part.mark else "x") + query,
        parts=tuple(there[number] for number in sorted(there)),
        missing=tuple(part.path_of(n) for n in numbers if n not in there),
        around=(*shown, part.path_of(numbers[-1] + 1)),
        before=before,
    )


def part_names(path: str, number: int) -> str | None:
    """Returns the name of the part of another number, None where a file is no such part.

    Example:
        >>> part_names("https://host/cats.zip.001?x=1", 2)
        'https://host/cats.zip.002?x=1'
    """
    folder, base, query = _placed(path)
    if found := _SPANNED.fullmatch(base):
        return f"{folder}{found['stem']}.z{number:02}{query}"
    if found := _DRIVE.fullmatch(base):
        return f"{folder}{found['stem']}-{number:03}.{found['ending']}{query}"
    if _RAR.fullmatch(base):
        return None  # volumes are read from a disk
    if (found := _OLD_RAR.fullmatch(base)) and "://" not in path:
        return f"{folder}{found['stem']}.r{number - 1:02}"
    part = _part(path)
    return None if part is None else part.path_of(number)


def number_of(path: str) -> int | None:
    """Returns a part's number, None for no part; 0 of a zip or rar that may have others beside it.

    Example:
        >>> number_of("cats.z03"), number_of("cats.zip"), number_of("cats.tar.gz")
        (3, 0, None)
    """
    base = _placed(path)[1]
    if found := _DRIVE.fullmatch(base):
        return int(found["number"])
    if found := _SPANNED.fullmatch(base):
        return int(found["number"]) if found["number"].isdecimal() else 0
    if found := _RAR.fullmatch(base):
        return int(found["number"])
    if found := _OLD_RAR.fullmatch(base):
        return int(found["number"]) + 1 if found["number"].isdecimal() else 0
    part = _part(path)
    return None if part is None or part.text.lower() in _PACKINGS else part.number


def like_it(path: str, listed: Callable[[], Iterable[str]]) -> list[str]:
    """Returns the zips beside one that are called as it is but for their number.

    Args:
        path: A path.
        listed: Lists the names beside it; called only where it has a number.

    Example:
        >>> like_it("d/cats-001.zip", lambda: ["cats-001.zip", "cats-002.zip", "dogs-002.zip"])
        ['cats-002.zip']
    """
    base = _placed(path)[1]
    found = _NUMBERED.fullmatch(base)
    if found is None or _DRIVE.fullmatch(base):
        return []
    others = [(name, _NUMBERED.fullmatch(name)) for name in listed() if name != base]
    return sorted(name for name, other in others if other and other["stem"] == found["stem"])


def words_on_slices(path: str, names: Iterable[str]) -> str:
    """Returns what to do where a file that is no whole archive is called as one of several parts.

    Args:
        path: A path.
        names: The names beside it.

    Example:
        >>> words_on_slices("d/p_ab.zip", ["p_aa.zip", "p_ab.zip"]).partition(":")[0]
        'It is called as parts are that split cuts, p_aa.zip to p_ab.zip'
        >>> words_on_slices("d/p_ab.zip", ["p_ab.zip", "p_ac.zip"])
        ''
    """
    folder, base, _ = _placed(path)
    found = re.fullmatch(_SLICE, base)
    if found is None:
        return ""
    others = [(name, re.fullmatch(_SLICE, name)) for name in sorted({base, *names})]
    slices = [n for n, o in others if o and all(o[k] == found[k] for k in ("stem", "ending"))]
    first = re.fullmatch(_SLICE, slices[0])
    if len(slices) < 2 or first is None or first["number"].strip("0a") not in {"", "1"}:
        return ""
    import shlex  # for what cannot be read alone

    ending = found["ending"]
    return (
        f"It is called as parts are that split cuts, {slices[0]} to {slices[-1]}: if they are, join"
        f" them with !cat {shlex.quote(folder + found['stem'])}*{ending} > whole{ending}, and pass"
        " that."
    )


def gathered(
    paths: Sequence[str], names_beside: dict[str, Collection[str]]
) -> tuple[list[str], list[SplitArchive]]:
    """Returns the files that are no parts, and the archives that the others are parts of.

    Args:
        paths: Paths or URLs.
        names_beside: The names of the files in each folder.
    """
    plain: list[str] = []
    splits: dict[str, SplitArchive] = {}
    for path in paths:
        split = split_archive(path, names_beside[folder_of(path)])
        if split is None:
            plain.append(path)
        else:
            splits.setdefault(split.name, split)
    return plain, list(splits.values())


def folder_of(path: str) -> str:
    """Returns what a path or URL begins with, up to its name."""
    return _placed(path)[0]


def name_of(path: str) -> str:
    """Returns the name that a path or URL ends with."""
    return _placed(path)[1]


def _of_drive(folder: str, query: str, named: re.Match[str], names: Iterable[str]) -> SplitArchive:
    stem, ending = named["stem"], named["ending"]
    found = [match for name in (named[0], *names) if (match := _DRIVE.fullmatch(name))]
    like_it = [match for match in found if (match["stem"], match["ending"]) == (stem, ending)]
    numbers = {int(match["number"]) for match in like_it}

    def path_of(number: int) -> str:
        return f"{folder}{stem}-{number:03}.{ending}{query}"

    last = max(numbers)
    return SplitArchive(
        name=f"{folder}{stem}.{ending}{query}",
        parts=tuple(map(path_of, sorted(numbers))),
        missing=tuple(path_of(n) for n in range(1, last) if n not in numbers),
        are_whole=True,
        around=(path_of(last + 1),),
    )


def _spanned(folder: str, query: str, stem: str, names: Iterable[str]) -> SplitArchive | None:
    parts: dict[int, str] = {}
    last = ""
    for name in names:
        found = _SPANNED.fullmatch(name)
        if found is not None and found["stem"] == stem:
            if found["number"].isdecimal():
                parts[int(found["number"])] = name
            else:
                last = name
    if not parts:
        return None
    ending = ".zip" if next(iter(parts.values()))[len(stem) + 1] == "z" else ".ZIP"
    numbers = range(1, max(parts) + 1)
    missing = [f"{folder}{stem}.z{n:02}{query}" for n in numbers if n not in parts]
    if not last:
        missing.append(f"{folder}{stem}{ending}{query}")
    there = [*(parts[number] for number in sorted(parts)), *([last] if last else [])]
    return SplitArchive(
        name=f"{folder}{last or stem + ending}{query}",
        parts=tuple(f"{folder}{name}{query}" for name in there),
        missing=tuple(missing),
        around=(f"{folder}{stem}.z{numbers[-1] + 1:02}{query}",),
    )


def _volumes(folder: str, query: str, stem: str, names: Iterable[str]) -> SplitArchive:
    found = [match for name in names if (match := _RAR.fullmatch(name))]
    parts = {int(match["number"]): match for match in found if match["stem"] == stem}
    digits = len(next(iter(parts.values()))["number"])

    def path_of(number: int) -> str:
        base = parts[number][0] if number in parts else f"{stem}.part{number:0{digits}}.rar"
        return f"{folder}{base}{query}"

    return SplitArchive(
        name=path_of(1),
        parts=tuple(path_of(number) for number in sorted(parts)),
        missing=tuple(path_of(n) for n in range(1, max(parts)) if n not in parts),
        around=(path_of(max(parts) + 1),),
        are_joined=False,
    )


def _old_volumes(folder: str, query: str, stem: str, names: Iterable[str]) -> SplitArchive | None:
    matches = [match for name in names if (match := _OLD_RAR.fullmatch(name))]
    found = {match["number"].lower(): match[0] for match in matches if match["stem"] == stem}
    later = sorted(number for number in found if number.isdecimal())
    if not later:
        return None
    first = found.get("ar", f"{stem}.rar")
    numbers = ["ar", *(f"{n:02}" for n in range(int(later[-1]) + 1))]
    return SplitArchive(
        name=f"{folder}{first}{query}",
        parts=tuple(f"{folder}{found[n]}{query}" for n in numbers if n in found),
        missing=tuple(f"{folder}{stem}.r{n}{query}" for n in numbers if n not in found),
        around=(f"{folder}{stem}.r{int(later[-1]) + 1:02}{query}",),
        are_joined=False,
    )


def _part(path: str) -> _Part | None:
    folder, base, query = _placed(path)
    found = _CUT.fullmatch(base) or _CUT_WITHOUT_NAME.fullmatch(base)
    if found is None:
        return None
    text, mark = found["number"], found["mark"]
    if text.isdecimal():
        if len(text) == 1 and len(mark) == 1:
            return None  # cats.zip.1 is what a browser calls a second download
        number = int(text)
    else:
        number = 0
        for letter in text.lower():
            number = number * _LETTERS + ord(letter) - ord("a")
    return _Part(folder, found["stem"], mark, number, text, query)


def _are_of_one(one: _Part, other: _Part) -> bool:
    same_form = one.text.isdecimal() == other.text.isdecimal()
    if not one.text.isdecimal():
        same_form = same_form and len(one.text) == len(other.text)
    return same_form and (one.stem, one.mark) == (other.stem, other.mark)


def _placed(path: str) -> tuple[str, str, str]:
    """Returns a path's folder with its slash, its name, and a URL's query."""
    if "://" not in path:
        folder, slash, base = path.rpartition("/")
        return folder + slash, base, ""
    address, mark, query = path.partition("?")
    folder, slash, base = address.rpartition("/")
    return folder + slash, base, mark + query
