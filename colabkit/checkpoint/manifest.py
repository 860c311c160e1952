"""The manifest: one JSON file that alone makes a checkpoint exist."""

from __future__ import annotations

import collections
import dataclasses
import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from colabkit.checkpoint.pieces import Box, Cut, Cutter, fault_in
from colabkit.checkpoint.tensors import ITEM_BYTES, TensorSpec, expected_nbytes
from colabkit.errors import CheckpointCorruptError, StorageError
from colabkit.storage import Bytes, hash_of

# The first for what one process writes, the second for tensors in pieces.
FORMATS = (1, 2)
# Under this name a loaded checkpoint has the hashes of what is noted.
NOTED = "noted hashes"
SIZE_MAX = 256 << 20
_PREFIX = b'{"xxh3_128":"'
_MIDDLE = b'","manifest":'
_HASH_CHARS = 32
_NAME = re.compile(r"a(\d{2,})-g(\d{4,})-(\d{8,})-([0-9a-f]{8})")
_SHARD = re.compile(r"[A-Za-z0-9_.~ -]{1,120}\.safetensors")


@dataclasses.dataclass(frozen=True, slots=True, order=True)
class Name:
    """A checkpoint's name; the largest is the newest.

    Attributes:
        attempt: Grows with each new start beside an old run.
        generation: Grows with each session.
        sequence: Grows with each save.
        owner: Tells sessions apart that took the same generation.
    """

    attempt: int
    generation: int
    sequence: int
    owner: str

    def __str__(self) -> str:
        return f"a{self.attempt:02d}-g{self.generation:04d}-{self.sequence:08d}-{self.owner}"

    @classmethod
    def parse(cls, text: str) -> Name | None:
        """Returns the name, None for what is none."""
        found = _NAME.fullmatch(text)
        if found is None:
            return None
        attempt, generation, sequence, owner = found.groups()
        return cls(int(attempt), int(generation), int(sequence), owner)


@dataclasses.dataclass(frozen=True, slots=True)
class SaveFacts:
    """What a checkpoint is, besides its tensors.

    Attributes:
        step: Batches trained.
        epoch: Epochs done.
        batch: Batches done of the epoch under way.
        metrics: Values of the newest epoch.
        is_best: Whether that epoch was the best so far.
        keep_forever: Whether pruning leaves it alone.
        fingerprint: What must be the same for it to fit.
        is_finite: Whether no trained weight is NaN or infinite, and no moment of it is NaN.
        phase: What the phase of the run is called, "" where there is but one.
        stands_on: Names of the checkpoints that it goes on from: they stay as long as it does.
    """

    step: int
    epoch: int = 0
    batch: int = 0
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    is_best: bool = False
    keep_forever: bool = False
    fingerprint: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    is_finite: bool = True
    phase: str = ""
    stands_on: Sequence[str] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class TensorEntry:
    """One tensor of a checkpoint, or a piece of one, and the file it lies in.

    Attributes:
        box: Where the piece lies in its tensor; None where it is whole.
    """

    section: str
    key: str
    spec: TensorSpec
    hash: str
    shard: str
    box: Box | None = None

    @property
    def place(self) -> tuple[str, str]:
        """Its name in the whole state."""
        return self.section, self.key

    def is_wanted(self, cuts: Mapping[tuple[str, str], Cut]) -> bool:
        """Whether it holds any of what is wanted of its tensor: where nothing is said, all."""
        cut = cuts.get(self.place)
        return cut is None or self.box is None or cut.meets(self.box, self.spec.shape)

    def row(self) -> list[Any]:
        """Returns it as it stands in a manifest."""
        spec = self.spec
        box = [] if self.box is None else [[self.box.whole, self.box.offset]]
        return [self.section, self.key, spec.dtype, spec.shape, self.hash, self.shard, *box]

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> TensorEntry:
        """Returns what stands in a row, whose numbers and names are taken as they are."""
        section, key, dtype, shape, digest, shard, *more = row
        spec = TensorSpec(dtype, tuple(shape), expected_nbytes(dtype, shape))
        box = Box(*map(tuple, *more)) if more else None
        return cls(str(section), str(key), spec, str(digest), shard, box)


