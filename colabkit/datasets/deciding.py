"""Gathering what ``cache_action`` asks for until it says what to do."""

from __future__ import annotations

import dataclasses

from colabkit.datasets.cache.checking import boot_id, damaged_members, is_copy_of, sizes_state
from colabkit.datasets.cache.manifest import FolderState
from colabkit.datasets.cache.publishing import Published, look
from colabkit.datasets.cache.slots import Slot
from colabkit.datasets.cache_actions import CacheAction, Wanted, cache_action, replace_reason
from colabkit.datasets.origins.resolver import Request, Supply
from colabkit.datasets.reading.progress import Phase, Watch


@dataclasses.dataclass(frozen=True, slots=True)
class Verdict:
    """What to do, and why.

    Attributes:
        action: USE, FILL, REPLACE or REFUSE.
        published: What lies there.
        renew: Whether the manifest's notes on folder and source are out of date.
        reason: Why it is made anew, "" when it is not.
    """

    action: CacheAction
    published: Published
    renew: bool = False
    reason: str = ""


def decide(request: Request, slot: Slot, supply: Supply, watch: Watch) -> Verdict:
    """Returns what to do about a dataset; changes nothing."""
    published = look(slot)
    state, manifest = published.state, published.manifest
    known = manifest.header if manifest is not None else None
    renew = False
    if manifest is not None and state is FolderState.MOVED:
        watch.begin(Phase.CHECKING, bytes_total=manifest.header.nbytes)
        if is_copy_of(slot.folder, manifest, count=watch.add):
            state, renew = FolderState.WHOLE, True
        else:
            # Somebody else's, or one that was changed: it is not colabkit's to replace.
            known, state = None, FolderState.FOREIGN
            published = Published(None, state)
    elif manifest is not None and not request.refresh and _needs_reading(request, published):
        watch.begin(Phase.CHECKING, bytes_total=manifest.header.nbytes)
        bad = damaged_members(slot.folder, manifest.members(), count=watch.add)
        state, renew = (FolderState.DAMAGED if bad else FolderState.WHOLE), True
    wanted = Wanted(
        source=request.found.name,
        stamp=None,
        selection=request.selection,
        checksum=request.checksum,
        refresh=request.refresh,
    )
    if known is None or request.checksum is None or known.sha256 != request.checksum:
        wanted = dataclasses.replace(wanted, stamp=supply.stamp())
    while True:
        action = cache_action(known, state, wanted)
        if action is CacheAction.INSPECT and manifest is not None:
            state, renew = sizes_state(slot.folder, manifest.members()), True
        elif action is CacheAction.IDENTIFY:
            contents = supply.contents()
            is_copy = known is not None and known.digest == contents.digest_as_folder
            digest = contents.digest_as_folder if is_copy else contents.digest
            wanted = dataclasses.replace(wanted, digest=digest)
        else:
            break
    if action is CacheAction.RESTAMP:
        action, renew = CacheAction.USE, True
    if action is CacheAction.REPLACE and known is not None:
        reason = replace_reason(known, state, wanted)
        return Verdict(action, published, renew=renew, reason=reason)
    return Verdict(action, published, renew=renew)


def _needs_reading(request: Request, published: Published) -> bool:
    if request.read_all:
        return True
    header = published.manifest.header if published.manifest is not None else None
    # Published without waiting for the disk, and the machine went down since.
    return header is not None and not header.synced and header.boot != boot_id()
