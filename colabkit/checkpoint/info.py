"""What a checkpoint looks like: in a listing, in memory, and on its way to the disk."""

from __future__ import annotations

import dataclasses
import datetime
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colabkit.checkpoint.manifest import SaveFacts
from colabkit.checkpoint.snapshot import SnapshotTensor

_LONG_AGO = datetime.datetime.fromtimestamp(0, datetime.UTC)


@dataclasses.dataclass(frozen=True, slots=True)
class CheckpointInfo:
    """One checkpoint in a run folder.

    Attributes:
        name: Its name; the largest is the newest.
        step: Batches trained.
        epoch: Epochs done.
        batch: Batches done of the epoch under way.
        saved_at: When, UTC.
        nbytes: Bytes of its tensors, those shared with other checkpoints included.
        metrics: Values of the newest epoch.
        is_best: Whether that epoch was the best until then; the newest such is "best".
        weights_files: The files of its weights; each opens with
            ``safetensors.torch.load_file`` under the model's own parameter names; URLs where
            the run folder is one. Where several processes wrote pieces, each file holds those of
            one: ``colabkit.load`` puts them together.
        is_finite: Whether no trained weight is NaN or infinite, and no moment of it is NaN.
        phase: What the phase of the run is called, "" where there is but one.
        problem: Why it cannot be used, "" when nothing is known against it.
        hashes: A hash by tensor, "section.key", of frozen weights that are not written too.
    """

    name: str
    step: int = 0
    epoch: int = 0
    batch: int = 0
    saved_at: datetime.datetime = _LONG_AGO
    nbytes: int = 0
    metrics: Mapping[str, float] = dataclasses.field(default_factory=dict)
    is_best: bool = False
    weights_files: tuple[Path | str, ...] = ()
    is_finite: bool = True
    phase: str = ""
    problem: str = ""
    hashes: Mapping[str, str] = dataclasses.field(default_factory=dict, repr=False)


@dataclasses.dataclass(frozen=True, slots=True)
class LoadedCheckpoint:
    """A checkpoint in memory, every byte of it verified.

    Attributes:
        sections: The states by name; under ``NOTED``, hashes of tensors that lie in no file.
        skipped: Newer checkpoints that were damaged, as (name, reason).
        diverged: Steps of newer ones whose weights are NaN or infinite.
    """

    info: CheckpointInfo
    facts: SaveFacts
    sections: Mapping[str, Any]
    skipped: tuple[tuple[str, str], ...] = ()
    diverged: tuple[int, ...] = ()

    @property
    def fingerprint(self) -> Mapping[str, Any]:
        """What must be the same for it to fit."""
        return self.facts.fingerprint


@dataclasses.dataclass(frozen=True, slots=True)
class Draft:
    """A snapshot ready to be committed.

    Attributes:
        tensors: Each tensor with its copy and its hash.
        skeletons: The rest of each section.
        weights: Names of the sections that are a model's weights.
        noted: By section, hashes of tensors that are not written.
    """

    facts: SaveFacts
    tensors: Sequence[SnapshotTensor]
    skeletons: Mapping[str, Any]
    weights: tuple[str, ...]
    noted: Mapping[str, Mapping[str, str]] = dataclasses.field(default_factory=dict)
