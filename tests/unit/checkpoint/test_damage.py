"""Damaged and hostile checkpoints are refused by name, and the one before is used."""

from __future__ import annotations

import json
import pickle
import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from colabkit.checkpoint import CheckpointStore, Manifest, Name, RunFolder
from colabkit.checkpoint.safetensors_file import read_shard
from colabkit.errors import CheckpointCorruptError
from colabkit.storage import LocalVolume, hash_of
from tests.unit.checkpoint.numpy_backend import NumpyBackend
from tests.unit.checkpoint.saving import Machine, loaded_step

PREFIX = len(b'{"xxh3_128":"') + 32 + len(b'","manifest":')


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    machine = Machine(tmp_path / "run")
    machine.open()
    machine.save(1)
    machine.save(2)
    machine.close()
    return tmp_path / "run"


def newest_files(folder: Path) -> list[Path]:
    """The newest manifest, and the files that only it names."""
    store = CheckpointStore(LocalVolume(folder))
    newest, before = store.names()[:2]
    shards = store.manifest(newest).shards.keys() - store.manifest(before).shards.keys()
    manifest = folder / "checkpoints" / f"{newest}.json"
    return [manifest, *(folder / "shards" / shard for shard in sorted(shards))]


def test_every_flipped_byte_is_found_and_the_checkpoint_before_is_used(folder):
    for path in newest_files(folder):
        content = bytearray(path.read_bytes())
        places = range(len(content))
        if len(content) > 400:
            places = sorted(random.Random(0).sample(places, 400))
        for place in places:
            content[place] ^= 1 << (place % 8)
            path.write_bytes(content)
            assert loaded_step(folder) == 1, (path.name, place)
            content[place] ^= 1 << (place % 8)
        path.write_bytes(content)
    assert loaded_step(folder) == 2


@pytest.mark.parametrize("keep", [0, 1, 100])
def test_a_torn_file_is_found_and_named(folder, keep):
    for path in newest_files(folder):
        content = path.read_bytes()
        path.write_bytes(content[: min(keep, len(content) - 1)])
        loaded = RunFolder(folder).newest_valid(NumpyBackend())
        assert loaded is not None
        assert loaded.facts.step == 1
        assert len(loaded.skipped) == 1
        path.write_bytes(content)


def test_a_missing_shard_is_found(folder):
    newest_files(folder)[1].unlink()
    assert loaded_step(folder) == 1


def test_two_saves_of_one_step_count_as_one_for_they_may_lie_in_one_file(folder):
    machine = Machine(folder)
    machine.open()
    machine.save(3)
    machine.save(3)
    machine.close()
    newest, before = machine.store.names()
    steps = [machine.store.manifest(name).facts.step for name in (newest, before)]
    assert steps == [3, 2]
    for path in newest_files(folder)[1:]:
        path.write_bytes(path.read_bytes()[:-1])
    assert loaded_step(folder) == 2


def test_sessions_that_only_save_again_where_they_began_leave_the_step_before(folder):
    for _ in range(3):
        machine = Machine(folder)
        machine.open()
        machine.save(2)
        machine.close()
    facts = [machine.store.manifest(name).facts for name in machine.store.names()]
    assert [each.step for each in facts] == [2, 1]
    for path in newest_files(folder)[1:]:
        path.write_bytes(path.read_bytes()[:-1])
    assert loaded_step(folder) == 1


def test_what_a_session_found_is_kept_until_as_many_are_its_own(tmp_path):
    volume = LocalVolume(tmp_path)
    for steps in ((1, 2, 3, 4), (5,), (6, 7, 8)):
        machine = Machine(tmp_path, volume=volume)
        machine.store = CheckpointStore(volume, keep=4)
        machine.open()
        for step in steps:
            machine.save(step)
            kept = [machine.store.manifest(name).facts.step for name in machine.store.names()]
            assert kept == list(range(step, max(step - 4, 0), -1))
        machine.close()


