"""Several processes write their pieces of one checkpoint each, and any number reads them."""

from __future__ import annotations

import os
import random
import re
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh

import colabkit
from colabkit.checkpoint import Piece, RunFolder
from colabkit.frameworks.torch import world
from colabkit.frameworks.torch.pieces import left
from colabkit.runs import several_managers
from colabkit.storage import LocalVolume
from tests import abilities
from tests.torch.cases import arrays, network
from tests.torch.ranks import came_through, failure, killed, together
from tests.torch.several_pieces import (
    KillTogether,
    fully_shard,
    in_pieces,
    sgd,
    train_in_pieces,
    undisturbed_in_pieces,
)
from tests.torch.several_ways import QUIET, WAYS, KillRanks, result, same_weights, train
from tests.torch.test_several_large import NAMED, Blow, flip_a_byte, require_whole
from tests.torch.test_several_pieces import kept
from tests.torch.test_several_writers import PART, NoRoom

pytestmark = pytest.mark.needs(abilities.PIECES)
# Each step is saved, and rank 0 waits for it.
SAVED: dict[str, Any] = {"callbacks": [KillRanks(0, ())], "save_every": 1}


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], dict[str, Any]]:
    """Gives what processes end with that nobody disturbs, by the way of training and number."""
    return undisturbed_in_pieces(tmp_path_factory)


def writers(run: Path) -> set[int]:
    """Returns the ranks of those that have written files of the newest checkpoint."""
    store = RunFolder(run).store
    ranks = (PART.search(name) for name in store.manifest(store.names()[0]).shards)
    return {int(found[1]) if found else 0 for found in ranks}


def whole_rows(run: Path) -> set[str]:
    """Returns the weights of the newest checkpoint that lie in one row, of one process."""
    store = RunFolder(run).store
    rows = store.manifest(store.names()[0]).tensors
    return {each.key for each in rows if each.section == "model" and each.box is None}


def damage_a_piece(run: Path) -> None:
    """Flips a byte that process 1 alone reads, where as many go on as have written it."""
    store = RunFolder(run).store
    shards = store.manifest(store.names()[0]).shards
    found = (name for name in shards if name.startswith("model") and "-r0001-" in name)
    file = run / "shards" / next(found)
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)


@pytest.mark.soak
@pytest.mark.needs(abilities.SOAK)
@pytest.mark.parametrize(("count", "doomed"), [(3, (1,)), (2, (0,)), (3, (0, 1, 2)), (2, (1,))])
def test_who_is_killed_goes_on_bit_for_bit_from_pieces_that_each_wrote(
    count, doomed, undisturbed, tmp_path
):
    way = "groups_that_do_not_divide_and_batch_norm"
    options: dict[str, Any] = {"callbacks": [KillTogether(5, doomed)], "save_every": 1}
    statuses = together(lambda _: train_in_pieces(tmp_path, way, **options), count, tmp_path)
    assert [rank for rank in range(count) if killed(statuses[rank])] == list(doomed)
    for rank in {*range(count)} - {*doomed}:
        assert "ProcessLostError" in failure(tmp_path, rank)
    assert 0 < colabkit.checkpoints(tmp_path / "run", verify=True)[0].step < 8
    assert writers(tmp_path / "run") == {*range(count)}
    damage_a_piece(tmp_path / "run")
    came_through(lambda _: train_in_pieces(tmp_path, way), count, tmp_path)
    # What is held whole by all lies in rank 0's file: statistics of a BatchNorm.
    assert {"1.running_mean", "1.num_batches_tracked"} <= whole_rows(tmp_path / "run")
    same_weights(tmp_path, count)
    assert result(tmp_path) == undisturbed(way, count)
    assert (tmp_path / "verdict").read_text().startswith("Resume is exact")


