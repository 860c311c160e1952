"""Which encoding an archive's names are in, where the archive does not say."""

from __future__ import annotations

import itertools
import unicodedata
from collections.abc import Callable, Iterable, Sequence

from colabkit.datasets.archives import usual_characters as usual

FALLBACK = "cp437"
_SAMPLE = 2000
# What no language scores is not guessed: zip prescribes cp437.
_ENOUGH = 0.3
_USUAL, _POSSIBLE, _RARE = 1.0, 0.45, 0.08

_Judge = Callable[[str, bytes], float]


def _by_usual(characters: str, ranges: Sequence[tuple[int, int]]) -> _Judge:
    """Returns a judge of two-byte characters: usual ones, those in a lead byte's range, others."""
    known = frozenset(characters)

    def judge(character: str, raw: bytes) -> float:
        if character in known:
            return _USUAL
        if unicodedata.category(character)[0] in "PS":
            return _POSSIBLE if ord(character) >= 0x2000 else _RARE
        if len(raw) == 2 and raw[1] >= 0x40 and any(a <= raw[0] <= b for a, b in ranges):
            return _POSSIBLE
        return _RARE

    return judge


def _simplified(character: str, raw: bytes) -> float:
    # Only GBK has characters whose second byte is low: traditional or rare ones.
    return min(_in_gb2312(character, raw), _USUAL if raw[-1] >= 0xA1 else _POSSIBLE / 2)


def _japanese(character: str, raw: bytes) -> float:
    if "\u3041" <= character <= "\u30ff":
        return _USUAL
    if len(raw) == 1:
        return 0.5  # half-width kana: there are only sixty, so that chance hits them often
    return _in_jis(character, raw)


def _letters(letters: str) -> _Judge:
    known = frozenset(letters)
    # Box-drawing between letters speaks against them.
    return lambda character, _: 0.75 if character in known else -1.0


_in_gb2312 = _by_usual(usual.SIMPLIFIED, [(0xB0, 0xD7)])
_in_jis = _by_usual(usual.KANJI, [(0x88, 0x97)])
_ACCENTED = "äöüßÄÖÜéèêëàâçîïôùûÉÈÀÇñÑáíóúåÅæÆøØ¡¿ìòœ"
_CYRILLIC = "абвгдежзийклмнопрстуфхцчшщъыьэюяё"
_JUDGES: dict[str, _Judge] = {
    "gb18030": _simplified,
    "cp932": _japanese,
    "big5hkscs": _by_usual(usual.TRADITIONAL, [(0xA4, 0xC6)]),
    "cp949": _by_usual(usual.HANGUL, [(0xB0, 0xC8)]),
    "cp437": _letters(_ACCENTED),
    "cp1252": _letters(_ACCENTED),
    "cp866": _letters(_CYRILLIC + _CYRILLIC.upper()),
    "cp1251": _letters(_CYRILLIC + _CYRILLIC.upper()),
}
_OF_LATIN = frozenset({"cp437", "cp1252"})


def encoding_of(names: Iterable[bytes]) -> str:
    """Returns the encoding in which names are most likely written, one for all of them.

    Args:
        names: Names with bytes beyond ASCII; those that are valid UTF-8 say nothing.

    Returns:
        "utf-8" where all are valid, else the one whose characters are most usual: Chinese,
        Japanese, Korean, Western European or Russian; else "cp437", which zip prescribes.
    """
    sample = list(itertools.islice((name for name in names if not _is_utf8(name)), _SAMPLE))
    if not sample:
        return "utf-8"
    scores = {encoding: _score(sample, encoding) for encoding in _JUDGES}
    best = max(scores, key=lambda encoding: scores[encoding])
    return best if scores[best] >= _ENOUGH else FALLBACK


def decoded(name: bytes, encoding: str, *, is_given: bool = False) -> str:
    """Returns a name as text: as UTF-8 where it is, else in an encoding, else as cp437.

    An encoding that the user gave comes first.
    """
    for candidate in (encoding, "utf-8") if is_given else ("utf-8", encoding):
        try:
            return name.decode(candidate)
        except UnicodeDecodeError:
            continue
    return name.decode(FALLBACK)


class NameReader:
    """Decodes names that come one by one, in one encoding.

    Args:
        encoding: The encoding, None to judge by the first name that is no UTF-8.
    """

    def __init__(self, encoding: str | None) -> None:
        self.encoding = encoding
        self._is_given = encoding is not None
        self._sample: list[bytes] = []

    def text(self, name: bytes) -> str:
        """Returns a name as text."""
        if name.isascii():
            return name.decode("ascii")
        if self._is_given:
            return decoded(name, self.encoding or "", is_given=True)
        if not _is_utf8(name):
            if self.encoding is None:
                self.encoding = encoding_of([name])
            if len(self._sample) < _SAMPLE:
                self._sample.append(name)
        return decoded(name, self.encoding or "utf-8")

    def better(self) -> str | None:
        """Returns the encoding that all names together speak for, None where it was taken."""
        if not self._sample:
            return None
        encoding = encoding_of(self._sample)
        return None if encoding == self.encoding else encoding


def _is_utf8(name: bytes) -> bool:
    try:
        name.decode()
    except UnicodeDecodeError:
        return False
    return True


def _score(names: Sequence[bytes], encoding: str) -> float:
    """Returns how usual characters are beyond ASCII, by their bytes; 0 where one is none."""
    judge, good, whole = _JUDGES[encoding], 0.0, 0
    for name in names:
        try:
            text = name.decode(encoding)
        except UnicodeDecodeError:
            return 0.0
        for before, character, after in zip(f" {text}", text, f"{text[1:]} ", strict=False):
            if character.isascii():
                if encoding not in _OF_LATIN and len(character.encode(encoding)) > 1:
                    whole += 2
                continue
            raw = character.encode(encoding, "replace")
            likely = _fits(character, before, after, encoding in _OF_LATIN) if len(raw) == 1 else 1
            worth = judge(character, raw)
            good += len(raw) * (worth * likely if worth > 0 else worth)
            whole += len(raw)
    return good / whole if whole else 0.0


def _fits(character: str, before: str, after: str, of_latin: bool) -> float:
    """Returns how likely a character of one byte is between its neighbours."""
    if character.isupper() and before.islower():
        return -2.0
    beside_latin = any(c.isascii() and c.isalpha() for c in (before, after))
    # Between letters of ASCII an accent is likely, a kana or a Russian letter is not.
    return 1.0 if beside_latin == of_latin else 0.4