@dataclasses.dataclass(frozen=True, slots=True)
class ShardEntry:
    """One file of tensors."""

    size: int
    hash: str


@dataclasses.dataclass(frozen=True, slots=True)
class Manifest:
    """Everything of one checkpoint but the bytes of its tensors.

    Attributes:
        noted: By section, hashes of tensors that lie in no file and must be there again.
    """

    name: Name
    saved_at: datetime.datetime
    facts: SaveFacts
    skeletons: Mapping[str, Any]
    weights: tuple[str, ...]
    tensors: tuple[TensorEntry, ...]
    shards: Mapping[str, ShardEntry]
    noted: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)

    @property
    def is_in_pieces(self) -> bool:
        """Whether any of its tensors lies in pieces."""
        return any(each.box is not None for each in self.tensors)

    def in_pieces(self) -> dict[tuple[str, str], TensorSpec]:
        """Returns, by section and name, the forms of its tensors that lie in pieces."""
        rows = {e.place: (e.spec.dtype, e.box.whole) for e in self.tensors if e.box is not None}
        return {
            place: TensorSpec(dtype, whole, expected_nbytes(dtype, whole))
            for place, (dtype, whole) in rows.items()
        }

    def cuts(self, cutter: Cutter) -> dict[tuple[str, str], Cut]:
        """Returns what is wanted of tensors in pieces, by section and name."""
        found = ((place, cutter(*place, spec)) for place, spec in self.in_pieces().items())
        return {place: cut for place, cut in found if cut is not None}

    def hashes(self) -> dict[str, str]:
        """Returns, by "section.key", the hash of each tensor; of pieces, that of theirs."""
        found: dict[str, list[str]] = collections.defaultdict(list)
        for each in sorted(self.tensors, key=lambda e: e.box.offset if e.box else ()):
            found[f"{each.section}.{each.key}"].append(each.hash)
        return {
            name: hashes[0] if len(hashes) == 1 else hash_of("".join(hashes).encode())
            for name, hashes in found.items()
        }

    def to_bytes(self) -> Bytes:
        """Returns the file's content, its own hash in front."""
        noted = {"noted": self.noted} if self.noted else {}
        body = json.dumps(
            {
                "format": FORMATS[self.is_in_pieces],
                "name": str(self.name),
                "saved_at": self.saved_at.isoformat(),
                "facts": dataclasses.asdict(self.facts),
                "skeletons": self.skeletons,
                "weights": self.weights,
                "tensors": [each.row() for each in self.tensors],
                "shards": {name: [s.size, s.hash] for name, s in self.shards.items()},
                **noted,
            },
            separators=(",", ":"),
        ).encode()
        whole = _PREFIX + hash_of(body).encode() + _MIDDLE + body + b"}"
        return np.frombuffer(whole, np.uint8)

    @classmethod
    def from_bytes(cls, data: Bytes, path: str) -> Manifest:
        """Reads a manifest strictly.

        Raises:
            CheckpointCorruptError: A byte differs, or something in it is impossible.
        """
        try:
            return _parse(_body(data.tobytes(), path), path)
        except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
            if isinstance(error, CheckpointCorruptError):
                raise
            raise corrupt(path, f"an unknown form ({type(error).__name__})") from error


def fault_among(entries: Sequence[TensorEntry]) -> str:
    """Returns which tensor is there twice, or not as a whole; "" where each is as it should."""
    rows: dict[tuple[str, str], list[TensorEntry]] = collections.defaultdict(list)
    for each in entries:
        rows[each.section, each.key].append(each)
    for (section, key), found in rows.items():
        first = found[0]
        if first.box is None and len(found) == 1:
            continue
        forms = {(each.spec.dtype, each.box and each.box.whole) for each in found}
        if first.box is None or len(forms) > 1 or len({e.shard for e in found}) < len(found):
            return f"a tensor that stands twice: {section}.{key}"
        pieces = [(e.box.offset, e.spec.shape, e.shard) for e in found if e.box is not None]
        if fault := fault_in(first.box.whole, pieces):
            return f"{section}.{key} is not whole: {fault}"
    return ""


