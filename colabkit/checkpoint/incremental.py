"""Which tensors a save writes, and which it finds in the files of an earlier checkpoint."""

from __future__ import annotations

import collections
import dataclasses
import hashlib
import re
from collections.abc import Sequence

from colabkit.checkpoint.manifest import Manifest, TensorEntry
from colabkit.checkpoint.snapshot import SnapshotTensor

_OLD_SHARDS_MAX = 8
_STEADY = "-steady"
_OURS = re.compile(r"-(steady|r\d{4,})$")
_PLAIN = re.compile(r"[A-Za-z0-9_. -]{1,64}")


@dataclasses.dataclass(frozen=True, slots=True)
class ShardPlan:
    """What to write, and what to refer to.

    Attributes:
        references: Entries of the earlier checkpoint that hold still.
        files: Places in the snapshot of the tensors each new file holds, by its label.
    """

    references: tuple[TensorEntry, ...]
    files: dict[str, list[int]]


def plan_shards(current: Sequence[SnapshotTensor], previous: Manifest | None) -> ShardPlan:
    """Decides without touching anything.

    An old file is referred to only while at least half of its bytes are in use, and at most
    eight old files are; tensors that did not change but must be written again go into a
    file apart from those that do change, so that they stay put from then on.
    """
    known = {(e.place, e.box): e for e in previous.tensors} if previous else {}
    same = [_same(tensor, known.get((tensor.place, tensor.box))) for tensor in current]
    kept = _worth_keeping([entry for entry in same if entry is not None], previous)
    references = []
    files: dict[str, list[int]] = collections.defaultdict(list)
    for place, (tensor, entry) in enumerate(zip(current, same, strict=True)):
        if entry is not None and entry.shard in kept:
            references.append(entry)
        else:
            steady = tensor.is_steady if previous is None else entry is not None
            label = _label(tensor.section)
            files[f"{label}{_STEADY}" if steady else label].append(place)
    return ShardPlan(tuple(references), dict(files))


def _label(section: str) -> str:
    """Returns what a section's files are called: a name of the user's may be no file's name.

    One that ends as the files of what does not change do, or as those of one of several processes,
    would share a file with another section.
    """
    if _PLAIN.fullmatch(section) and not _OURS.search(section):
        return section
    digest = hashlib.sha256(section.encode()).hexdigest()[:8]
    return f"{re.sub(r'[^A-Za-z0-9_]', '_', section)[:48]}~{digest}"


def _same(tensor: SnapshotTensor, entry: TensorEntry | None) -> TensorEntry | None:
    if entry is None or entry.hash != tensor.hash or not tensor.spec.nbytes:
        return None
    same_form = (entry.spec.dtype, entry.spec.shape) == (tensor.spec.dtype, tensor.spec.shape)
    return entry if same_form else None


def _worth_keeping(entries: Sequence[TensorEntry], previous: Manifest | None) -> set[str]:
    live: dict[str, int] = collections.defaultdict(int)
    for entry in entries:
        live[entry.shard] += entry.spec.nbytes
    total: dict[str, int] = collections.defaultdict(int)
    for entry in previous.tensors if previous else ():
        total[entry.shard] += entry.spec.nbytes
    # The header's few bytes count for the file: a file of tiny tensors is not worth keeping.
    sizes = {name: previous.shards[name].size for name in live} if previous else {}
    worth = [name for name in live if 2 * live[name] >= max(total[name], sizes[name])]
    return set(sorted(worth, key=lambda name: -live[name])[:_OLD_SHARDS_MAX])