@pytest.mark.parametrize("end", [6, 1000])
def test_once_the_disk_of_process_1_was_full_process_0_writes_all(end, undisturbed, tmp_path):
    way = "groups_that_do_not_divide_and_batch_norm"
    options: dict[str, Any] = {"callbacks": [NoRoom(1, 4, end)], "save_every": 1}
    came_through(lambda _: train_in_pieces(tmp_path, way, **options), 2, tmp_path)
    assert colabkit.checkpoints(tmp_path / "run", verify=True)[0].step == 12
    assert writers(tmp_path / "run") == {0}
    same_weights(tmp_path, 2)
    # Written whole, tensors have other hashes than in pieces.
    numbers = {**result(tmp_path), "hashes": {}}
    assert numbers == {**undisturbed(way, 2), "hashes": {}}
    loaded = WAYS[way]()["model"]
    colabkit.load(loaded, tmp_path / "run")
    there = torch.load(tmp_path / "weights-0", weights_only=True)
    assert all(torch.equal(there[key], value) for key, value in loaded.state_dict().items())


@pytest.mark.soak
@pytest.mark.needs(abilities.SOAK)
@pytest.mark.parametrize("round_number", range(30))
def test_who_is_killed_at_any_instant_goes_on_bit_for_bit(round_number, undisturbed, tmp_path):
    chooser = random.Random(round_number)
    way, count = chooser.choice(list(WAYS)), chooser.choice([2, 3])

    def dying(rank: int) -> None:
        world.DEADLINE_S = 5.0
        if rank in doomed:  # the timer ends the process, wherever that is
            signal.setitimer(signal.ITIMER_REAL, instant_s)
        train_in_pieces(tmp_path, way, save_every=1)

    for _ in range(4):
        doomed = chooser.choice([(0,), (1,), tuple(range(count))])
        instant_s = chooser.uniform(0.2, 1.5)
        together(dying, count, tmp_path)
    came_through(lambda _: train_in_pieces(tmp_path, way), count, tmp_path)
    same_weights(tmp_path, count)
    assert result(tmp_path) == undisturbed(way, count)


