"""What to do about a dataset is decided from what is known, before anything is done."""

from __future__ import annotations

import dataclasses

import pytest

from colabkit.datasets.cache.manifest import (
    DatasetManifest,
    FolderState,
    Header,
    Member,
    decode,
    encode,
    pack_members,
)
from colabkit.datasets.deciding import CacheAction, CacheQuery, cache_action

KNOWN = Header(
    source="/d/cats.zip",
    stamp="1",
    digest="d",
    selection=None,
    sha256=None,
    n_files=2,
    nbytes=9,
    inode=7,
    boot="b",
    synced=False,
    published_s=1.0,
)
SAME = CacheQuery(source="/d/cats.zip", stamp="1")


def action(known: Header | None, state: FolderState, **changes: object) -> CacheAction:
    return cache_action(known, state, dataclasses.replace(SAME, **changes))


@pytest.mark.parametrize(
    ("state", "changes", "expected"),
    [
        (FolderState.WHOLE, {}, CacheAction.USE),
        (FolderState.WHOLE, {"stamp": None}, CacheAction.USE),
        (FolderState.WHOLE, {"stamp": "2"}, CacheAction.IDENTIFY),
        (FolderState.WHOLE, {"stamp": ""}, CacheAction.IDENTIFY),
        (FolderState.WHOLE, {"stamp": "2", "digest": "d"}, CacheAction.RESTAMP),
        (FolderState.WHOLE, {"stamp": "2", "digest": "e"}, CacheAction.REPLACE),
        (FolderState.WHOLE, {"checksum": "f"}, CacheAction.REPLACE),
        (FolderState.WHOLE, {"selection": ("a",)}, CacheAction.REPLACE),
        (FolderState.WHOLE, {"refresh": True}, CacheAction.REPLACE),
        (FolderState.WHOLE, {"source": "/d/dogs.zip"}, CacheAction.REFUSE),
        (FolderState.TOUCHED, {}, CacheAction.INSPECT),
        (FolderState.DAMAGED, {}, CacheAction.REPLACE),
        (FolderState.ABSENT, {}, CacheAction.FILL),
        (FolderState.FOREIGN, {"refresh": True}, CacheAction.REFUSE),
    ],
)
def test_each_case_has_its_action(state, changes, expected):
    assert action(KNOWN, state, **changes) is expected


def test_nothing_known_is_made_unless_something_lies_there():
    assert action(None, FolderState.ABSENT) is CacheAction.FILL
    assert action(None, FolderState.FOREIGN) is CacheAction.REFUSE


def manifest() -> DatasetManifest:
    members = [Member("a/猫.txt", 3, 5), Member("b", 6, None, 9)]
    return DatasetManifest(KNOWN, {"": 1, "a": 2}, pack_members(members))


def test_a_manifest_comes_back_as_it_was():
    back = decode(encode(manifest()))
    assert back == manifest()
    assert back is not None
    assert back.members() == manifest().members()


def test_a_manifest_without_files_comes_back():
    empty = DatasetManifest(KNOWN, {"": 1}, pack_members([]))
    assert decode(encode(empty)) == empty


def test_no_damaged_manifest_is_believed():
    data = encode(manifest())
    assert all(decode(data[:end]) is None for end in range(len(data)))
    for at in range(len(data)):
        damaged = bytearray(data)
        damaged[at] ^= 1
        assert decode(bytes(damaged)) is None
