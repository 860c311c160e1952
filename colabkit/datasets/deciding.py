"""What to do about a dataset, decided before anything is done."""

from __future__ import annotations

import dataclasses
import enum

from colabkit.datasets.cache.manifest import (
    DatasetManifest,
    FolderState,
    Header,
    boot_id,
    damaged_members,
    is_copy_of,
    sizes_state,
)
from colabkit.datasets.cache.publishing import Published, published_in
from colabkit.datasets.cache.slots import Slot
from colabkit.datasets.origins.base import Contents
from colabkit.datasets.origins.resolver import DatasetRequest, OriginResolver
from colabkit.datasets.reading.progress import Phase, Watch


class CacheAction(enum.Enum):
    """What to do next."""

    USE = "take it as it is"
    INSPECT = "compare every file's size with the manifest, then ask again"
    IDENTIFY = "read the source's table of contents, then ask again"
    RESTAMP = "take it, and note the source's new stamp"
    FILL = "unpack it"
    REPLACE = "unpack it beside, then swap"
    REFUSE = "leave it alone and say so"


@dataclasses.dataclass(frozen=True, slots=True)
class CacheQuery:
    """What was asked for.

    Attributes:
        source: The source's absolute name.
        stamp: Its size and time of change as one word, "" when it tells none, None when it
            cannot be reached.
        digest: Hash of its table of contents, None while that was not read.
        selection: The members asked for, None for all.
        checksum: What the archive's SHA-256 has to be, or its MD5 after "md5:".
        refresh: Whether to unpack in any case.
    """

    source: str
    stamp: str | None
    digest: str | None = None
    selection: tuple[str, ...] | None = None
    checksum: str | None = None
    refresh: bool = False


def cache_action(known: Header | None, folder: FolderState, query: CacheQuery) -> CacheAction:
    """Returns what to do next about a dataset; looks at nothing itself.

    Example:
        >>> query = CacheQuery(source="/data/cats.zip", stamp="12:34")
        >>> cache_action(None, FolderState.ABSENT, query).name
        'FILL'
        >>> cache_action(None, FolderState.FOREIGN, query).name
        'REFUSE'
    """
    if folder is FolderState.FOREIGN:
        return CacheAction.REFUSE
    if known is None or folder is FolderState.ABSENT:
        return CacheAction.FILL
    if query.refresh:
        return CacheAction.REPLACE
    if known.source != query.source:
        return CacheAction.REFUSE
    if folder is FolderState.TOUCHED:
        return CacheAction.INSPECT
    if folder is FolderState.DAMAGED or known.selection != query.selection:
        return CacheAction.REPLACE
    return _by_source(known, query)


def _by_source(known: Header, query: CacheQuery) -> CacheAction:
    if query.checksum is not None:
        # The content is named by its hash: what the source looks like now says nothing more.
        return CacheAction.USE if known.sha256 == query.checksum else CacheAction.REPLACE
    if query.stamp is None or (query.stamp and query.stamp == known.stamp):
        return CacheAction.USE
    if query.digest is None:
        return CacheAction.IDENTIFY
    return CacheAction.RESTAMP if query.digest == known.digest else CacheAction.REPLACE


def replace_reason(known: Header, folder: FolderState, query: CacheQuery) -> str:
    """Returns why a dataset is made anew, in words.

    Example:
        >>> known = Header("/cats.zip", "1", "d", None, None, 3, 9, 1, "", True, 0.0)
        >>> replace_reason(known, FolderState.WHOLE, CacheQuery("/cats.zip", "2", digest="e"))
        'its source has changed'
    """
    if query.refresh:
        return "refresh is asked for"
    if folder is FolderState.DAMAGED:
        return "files of it are missing or changed"
    if known.selection != query.selection:
        return "other members are asked for"
    if query.checksum is not None and known.sha256 is None:
        return "its SHA-256 was not checked before"
    if query.checksum is not None:
        return "another SHA-256 is asked for"
    return "its source has changed"


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


def decide(request: DatasetRequest, slot: Slot, resolver: OriginResolver, watch: Watch) -> Verdict:
    """Returns what to do about a dataset; changes nothing."""
    published = published_in(slot)
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
    query = CacheQuery(
        source=request.found.name,
        stamp=None,
        selection=request.selection,
        checksum=request.checksum,
        refresh=request.refresh,
    )
    if known is None or request.checksum is None or known.sha256 != request.checksum:
        query = dataclasses.replace(query, stamp=resolver.stamp())
    while True:
        action = cache_action(known, state, query)
        if action is CacheAction.INSPECT and manifest is not None:
            state, renew = sizes_state(slot.folder, manifest.members()), True
        elif action is CacheAction.IDENTIFY and manifest is not None:
            digest = _digest_beside(manifest, resolver.contents())
            query = dataclasses.replace(query, digest=digest)
        else:
            break
    if action is CacheAction.RESTAMP:
        action, renew = CacheAction.USE, True
    if action is CacheAction.REPLACE and known is not None:
        reason = replace_reason(known, state, query)
        return Verdict(action, published, renew=renew, reason=reason)
    return Verdict(action, published, renew=renew)


def _digest_beside(manifest: DatasetManifest, contents: Contents) -> str:
    """Returns a source's digest, or the one of what was published where it holds the same."""
    known = manifest.header.digest
    if known in {contents.digest, contents.digest_as_folder}:
        return known
    is_same = contents.are_in is not None and contents.are_in(manifest)
    return known if is_same else contents.digest


def _needs_reading(request: DatasetRequest, published: Published) -> bool:
    if request.read_all:
        return True
    header = published.manifest.header if published.manifest is not None else None
    # Published without waiting for the disk, and the machine went down since.
    return header is not None and not header.synced and header.boot != boot_id()
