"""Which files of a folder are complete: exports may still be written while they are copied."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable, Sequence

from colabkit.datasets.cache.manifest import Member
from colabkit.datasets.folders.listing import Listing

SETTLED_S = 2.0
PATIENCE_S = 20.0
_EMPTY_S = 3600.0
_SKEW_S = 60.0
_NS = 1e9


@dataclasses.dataclass(frozen=True, slots=True)
class Settled:
    """A folder's complete files.

    Attributes:
        listing: The complete files.
        unfinished: Paths of the files that are still being written.
    """

    listing: Listing
    unfinished: tuple[str, ...]


def settle(
    listing: Listing,
    *,
    look: Callable[[Sequence[str]], Sequence[Member | None]],
    pause: Callable[[float], None],
    empty_is_unfinished: bool,
    now_s: Callable[[], float] = time.time,
    patience_s: float = PATIENCE_S,
) -> Settled:
    """Waits until the files that were written just now have stopped changing.

    A file is complete when its size and time of change have been the same for two seconds.
    Nothing is waited for where every file is older than that.

    Args:
        listing: What the folder held at first sight.
        look: Looks at files again; None for one that is gone.
        pause: Waits for some seconds.
        empty_is_unfinished: Whether a file of no bytes and of the last hour counts as one whose
            content is still to come.
        now_s: Seconds since the epoch.
        patience_s: How long to wait for files that go on changing.
    """
    began_s = now_s()
    unfinished: dict[str, Member | None] = {}
    if empty_is_unfinished:
        unfinished = {
            f.path: f for f in listing.files if not f.nbytes and _age_s(f, began_s) < _EMPTY_S
        }
    young = {f.path: f for f in listing.files if _age_s(f, began_s) < SETTLED_S}
    young = {path: file for path, file in young.items() if path not in unfinished}
    fresh: dict[str, Member] = {}
    while young and now_s() - began_s < patience_s:
        pause(SETTLED_S)
        seen = dict(zip(young, look(list(young)), strict=True))
        fresh |= {path: file for path, file in young.items() if seen[path] == file}
        unfinished |= {path: None for path, file in seen.items() if file is None}
        young = {
            path: file for path, file in seen.items() if file is not None and path not in fresh
        }
    unfinished |= young
    files = [fresh.get(f.path, f) for f in listing.files if f.path not in unfinished]
    return Settled(Listing(files, listing.folders), tuple(sorted(unfinished)))


def _age_s(file: Member, now_s: float) -> float:
    age_s = now_s - (file.mtime_ns or 0) / _NS
    # A time far in the future is another machine's clock and says nothing.
    return age_s if age_s > -_SKEW_S else _EMPTY_S
