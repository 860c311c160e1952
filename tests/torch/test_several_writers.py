"""Several processes write one checkpoint together: each a share of what all of them hold alike."""

from __future__ import annotations

import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

import colabkit
from colabkit.checkpoint import RunFolder, company, parts
from colabkit.frameworks.torch import world
from tests.torch.cases import network
from tests.torch.ranks import came_through, failure, killed, together
from tests.torch.several_ways import KillRanks, result, same_weights, train, undisturbed_in

SOAK = bool(os.environ.get("COLABKIT_SOAK"))


@pytest.fixture(scope="module", autouse=True)
def _small_tensors():
    """Lets tensors of a few bytes be worth sharing, in the processes that are forked from here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(parts, "LEAST_BYTES", 1)
        patch.setattr(company, "WORTH_BYTES", 1)
        yield


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int, str], dict[str, Any]]:
    """Gives what so many processes end with that nobody disturbs."""
    ways = {count: undisturbed_in(count, tmp_path_factory) for count in (2, 3)}
    return lambda count, way: ways[count](way)


def writers(folder: Path) -> set[str]:
    """Returns who has written files of the newest checkpoint, "" for rank 0."""
    store = RunFolder(folder).store
    names = store.manifest(store.names()[0]).shards
    tails = (name.rpartition("-a")[0].rpartition("-r0") for name in names)
    return {tail if dash else "" for _, dash, tail in tails}


@pytest.mark.parametrize(("count", "doomed"), [(2, (1,)), (3, (0,)), (3, (0, 1, 2))])
def test_who_is_killed_goes_on_bit_for_bit_from_what_all_have_written(
    count, doomed, undisturbed, tmp_path
):
    options: dict[str, Any] = {"callbacks": [KillRanks(5, doomed)], "save_every": 1}
    statuses = together(lambda _: train(tmp_path, **options), count, tmp_path)
    assert [rank for rank in range(count) if killed(statuses[rank])] == list(doomed)
    for rank in {*range(count)} - {*doomed}:
        assert "ProcessLostError" in failure(tmp_path, rank)
    assert 0 < colabkit.checkpoints(tmp_path / "run", verify=True)[0].step < 12
    came_through(lambda _: train(tmp_path, save_every=1), count, tmp_path)
    assert writers(tmp_path / "run") == {"", *(f"{rank:03d}" for rank in range(1, count))}
    same_weights(tmp_path, count)
    assert result(tmp_path) == undisturbed(count, "dropout_and_arrays")