def test_only_damaged_checkpoints_are_an_error_and_not_a_new_start(folder):
    for path in (folder / "checkpoints").iterdir():
        path.write_bytes(b"{}")
    with pytest.raises(CheckpointCorruptError, match="None of the 2 checkpoints"):
        RunFolder(folder).newest_valid(NumpyBackend())


# A hostile writer can make every hash right.


def rewritten(folder: Path, change: Any) -> None:
    path = newest_files(folder)[0]
    body = json.loads(path.read_bytes()[PREFIX:-1])
    change(body)
    text = json.dumps(body, separators=(",", ":")).encode()
    path.write_bytes(b'{"xxh3_128":"' + hash_of(text).encode() + b'","manifest":' + text + b"}")


def set_shard(name: str) -> Any:
    def change(body: dict[str, Any]) -> None:
        old = next(iter(body["shards"]))
        body["shards"] = {name if k == old else k: v for k, v in body["shards"].items()}
        for row in body["tensors"]:
            row[5] = name if row[5] == old else row[5]

    return change


def deep(body: dict[str, Any]) -> None:
    nested: Any = 0
    for _ in range(900):
        nested = [nested]
    body["skeletons"]["run"] = nested


HOSTILE = {
    "parent folder": set_shard("../../etc/passwd.safetensors"),
    "absolute path": set_shard("/etc/passwd"),
    "hidden parent": set_shard("..safetensors/../x.safetensors"),
    "no safetensors": set_shard("shard.pkl"),
    "huge tensor": lambda b: b["tensors"][0].__setitem__(3, [2**60]),
    "negative shape": lambda b: b["tensors"][0].__setitem__(3, [-1]),
    "shape of floats": lambda b: b["tensors"][0].__setitem__(3, [1.5]),
    "unknown dtype": lambda b: b["tensors"][0].__setitem__(2, "pickle"),
    "huge shard": lambda b: [s.__setitem__(0, 2**62) for s in b["shards"].values()],
    "negative size": lambda b: [s.__setitem__(0, -5) for s in b["shards"].values()],
    "tensor in no shard": lambda b: b["tensors"][0].__setitem__(5, "nowhere.safetensors"),
    "tensor twice": lambda b: b["tensors"].append(b["tensors"][0]),
    "tensors no list": lambda b: b.__setitem__("tensors", 7),
    "shards no mapping": lambda b: b.__setitem__("shards", [1]),
    "no facts": lambda b: b.pop("facts"),
    "facts of another kind": lambda b: b["facts"].__setitem__("step", "x"),
    "unknown fact": lambda b: b["facts"].__setitem__("code", "import os"),
    "other format": lambda b: b.__setitem__("format", 99),
    "other name": lambda b: b.__setitem__("name", "a01-g0001-00000009-00000000"),
    "unknown tag": lambda b: b["skeletons"].__setitem__("run", {"$": "pickle", "value": ""}),
    "missing leaf": lambda b: b["skeletons"].__setitem__("run", {"$": "tensor", "key": "no"}),
    "scalar of objects": lambda b: b["skeletons"].__setitem__(
        "run", {"$": "scalar", "dtype": "|O", "value": "00" * 8}
    ),
    "skeletons no mapping": lambda b: b.__setitem__("skeletons", "x"),
    "deep nesting": deep,
    "no time": lambda b: b.__setitem__("saved_at", 5),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_a_hostile_manifest_is_refused(name, folder):
    rewritten(folder, HOSTILE[name])
    store = CheckpointStore(LocalVolume(folder))
    with pytest.raises(CheckpointCorruptError):
        store.load(store.names()[0], NumpyBackend())
    assert loaded_step(folder) == 1


@pytest.mark.parametrize("shape", ["../shards/{}", "./{}", "a/../{}", "{}/../{}"])
def test_a_shards_name_that_leads_elsewhere_is_refused_also_where_a_whole_file_lies(shape, folder):
    shard = newest_files(folder)[1]
    name = shape.format(shard.name, shard.name)
    rewritten(folder, set_shard(name))
    manifest = newest_manifest(folder)
    with pytest.raises(CheckpointCorruptError):
        Manifest.from_bytes(np.frombuffer(manifest.read_bytes(), np.uint8), str(manifest))


def newest_manifest(folder: Path) -> Path:
    return folder / "checkpoints" / f"{CheckpointStore(LocalVolume(folder)).names()[0]}.json"


def with_shard(folder: Path, content: bytes) -> None:
    """Puts other content under the newest shard's name, with a manifest that vouches for it."""
    shard = newest_files(folder)[1]
    shard.write_bytes(content)

    def change(body: dict[str, Any]) -> None:
        body["shards"][shard.name] = [len(content), hash_of(content)]

    rewritten(folder, change)


def safetensors_of(table: Any, body: bytes) -> bytes:
    header = json.dumps(table).encode()
    return len(header).to_bytes(8, "little") + header + body


F32 = {"dtype": "F32", "shape": [1]}
SHARDS = {
    "pickle": pickle.dumps({"a": 1}),
    "empty": b"",
    "header longer than the file": (2**40).to_bytes(8, "little") + b"{}",
    "overlapping": safetensors_of(
        {"w": {**F32, "data_offsets": [0, 4]}, "v": {**F32, "data_offsets": [2, 6]}}, bytes(6)
    ),
    "reaching into the next": safetensors_of(
        {"w": {**F32, "data_offsets": [0, 8]}, "v": {**F32, "data_offsets": [8, 12]}}, bytes(12)
    ),
    "shorter than its form": safetensors_of(
        {"w": {**F32, "data_offsets": [0, 2]}, "v": {**F32, "data_offsets": [2, 6]}}, bytes(6)
    ),
    "gap": safetensors_of({"w": {**F32, "data_offsets": [4, 8]}}, bytes(8)),
    "outside": safetensors_of({"w": {**F32, "data_offsets": [0, 4]}}, b""),
    "backwards": safetensors_of({"w": {**F32, "data_offsets": [4, 0]}}, bytes(4)),
    "left over": safetensors_of({"w": {**F32, "data_offsets": [0, 4]}}, bytes(9)),
    "no table": safetensors_of([1, 2], b""),
    "doubled": b"\x40" + bytes(7) + b'{"w":{"dtype":"F32"},"w":{}}'.ljust(64),
    "not text": (4).to_bytes(8, "little") + b"\xff\xfe\xfd\xfc",
}


@pytest.mark.parametrize("name", SHARDS)
def test_a_hostile_shard_is_refused(name, folder):
    content = SHARDS[name]
    with pytest.raises(CheckpointCorruptError):
        read_shard(np.frombuffer(content, np.uint8), name)
    with_shard(folder, content)
    assert loaded_step(folder) == 1


def test_a_shard_that_is_a_link_to_outside_is_refused(folder, tmp_path):
    shard = newest_files(folder)[1]
    outside = tmp_path / "outside"
    shard.rename(outside)
    shard.symlink_to(outside)
    assert loaded_step(folder) == 1


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=6,
)


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_a_mutated_manifest_is_refused_or_the_same(folder, data):
    path = newest_files(folder)[0]
    original = path.read_bytes()
    body = json.loads(original[PREFIX:-1])
    key = data.draw(st.sampled_from(sorted(body)))
    body[key] = data.draw(JSON)
    text = json.dumps(body).encode()
    raw = b'{"xxh3_128":"' + hash_of(text).encode() + b'","manifest":' + text + b"}"
    store = CheckpointStore(LocalVolume(folder))
    name = store.names()[0]
    try:
        path.write_bytes(raw)
        loaded = store.load(name, NumpyBackend())
        assert loaded.info.name == str(name)
    except CheckpointCorruptError:
        pass
    finally:
        path.write_bytes(original)


@settings(max_examples=150)
@given(st.binary(max_size=300))
def test_any_bytes_are_a_manifest_or_refused(content):
    with pytest.raises(CheckpointCorruptError):
        Manifest.from_bytes(np.frombuffer(content, np.uint8), "some.json")


def test_a_name_is_parsed_strictly():
    assert Name.parse("a01-g0001-00000001-0123abcd") == Name(1, 1, 1, "0123abcd")
    assert Name.parse("../a01-g0001-00000001-0123abcd") is None
