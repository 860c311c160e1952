"""The parts of a split archive as one source: nothing is joined on a disk."""

from __future__ import annotations

import bisect
import itertools
from collections.abc import Sequence

from colabkit.datasets.reading.source import FileSource, Source

# Each thread that reads has a descriptor for each part.
_KEPT_OPEN_MAX = 16


class JoinedSource:
    """Several sources, read as if each followed the one before.

    Args:
        parts: The sources, in order; they are closed with this one.
        name: What the archive would be called whole.

    Attributes:
        starts: Where each part begins, in bytes.
    """

    def __init__(self, parts: Sequence[Source], name: str) -> None:
        self._parts = parts
        *starts, self.nbytes = itertools.accumulate((part.nbytes for part in parts), initial=0)
        self.starts = tuple(starts)
        self.name = name
        if len(parts) > _KEPT_OPEN_MAX:
            for part in parts:
                if isinstance(part, FileSource):
                    part.keeps_open = False

    def read(self, offset: int, nbytes: int) -> bytes:
        """Returns the bytes asked for, from as many parts as they lie in."""
        pieces: list[bytes] = []
        number = max(0, bisect.bisect_right(self.starts, offset) - 1)
        for part, start in zip(self._parts[number:], self.starts[number:], strict=True):
            if nbytes <= 0:
                break
            inside = min(nbytes, start + part.nbytes - offset)
            if inside <= 0:
                continue
            piece = part.read(offset - start, inside)
            pieces.append(piece)
            offset += len(piece)
            nbytes -= len(piece)
            if len(piece) < inside:
                break
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def close(self) -> None:
        """Closes every part."""
        for part in self._parts:
            part.close()
