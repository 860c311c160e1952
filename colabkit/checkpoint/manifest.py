"""The manifest: one JSON file that alone makes a checkpoint exist."""

from __future__ import annotations

import dataclasses
import datetime
import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from colabkit.checkpoint.tensors import ITEM_BYTES, TensorSpec, expected_nbytes
from colabkit.errors import CheckpointCorruptError
from colabkit.storage import Bytes, hash_of

FORMAT = 1
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
        is_finite: Whether all trained weights are numbers, neither NaN nor infinite.
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
    """One tensor of a checkpoint and the file it lies in."""

    section: str
    key: str
    spec: TensorSpec
    hash: str
    shard: str

    def row(self) -> list[Any]:
        """Returns it as it stands in a manifest."""
        spec = self.spec
        return [self.section, self.key, spec.dtype, spec.shape, self.hash, self.shard]

    @classmethod
    def of_row(cls, row: Sequence[Any]) -> TensorEntry:
        """Returns what stands in a row, whose numbers and names are taken as they are."""
        section, key, dtype, shape, digest, shard = row
        spec = TensorSpec(dtype, tuple(shape), expected_nbytes(dtype, shape))
        return cls(str(section), str(key), spec, str(digest), shard)


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

    def to_bytes(self) -> Bytes:
        """Returns the file's content, its own hash in front."""
        noted = {"noted": self.noted} if self.noted else {}
        body = json.dumps(
            {
                "format": FORMAT,
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
    if raw["format"] != FORMAT:
        reason = f"format {raw['format']!r}, this colabkit reads {FORMAT}"
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
    if len({(e.section, e.key) for e in entries}) != len(entries):
        raise corrupt(path, "a tensor that stands twice")
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
    _, key, dtype, shape, _, shard = row
    if dtype not in ITEM_BYTES or any(type(n) is not int or n < 0 for n in shape):
        raise corrupt(path, f"an impossible form of {key!r}")
    entry = TensorEntry.of_row(row)
    if shard not in shards or entry.spec.nbytes > shards[shard].size:
        raise corrupt(path, f"{key!r} is larger than its file, or in none")
    return entry
