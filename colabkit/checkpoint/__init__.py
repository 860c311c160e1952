"""Checkpoints: exact, verified on read, incremental, written while training goes on."""

from colabkit.checkpoint.columns import numbers_in
from colabkit.checkpoint.company import Company, PieceCompany
from colabkit.checkpoint.info import CheckpointInfo, LoadedCheckpoint
from colabkit.checkpoint.lease import Lease
from colabkit.checkpoint.listing import CheckpointList
from colabkit.checkpoint.manifest import NOTED, Manifest, Name, SaveFacts
from colabkit.checkpoint.named_classes import (
    at_place,
    can_be_found,
    fields_of,
    missing,
    place_of,
)
from colabkit.checkpoint.own_containers import attributes_beside, plain_kind_of, taken_over
from colabkit.checkpoint.part_saver import PartSaver, decline, store_of_parts
from colabkit.checkpoint.parts import IN_PIECES, PartCall, PartPlace, Posts
from colabkit.checkpoint.pieces import Box, Cut, Cutter, Piece
from colabkit.checkpoint.policy import SavePolicy, SaveTimings, duration_s
from colabkit.checkpoint.pytree import axes_in_memory, encode, is_known_factory
from colabkit.checkpoint.run_folder import FindWriters, RunFolder
from colabkit.checkpoint.saver import Saver
from colabkit.checkpoint.skeletons import decode
from colabkit.checkpoint.small_tensors import Forms, Pack
from colabkit.checkpoint.snapshot import AT_ONCE_BYTES, Section, require_distinct
from colabkit.checkpoint.sparse import deep_copy, members_of
from colabkit.checkpoint.staging_area import upload_stranded
from colabkit.checkpoint.status import FoundSave, SaveState, SaveStatus
from colabkit.checkpoint.store import CheckpointStore
from colabkit.checkpoint.tensors import TensorBackend, TensorSpec
from colabkit.checkpoint.uploader import Uploader, UploadStatus

__all__ = [
    "AT_ONCE_BYTES",
    "IN_PIECES",
    "NOTED",
    "Box",
    "CheckpointInfo",
    "CheckpointList",
    "CheckpointStore",
    "Company",
    "Cut",
    "Cutter",
    "FindWriters",
    "Forms",
    "FoundSave",
    "Lease",
    "LoadedCheckpoint",
    "Manifest",
    "Name",
    "Pack",
    "PartCall",
    "PartPlace",
    "PartSaver",
    "Piece",
    "PieceCompany",
    "Posts",
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
    "UploadStatus",
    "Uploader",
    "at_place",
    "attributes_beside",
    "axes_in_memory",
    "can_be_found",
    "decline",
    "decode",
    "deep_copy",
    "duration_s",
    "encode",
    "fields_of",
    "is_known_factory",
    "members_of",
    "missing",
    "numbers_in",
    "place_of",
    "plain_kind_of",
    "require_distinct",
    "store_of_parts",
    "taken_over",
    "upload_stranded",
]