def require_whole(entries: Sequence[TensorEntry], location: str) -> None:
    """Raises StorageError where a checkpoint of these would lack some of a tensor."""
    if fault := fault_among(entries):
        message = f"A checkpoint is not written: {fault}."
        raise StorageError(message, path=location, operation="write")


def corrupt(path: str, reason: str) -> CheckpointCorruptError:
    """Returns the error for a damaged checkpoint file."""
    return CheckpointCorruptError(f"{path} is damaged: {reason}.", path=path, reason=reason)


def _body(data: bytes, path: str) -> bytes:
    start = len(_PREFIX) + _HASH_CHARS + len(_MIDDLE)
    digest = data[len(_PREFIX) : len(_PREFIX) + _HASH_CHARS]
    frame = data[: len(_PREFIX)] + data[start - len(_MIDDLE) : start] + data[-1:]
    body = data[start:-1]
    if frame != _PREFIX + _MIDDLE + b"}" or digest != hash_of(body).encode():
        raise corrupt(path, "its bytes are not those that were written")
    return body


def _parse(body: bytes, path: str) -> Manifest:
    raw = json.loads(body)
    if raw["format"] not in FORMATS:
        reason = f"format {raw['format']!r}, this colabkit reads {FORMATS[0]} and {FORMATS[1]}"
        raise corrupt(path, reason)
    name = Name.parse(raw["name"])
    shards = {key: ShardEntry(*_size_and_hash(value)) for key, value in raw["shards"].items()}
    entries = tuple(_entry(row, shards, path) for row in raw["tensors"])
    facts = SaveFacts(**raw["facts"])
    for number in (facts.step, facts.epoch, facts.batch):
        if type(number) is not int or number < 0:
            raise corrupt(path, "an impossible step")
    if not all(isinstance(each, str) for each in (facts.phase, *facts.stands_on)):
        raise corrupt(path, "an impossible phase")
    if name is None or not all(_SHARD.fullmatch(key) for key in shards):
        raise corrupt(path, "a file name that leads elsewhere")
    if fault := fault_among(entries):
        raise corrupt(path, fault)
    if not isinstance(raw["skeletons"], dict) or not isinstance(facts.fingerprint, dict):
        raise corrupt(path, "no state")
    return Manifest(
        name=name,
        saved_at=datetime.datetime.fromisoformat(raw["saved_at"]),
        facts=facts,
        skeletons=raw["skeletons"],
        weights=tuple(str(section) for section in raw["weights"]),
        tensors=entries,
        shards=shards,
        noted={section: _noted(hashes) for section, hashes in raw.get("noted", {}).items()},
    )


def _size_and_hash(value: Any) -> tuple[int, str]:
    size, digest = value
    if type(size) is not int or size < 0 or type(digest) is not str:
        raise ValueError(value)
    return size, digest


def _noted(hashes: Any) -> dict[str, str]:
    if not all(type(digest) is str for digest in hashes.values()):
        raise ValueError(hashes)
    return dict(hashes)


def _entry(row: Any, shards: Mapping[str, ShardEntry], path: str) -> TensorEntry:
    _, key, dtype, shape, _, shard, *more = row
    numbers = [*shape, *(n for box in more for side in box for n in side)]
    if dtype not in ITEM_BYTES or any(type(n) is not int or n < 0 for n in numbers):
        raise corrupt(path, f"an impossible form of {key!r}")
    entry = TensorEntry.of_row(row)
    if shard not in shards or entry.spec.nbytes > shards[shard].size:
        raise corrupt(path, f"{key!r} is larger than its file, or in none")
    return entry
