"""Checkpoints: exact, verified on read, incremental, written while training goes on."""

from colabkit.checkpoint.carrier import Carrier, CarryStatus
from colabkit.checkpoint.folder import RunFolder
from colabkit.checkpoint.info import CheckpointInfo, LoadedCheckpoint
from colabkit.checkpoint.lease import Lease
from colabkit.checkpoint.listing import CheckpointList
from colabkit.checkpoint.manifest import NOTED, Manifest, Name, SaveFacts
from colabkit.checkpoint.policy import SavePolicy, SaveTimings, duration_s
from colabkit.checkpoint.saver import Saver
from colabkit.checkpoint.snapshot import Section, require_distinct
from colabkit.checkpoint.spool import carry_stranded
from colabkit.checkpoint.status import SaveState, SaveStatus
from colabkit.checkpoint.store import CheckpointStore
from colabkit.checkpoint.tensors import TensorBackend, TensorSpec
from colabkit.checkpoint.tree import (
    can_be_found,
    decode,
    encode,
    fields_of,
    is_known_factory,
)

__all__ = [
    "NOTED",
    "Carrier",
    "CarryStatus",
    "CheckpointInfo",
    "CheckpointList",
    "CheckpointStore",
    "Lease",
    "LoadedCheckpoint",
    "Manifest",
    "Name",
    "RunFolder",
    "SaveFacts",
    "SavePolicy",
    "SaveState",
    "SaveStatus",
    "SaveTimings",
    "Saver",
    "Section",
    "TensorBackend",
    "TensorSpec",
    "can_be_found",
    "carry_stranded",
    "decode",
    "duration_s",
    "encode",
    "fields_of",
    "is_known_factory",
    "require_distinct",
]