def chain(folder: Path, way: str, counts: tuple[int, ...], *, blows: list[Blow]) -> set[str]:
    """Trains up to a third, two thirds and the end in so many processes each, each third disturbed.

    Returns:
        The checkpoints in which a byte was flipped meanwhile.
    """
    chooser, damaged = random.Random(len(blows)), set[str]()
    run = folder / "run"
    steps = len(arrays()[0]) // QUIET["batch_size"] + 1
    for number, count in enumerate(counts, start=1):
        options: dict[str, Any] = {**SAVED, "max_steps": 2 * steps * number // len(counts)}
        for blow in blows:

            def living(rank: int, blow: Blow = blow, options: dict[str, Any] = options) -> None:
                world.DEADLINE_S = 20.0  # one that dies before it comes is waited for as long
                blow.befall(rank)
                train_in_pieces(folder, way, **options)

            statuses = together(living, count, folder)
            for rank, status in enumerate(statuses):
                said = failure(folder, rank)
                is_dead = os.WIFSIGNALED(status)
                # The call is over where this test puts the weights together.
                is_named = any(each in said for each in (*NAMED, "full_tensor"))
                assert not status or is_dead or is_named, said
            # A flip leaves an older checkpoint, of as many processes, from which to train again.
            if run.exists() and RunFolder(run).store.names() and chooser.random() < 0.5:
                newest = colabkit.checkpoints(run)[:2]
                begun = 2 * steps * (number - 1) // len(counts)
                if begun < newest[-1].step < newest[0].step:
                    damaged |= flip_a_byte(run, chooser)
            require_whole(run, but=damaged)
        came_through(lambda _, o=options: train_in_pieces(folder, way, **o), count, folder)
    same_weights(folder, count)  # in mid-epoch each has statistics of its own, as under DDP
    return damaged


@pytest.mark.soak
@pytest.mark.needs(abilities.SOAK)
@pytest.mark.parametrize("seed", range(int(os.environ.get("COLABKIT_ROUNDS", "30"))))
def test_whatever_befalls_it_numbers_of_processes_end_with_the_bits_of_whole_checkpoints(
    seed, tmp_path
):
    """The judge is rank 0 that gathers and writes all, in a run that nothing befalls."""
    chooser = random.Random(seed)
    counts = chooser.choice([(2,), (3,), (2, 1), (3, 2), (1, 2), (2, 3, 1)])
    way = chooser.choice([each for each in WAYS if "last_batch" not in each])
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(several_managers, "WRITE_PIECES", False)
        patch.setattr(several_managers, "READ_PIECES", False)
        chain(tmp_path / "judge", way, counts, blows=[])
    blows = [Blow.drawn(chooser, min(counts), longest_s=2.0) for _ in range(4)]
    damaged = chain(tmp_path / "own", way, counts, blows=blows)
    print(f"{seed} {way} {counts} {[b.kind for b in blows]} damaged={len(damaged)}", flush=True)
    one, other = result(tmp_path / "own"), result(tmp_path / "judge")
    assert {**one, "hashes": {}} == {**other, "hashes": {}}
    assert kept(tmp_path / "own") == kept(tmp_path / "judge")


def noted_reads() -> list[str]:
    """Has this process take down which files of a volume it reads."""
    names: list[str] = []
    usual = LocalVolume.read

    def read(volume: LocalVolume, name: str) -> Any:
        names.append(name)
        return usual(volume, name)

    LocalVolume.read = read
    return names


def test_any_number_of_processes_goes_on_with_what_several_wrote(tmp_path):
    """Of 3 rows a fourth process has none; one alone writes and reads whole tensors."""

    def work(steps: int) -> None:
        model = network(dropout=0.0)
        read = noted_reads()
        colabkit.fit(
            in_pieces(model) if dist.is_initialized() else model,
            arrays(),
            tmp_path / "run",
            max_steps=steps,
            optimizer=sgd,
            **{**QUIET, **SAVED, "epochs": 4, "batch_size": 33},
        )
        rank = dist.get_rank() if dist.is_initialized() else 0
        if steps == 4:
            # The last two of four need nothing of the first half.
            weights = [name for name in read if name.startswith("shards/model-")]
            assert weights
            assert {PART.search(name) is not None for name in weights} == {rank > 1}, weights
        state = model.state_dict()
        torch.save(
            {k: getattr(v, "full_tensor", v.clone)() for k, v in state.items()},
            tmp_path / f"weights-{rank}",
        )

    for number, count in enumerate((2, 4, 1, 3), start=1):
        came_through(lambda _, to=2 * number: work(to), count, tmp_path)
        same_weights(tmp_path, count)
        loaded = network()
        assert colabkit.load(loaded, tmp_path / "run").step == 2 * number
        there = torch.load(tmp_path / "weights-0", weights_only=True)
        assert all(torch.equal(there[k], v) for k, v in loaded.state_dict().items())
        assert writers(tmp_path / "run") == {*range(count)}
        format_number = 1 if count == 1 else 2
        newest = colabkit.checkpoints(tmp_path / "run", verify=True)[0].name
        text = (tmp_path / "run" / "checkpoints" / f"{newest}.json").read_text()
        assert re.search(r'"format":(\d)', text)[1] == f"{format_number}"


def test_a_second_call_goes_on_with_the_model_that_the_first_has_trained(tmp_path):
    def work(_: int) -> None:
        model = in_pieces(network())
        for epochs in (1, 2):
            history = colabkit.fit(model, arrays(), tmp_path / "run", **{**QUIET, "epochs": epochs})
            assert len(history.numbers()["epochs"]) == epochs
        colabkit.fit(in_pieces(network()), arrays(), tmp_path / "whole", **QUIET)
        if not dist.get_rank():
            newest = [colabkit.checkpoints(tmp_path / each)[0] for each in ("run", "whole")]
            first, second = ({k: v for k, v in e.hashes.items() if k[:4] != "run."} for e in newest)
            assert first == second

    came_through(work, 2, tmp_path)


def by_rows_and_by_columns() -> nn.Module:
    """Two weights of one form, of which one process holds some rows, and some columns."""
    torch.manual_seed(2)
    layers = nn.Linear(6, 8), nn.Tanh(), nn.Linear(8, 8), nn.Tanh(), nn.Linear(8, 8)
    model = nn.Sequential(*layers, nn.Linear(8, 3))
    if dist.is_initialized():
        from torch.distributed.tensor import Shard  # where older versions have none

        mesh = init_device_mesh("cpu", (dist.get_world_size(),))
        fully_shard(model[2], mesh=mesh, shard_placement_fn=lambda p: Shard(p.ndim - 1))
        fully_shard(model, mesh=mesh)
    return model


@pytest.mark.parametrize("counts", [(2, 2), (2, 1), (1, 2)])
def test_weights_of_one_form_that_are_dealt_out_otherwise_come_back_each_to_its_place(
    counts, tmp_path
):
    def work(steps: int) -> None:
        train(tmp_path, model=by_rows_and_by_columns(), optimizer=sgd, max_steps=steps)

    def compare(count: int) -> None:
        same_weights(tmp_path, count)
        # Pieces that did not fit together would be put together by process 0.
        assert writers(tmp_path / "run") == {*range(counts[0])}
        loaded = by_rows_and_by_columns()
        colabkit.load(loaded, tmp_path / "run")
        there = torch.load(tmp_path / "weights-0", weights_only=True)
        assert all(torch.equal(there[k], v) for k, v in loaded.state_dict().items())

    for steps, count in zip((3, 3), counts, strict=True):
        came_through(lambda _, to=steps: work(to), count, tmp_path)
        compare(count)
    came_through(lambda _: work(9), counts[-1], tmp_path)
    shutil.rmtree(tmp_path / "run")
    broken = torch.load(tmp_path / "weights-0", weights_only=True)
    came_through(lambda _: work(9), counts[0], tmp_path)
    for name, each in torch.load(tmp_path / "weights-0", weights_only=True).items():
        same = torch.equal if counts[0] == counts[1] else torch.allclose
        assert same(each, broken[name])


def test_of_copies_of_a_piece_one_process_writes_its(tmp_path):
    """Two copies of two pieces each, as people deal weights out over two machines."""

    def work(rank: int) -> None:
        mesh = init_device_mesh("cpu", (2, 2), mesh_dim_names=("copies", "pieces"))
        model = fully_shard(nn.Linear(4, 5), mesh=mesh)
        state = left(dict(model.state_dict()), lambda _: pytest.fail("put together"))
        weight = state["weight"]
        assert isinstance(weight, Piece)
        assert weight.is_own == (rank < 2)
        assert weight.box.whole == (5, 4)
        assert weight.box.offset == ((0, 0), (3, 0))[rank % 2]
        assert tuple(weight.local.shape) == ((3, 4), (2, 4))[rank % 2]

    came_through(work, 4, tmp_path)


class Waves(nn.Module):
    """Weights of a type that no file of a checkpoint has, but as real and imaginary parts."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.weight = nn.Parameter(torch.randn(3, 6, dtype=torch.complex128))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return (x.to(self.weight.dtype) @ self.weight.T).abs().float()


def test_complex_weights_in_pieces_come_back(tmp_path):
    def work(_: int, steps: int, folder: Path) -> None:
        model = fully_shard(Waves()) if dist.is_initialized() else Waves()
        train(folder, model=model, max_steps=steps)

    alone = tmp_path / "alone"
    for count, steps, folder in ((2, 3, tmp_path), (2, 9, tmp_path), (2, 9, alone)):
        came_through(lambda rank, to=(steps, folder): work(rank, *to), count, folder)
    there = torch.load(tmp_path / "weights-0", weights_only=True)
    assert torch.equal(
        there["weight"], torch.load(alone / "weights-0", weights_only=True)["weight"]
    )
    loaded = Waves()
    colabkit.load(loaded, tmp_path / "run")
    assert torch.equal(there["weight"], loaded.weight)
    came_through(lambda rank: work(rank, 12, tmp_path), 1, tmp_path)
