"""Which encoding an archive's names are in, where the archive does not say."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence

_SAMPLE = 2000
# Enough of the pairs must be characters people use; chance pairs of other encodings are not.
_ENOUGH = 0.6
FALLBACK = "cp437"

_Judge = Callable[[int, int], tuple[int, bool]]


def encoding_of(names: Iterable[bytes]) -> str:
    """Returns the encoding in which all of these names are most likely written.

    Args:
        names: Names with bytes beyond ASCII.

    Returns:
        "utf-8" where all are valid, else "gb18030" or "cp932" where they read as Chinese or
        Japanese, else "cp437", which zip prescribes.
    """
    sample = [name for name, _ in zip(names, range(_SAMPLE), strict=False)]
    if _decodes(sample, "utf-8"):
        return "utf-8"
    scores = {
        "gb18030": _share(sample, _chinese) if _decodes(sample, "gb18030") else 0.0,
        "cp932": _share(sample, _japanese) if _decodes(sample, "cp932") else 0.0,
    }
    best = max(scores, key=lambda encoding: scores[encoding])
    return best if scores[best] >= _ENOUGH else FALLBACK


def decoded(name: bytes, encoding: str) -> str:
    """Returns a name as text; one that the encoding cannot hold is read as cp437."""
    try:
        return name.decode(encoding)
    except UnicodeDecodeError:
        return name.decode(FALLBACK)


def _decodes(names: Sequence[bytes], encoding: str) -> bool:
    try:
        for name in names:
            name.decode(encoding)
    except UnicodeDecodeError:
        return False
    return True


def _share(names: Sequence[bytes], usual: _Judge) -> float:
    """Returns the share of the bytes beyond ASCII that lie in usual characters."""
    good = whole = 0
    for name in names:
        place = 0
        while place < len(name):
            if name[place] < 0x80:
                place += 1
                continue
            width, is_usual = usual(name[place], name[place + 1] if place + 1 < len(name) else 0)
            whole += width
            good += width * is_usual
            place += width
    return good / whole if whole else 0.0


def _chinese(lead: int, trail: int) -> tuple[int, bool]:
    """Returns a character's width, and whether it is in GB 2312's first level, or punctuation."""
    return 2, trail >= 0xA1 and (0xB0 <= lead <= 0xD7 or 0xA1 <= lead <= 0xA3)


def _japanese(lead: int, trail: int) -> tuple[int, bool]:
    """Returns a character's width, and whether it is punctuation, kana, or first level kanji."""
    if 0xA1 <= lead <= 0xDF:
        return 1, False  # single-byte kana are rare in names
    return 2, trail >= 0x40 and (0x81 <= lead <= 0x83 or 0x88 <= lead <= 0x97)
