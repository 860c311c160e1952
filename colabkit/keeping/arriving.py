"""Versions that are written and not known to be uploaded: watched until they have arrived."""

from __future__ import annotations

import dataclasses

from colabkit.checkpoint import Lease, Name
from colabkit.keeping.held import Held
from colabkit.keeping.store import VersionStore
from colabkit.keeping.version import Version

# Where the volume does not say what is uploaded, this is how long it is waited for.
_SILENT_TRUST_S = 300.0
# After so long it is looked whether a cache has lost it.
_DOUBT_S = 60.0


@dataclasses.dataclass(frozen=True, slots=True)
class OnItsWay:
    """A version that is written, and not known to be uploaded."""

    version: Version
    held: Held
    since_s: float


class Arriving:
    """The versions of one session on their way to the volume.

    Args:
        store: The versions on the volume.
        lease: This session's claim on them.
        trusted: Versions known to be whole.
        copies: How many versions to keep.

    Attributes:
        on_their_way: What is written and not known to be uploaded, the oldest first.
        safe: What the newest version holds that is known to be uploaded.
        is_silent: Whether the volume does not tell what is uploaded.
        must_check: Whether something may have been lost on its way.
    """

    def __init__(self, store: VersionStore, lease: Lease, trusted: set[Name], copies: int) -> None:
        self._store, self._lease = store, lease
        self._trusted, self._copies = trusted, copies
        self._uploaded: set[str] = set()
        self.on_their_way: list[OnItsWay] = []
        self.safe = Held()
        self.is_silent = self.must_check = False

    def send(self, version: Version, held: Held, now_s: float) -> None:
        """Watches a version that is written."""
        self.on_their_way.append(OnItsWay(version, held, now_s))

    def arrived(self, now_s: float) -> OnItsWay | None:
        """Returns the next version that is uploaded since it was asked last, None without one.

        Raises:
            StorageError: The volume cannot be asked.
        """
        if not self.on_their_way:
            return None
        each = self.on_their_way[0]
        told = self._store.is_confirmed(each.version, self._uploaded)
        self.is_silent = told is None
        waited_s = now_s - each.since_s
        if not told and not (told is None and waited_s >= _SILENT_TRUST_S):
            self.must_check |= waited_s > _DOUBT_S
            return None
        if not self._store.holds(each.version):
            # Another machine has removed what only its own older versions named.
            self.must_check = True
            return None
        del self.on_their_way[0]
        self._uploaded = set(each.version.blobs)
        self._trusted.add(each.version.name)
        self.safe = each.held
        return each

    def waited_s(self, now_s: float) -> float:
        """Returns for how long the oldest is on its way."""
        return now_s - self.on_their_way[0].since_s if self.on_their_way else 0.0

    def make_room(self, newest: Name) -> None:
        """Removes what is superfluous now that a version is uploaded.

        Raises:
            LeaseLostError: Another session keeps its folder there now.
            StorageError: The volume refuses.
        """
        self._store.note_whole()
        self._lease.check()
        older = [known for known in self._store.names() if known <= newest]
        # What was never seen whole counts as a copy only where there are too few that were.
        proven = [known for known in older if known in self._trusted][: self._copies]
        missing = self._copies - len(proven)
        self._store.prune([*proven, *[k for k in older if k not in self._trusted][:missing]])

    def drop_lost(self) -> bool:
        """After trouble: forgets what a cache has lost on its way; returns whether it had."""
        self.must_check = False
        if all(self._store.holds(each.version) for each in self.on_their_way):
            return False
        self.on_their_way = []
        return True
