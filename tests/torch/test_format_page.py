"""docs/format.md is enough to read a run folder: a reader made from it alone gets the same bits."""

from __future__ import annotations

import collections
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file

from colabkit.checkpoint import CheckpointStore
from colabkit.frameworks.torch import TorchBackend
from colabkit.storage import LocalVolume
from tests import format_reader
from tests.torch.frozen import FOLDER, KILLED_AT, TRAININGS, Memory, untouched
from tests.torch.test_many_small import memory, saved

# What the reader leaves as bits.
BITS = {
    torch.bfloat16: torch.uint16,
    torch.float8_e4m3fn: torch.uint8,
    torch.float8_e5m2: torch.uint8,
}


def plain(value: Any) -> Any:
    """Returns what the reader makes of a state."""
    if isinstance(value, torch.Tensor):
        own = value.detach().resolve_conj().contiguous()
        return own.view(BITS.get(own.dtype, own.dtype)).numpy()
    if isinstance(value, dict):
        return {key: plain(each) for key, each in value.items()}
    if isinstance(value, collections.deque):
        return collections.deque(map(plain, value), value.maxlen)
    return type(value)(map(plain, value)) if type(value) in {list, tuple} else value


def assert_same(one: Any, other: Any) -> None:
    if isinstance(one, np.ndarray | np.generic):
        assert (one.dtype, one.shape, one.tobytes()) == (other.dtype, other.shape, other.tobytes())
    elif isinstance(one, dict):
        assert list(one) == list(other)
        assert_same(list(one.values()), list(other.values()))
    elif isinstance(one, list | tuple | collections.deque):
        assert (type(one), len(one)) == (type(other), len(other))
        for each, its in zip(one, other, strict=True):
            assert_same(each, its)
    else:
        assert repr(one) == repr(other)


def by_colabkit(run: Path, name: str) -> dict[str, Any]:
    loaded = CheckpointStore(LocalVolume(run)).load(name, TorchBackend(torch.device("cpu")))
    return dict(loaded.sections)


@pytest.mark.parametrize("training", TRAININGS)
def test_the_first_formats_folders_are_read_by_the_page_alone(training):
    run = FOLDER / training
    found = format_reader.names(run)
    assert len(found) > 1
    for name in found:
        assert_same(format_reader.read(run, name), plain(by_colabkit(run, name)))
    newest = format_reader.read(run, found[0])
    assert newest["run"]["position"]["step"] == KILLED_AT
    for path in (run / "shards").glob(f"model-*{found[0]}*"):
        for key, tensor in load_file(path).items():
            assert_same(newest["model"][key], tensor)


def test_the_page_tells_of_every_kind_of_value():
    run = FOLDER / "loop"
    read = format_reader.read(run, format_reader.names(run)[0])["objects"]["others"]["memory"]
    assert_same(read, plain({**Memory().state_dict(), "count": read["count"]}))


def test_todays_folders_are_read_by_the_page_alone(tmp_path):
    TRAININGS["loop"](tmp_path, untouched)
    found = format_reader.names(tmp_path)
    assert found
    for name in found:
        assert_same(format_reader.read(tmp_path, name), plain(by_colabkit(tmp_path, name)))


def test_the_page_tells_of_many_small_tensors_too(tmp_path):
    state = memory()
    saved(tmp_path, [state])
    (name,) = format_reader.names(tmp_path)
    assert '"$":"packed"' in (tmp_path / f"checkpoints/{name}.json").read_text()
    assert_same(format_reader.read(tmp_path, name)["objects"]["kept"], plain(state))


def flipped(path: Path) -> None:
    raw = bytearray(path.read_bytes())
    raw[len(raw) // 2] ^= 1
    path.write_bytes(raw)


def shortened(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


@pytest.mark.parametrize("damage", [flipped, shortened, Path.unlink])
@pytest.mark.parametrize("what", ["checkpoints/{0}.json", "shards/objects-{0}.safetensors"])
def test_what_is_damaged_is_whole_for_neither(damage: Callable[[Path], None], what, tmp_path):
    run = Path(shutil.copytree(FOLDER / "fit", tmp_path / "fit"))
    name = format_reader.names(run)[0]
    damage(run / what.format(name))
    with pytest.raises((AssertionError, FileNotFoundError)):
        format_reader.read(run, name)
    assert CheckpointStore(LocalVolume(run)).verify(name)
