"""What a user should hear of an archive that was unpacked: one sentence for each habit met."""

from __future__ import annotations

import enum
import threading
from collections.abc import Iterable

_NAMES_SHOWN = 3


class Remark(enum.Enum):
    """Something about members that every program accepts in its own way."""

    STRIPPED = "{} begin outside, with / or ../, and are taken without that"
    TWICE = "{} are in the archive more than once: the last one is taken"
    UNKNOWN_KIND = "{} are of a kind that is not known and are taken as files"
    LINK_LEFT_OUT = "{} are links that lead outside or to nothing and are left out"
    TOO_LONG = "{} have names too long for a disk and are left out"
    NO_END = (
        "The archive has no end mark, which some programs do not write: should it have been cut"
        " short just between two members, those behind are missing"
    )
    FIRST_PART = (
        "Its first part is taken to be the first one: should there have been {}, the files in it"
        " are missing"
    )
    MORE_BEHIND = "Something follows the end of the archive and is left out, as other programs do"
    ENCODING = "Names that do not say their encoding are read as {} (encoding= overrules it)"


class Remarks:
    """Collects remarks; any thread may add one."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._found: dict[Remark, dict[str, None]] = {}

    def add(self, remark: Remark, name: str = "") -> None:
        """Notes that a remark holds for a member, or for the whole archive."""
        with self._guard:
            self._found.setdefault(remark, {})[name] = None

    def __contains__(self, remark: Remark) -> bool:
        return remark in self._found

    def sentences(self) -> list[str]:
        """Returns what there is to say."""
        with self._guard:
            found = list(self._found.items())
        return [f"{remark.value.format(_told(names))}." for remark, names in found]


def said_once(sentences: Iterable[str]) -> list[str]:
    """Returns sentences in order, each once."""
    return list(dict.fromkeys(sentences))


def _told(names: Iterable[str]) -> str:
    names = list(names)
    if len(names) == 1:
        return names[0]
    shown = ", ".join(names[:_NAMES_SHOWN]) + (", ..." if len(names) > _NAMES_SHOWN else "")
    return f"{len(names):,} members ({shown})"
