"""Several processes that hold pieces of one model's weights, as ``fully_shard`` deals them out."""

from __future__ import annotations

import contextlib
import io
import json
import os
import random
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.device_mesh import init_device_mesh
from torch.nn import functional
from torch.utils import data as torch_data

import colabkit
from colabkit.errors import ArgumentError, ProcessLostError, StateError
from colabkit.frameworks.torch import world
from tests import abilities, format_reader
from tests.torch.cases import arrays, network
from tests.torch.killing import kill_self, outcome
from tests.torch.ranks import came_through, failure, killed, together
from tests.torch.several_pieces import (
    KillTogether,
    fully_shard,
    in_pieces,
    sgd,
    train_in_pieces,
    undisturbed_in_pieces,
)
from tests.torch.several_ways import QUIET, WAYS, result, same_weights, train
from tests.torch.test_several_loops import shared_out

pytestmark = pytest.mark.needs(abilities.PIECES)
SOAK = bool(os.environ.get("COLABKIT_SOAK"))


# The norm of pieces is summed in another order than that of copies.
SAME = [way for way in WAYS if way != "augmented_samples_and_validation"]


@pytest.mark.parametrize("way", SAME)
def test_pieces_give_the_bits_of_copies(way, tmp_path):
    copies, pieces = tmp_path / "copies", tmp_path / "pieces"
    came_through(lambda _: train(copies, way, optimizer=sgd), 2, copies)
    came_through(lambda _: train_in_pieces(pieces, way, optimizer=sgd), 2, pieces)
    same_weights(pieces)
    assert kept(pieces) == kept(copies)
    one, other = result(pieces), result(copies)
    assert {**one, "hashes": {}} == {**other, "hashes": {}}


def kept(folder: Path) -> dict[str, Any]:
    """Returns the bits of all tensors of the newest checkpoint, by the page of the format."""
    found: dict[str, Any] = {}

    def look(state: Any, path: str) -> None:
        if isinstance(state, np.ndarray):
            found[path] = (state.shape, state.tobytes())
        pairs = state.items() if isinstance(state, dict) else ()
        for key, each in enumerate(state) if isinstance(state, list | tuple) else pairs:
            look(each, f"{path}.{key}")

    run = folder / "run"
    sections = format_reader.read(run, format_reader.names(run)[0])
    look({name: each for name, each in sections.items() if name != "run"}, "")
    assert found
    return found


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], dict[str, Any]]:
    """Gives what processes end with that nobody disturbs, by the way of training and number."""
    return undisturbed_in_pieces(tmp_path_factory)


@pytest.mark.parametrize(
    ("way", "count", "doomed"),
    [
        ("dropout_and_arrays", 2, (0,)),
        ("augmented_samples_and_validation", 2, (1,)),
        ("groups_that_do_not_divide_and_batch_norm", 3, (0, 1, 2)),
        ("a_last_batch_of_one", 3, (2,)),
    ],
)
def test_killed_processes_go_on_bit_for_bit(way, count, doomed, undisturbed, tmp_path):
    options: dict[str, Any] = {"callbacks": [KillTogether(5, doomed)], "save_every": 1}
    statuses = together(lambda _: train_in_pieces(tmp_path, way, **options), count, tmp_path)
    assert all(killed(statuses[rank]) for rank in doomed)
    for rank in set(range(count)) - set(doomed):
        assert "ProcessLostError" in failure(tmp_path, rank)
    assert 0 < colabkit.checkpoints(tmp_path / "run", verify=True)[0].step < 8
    came_through(lambda _: train_in_pieces(tmp_path, way), count, tmp_path)
    same_weights(tmp_path, count)
    assert result(tmp_path) == undisturbed(way, count)
    assert (tmp_path / "verdict").read_text().startswith("Resume is exact")


@pytest.mark.parametrize("counts", [(4, 2, 1, 3), (1, 2, 3, 4)])
def test_each_sample_counts_once_whatever_number_of_processes_goes_on(counts, tmp_path):
    """One dropped or doubled, or a piece that came to the wrong place, would change the curve."""

    def work(folder: Path, steps: int) -> None:
        model = network(dropout=0.0)
        history = colabkit.fit(
            in_pieces(model) if dist.is_initialized() else model,
            arrays(),
            folder / "run",
            optimizer=sgd,
            max_steps=steps,
            **{**QUIET, "epochs": 4, "batch_size": 33},
        )
        if not dist.is_initialized() or dist.get_rank() == 0:
            losses = history.numbers()["steps"]["loss"].tolist()
            (folder / "losses").write_text(json.dumps(losses))
            (folder / "verdict").write_text(str(history.verdict))

    chain, alone = tmp_path / "chain", tmp_path / "alone"
    for number, count in enumerate(counts):
        steps = 2 * number + (1 if number < 3 else 2)
        came_through(lambda _, to=steps: work(chain, to), count, chain)
    then = {1: "whole"}.get(counts[-2], f"in {counts[-2]} pieces")
    assert f"weights was {then}, is in {counts[-1]} pieces" in (chain / "verdict").read_text()
    came_through(lambda _: work(alone, 8), 1, alone)
    losses = [json.loads((folder / "losses").read_text()) for folder in (chain, alone)]
    assert len(losses[0]) == 8
    assert losses[0] == pytest.approx(losses[1], rel=2e-6)
    model = network()  # one process reads what several wrote
    info = colabkit.load(model, chain / "run")
    assert info.step == 8


def looped(
    folder: Path,
    *,
    stops_at: int = 0,
    doomed: tuple[int, ...] = (),
    drops: bool = True,
    **options: Any,
) -> Any:
    """The loop that a person writes with fully_shard."""
    model = in_pieces(network(dropout=0.2 if drops else 0.0))
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
    loader = shared_out(None if drops else torch_data.TensorDataset(*arrays()))
    run = colabkit.Run(folder / "run", model=model, optimizer=optimizer, **{**SILENT, **options})
    for _ in run.epochs(2):
        for x, y in run.batches(loader):
            loss = functional.cross_entropy(model(x), y)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), 0.5)
            optimizer.step()
            run.log(loss=loss)
            run.flush()
            if run.step + 1 == stops_at and doomed:
                dist.barrier()  # rank 0 has published what all have written
            if run.step + 1 == stops_at and dist.get_rank() in doomed:
                kill_self()
            if run.step + 1 == stops_at and not doomed:
                return run
        model.eval()
        with torch.no_grad():
            run.log_epoch(val=functional.cross_entropy(model(x), y) * (1 - 2 * dist.get_rank()))
        model.train()
    weights = {key: each.full_tensor() for key, each in model.state_dict().items()}
    torch.save(weights, folder / f"weights-{dist.get_rank()}")
    if dist.get_rank() == 0:
        outcome(folder / "run", run.history, folder / "outcome")
        (folder / "verdict").write_text(str(run.history.verdict))
    return run


SILENT: dict[str, Any] = {"progress": False, "save_every": None, "monitor": "val"}


@pytest.mark.parametrize(("count", "doomed"), [(2, (0,)), (3, (1,))])
def test_a_loop_of_ones_own_goes_on_bit_for_bit(count, doomed, tmp_path):
    """Each process finds another epoch the best: what rank 0 finds counts."""
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    came_through(lambda _: looped(whole), count, whole)
    together(lambda _: looped(broken, stops_at=4, doomed=doomed, save_every=1), count, broken)
    assert 0 < colabkit.checkpoints(broken / "run", verify=True)[0].step < 4
    came_through(lambda _: looped(broken), count, broken)
    same_weights(broken, count)
    assert result(broken) == result(whole)
    assert (broken / "verdict").read_text().startswith("Resume is exact")


def test_the_steps_are_those_of_the_same_loop_without_a_run(tmp_path):
    def work(_: int) -> None:
        looped(tmp_path, drops=False)
        model = in_pieces(network(dropout=0.0))
        optimizer = torch.optim.AdamW(model.parameters(), lr=0.01)
        rows = torch_data.TensorDataset(*arrays())
        sampler: Any = torch_data.DistributedSampler(rows, seed=3)
        for epoch in range(2):
            sampler.set_epoch(epoch)
            for x, y in torch_data.DataLoader(rows, batch_size=4, sampler=sampler):
                loss = functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                nn.utils.clip_grad_norm_(model.parameters(), 0.5)
                optimizer.step()
        found = torch.load(tmp_path / f"weights-{dist.get_rank()}", weights_only=True)
        for name, each in model.state_dict().items():
            assert torch.equal(found[name], each.full_tensor())

    came_through(work, 2, tmp_path)


class Pulling:
    """Keeps pieces of its own, in a model, a list, or moments, and pulls the weights to them."""

    def __init__(self, model: nn.Module, how: str) -> None:
        self.model = model
        self.follower: nn.Module | None = None
        self.shadow: list[torch.Tensor] = []
        if how == "a_list":
            self.shadow = [each.detach().clone() for each in model.parameters()]
        else:
            self.follower = in_pieces(network(dropout=0.0))
        self.optimizer: torch.optim.Optimizer | None = None
        if self.follower is not None and how == "moments":
            self.optimizer = torch.optim.Adam(self.follower.parameters(), lr=0.01)

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        x, y = arrays()
        kept = self.shadow if self.follower is None else list(self.follower.parameters())
        if self.follower is not None and self.optimizer is not None:
            functional.cross_entropy(self.follower(x), y).backward()
            self.optimizer.step()
            self.optimizer.zero_grad()
        with torch.no_grad():
            for own, weight in zip(kept, self.model.parameters(), strict=True):
                own.lerp_(weight, 0.1)
                weight.lerp_(own, 0.1)


@pytest.mark.parametrize("how", ["a_model", "a_list", "moments"])
def test_what_a_callback_keeps_in_pieces_goes_on_bit_for_bit(how, tmp_path):
    def work(folder: Path, *more: Any, **options: Any) -> None:
        model = in_pieces(network())
        train(folder, model=model, callbacks=[Pulling(model, how), *more], **options)

    came_through(lambda _: work(tmp_path / "alone"), 2, tmp_path / "alone")
    together(lambda _: work(tmp_path, KillTogether(5, (1,)), save_every=1), 2, tmp_path)
    assert 0 < colabkit.checkpoints(tmp_path / "run", verify=True)[0].step < 6
    came_through(lambda _: work(tmp_path), 2, tmp_path)
    same_weights(tmp_path)
    assert result(tmp_path) == result(tmp_path / "alone")
    assert (tmp_path / "verdict").read_text().startswith("Resume is exact")


class Anchors:
    """Copies of weights, and a tensor of another form, none of which is there at first."""

    def __init__(self) -> None:
        self.kept: list[torch.Tensor] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = state["kept"]


@pytest.mark.parametrize("where", ["an attribute", "an object"])
def test_pieces_that_training_has_made_are_pieces_again(where, tmp_path):
    def trained(folder: Path, **options: Any) -> tuple[list[torch.Tensor], str]:
        model: Any = in_pieces(network(dropout=0.0))
        model.kept = None
        anchors = model if where == "an attribute" else Anchors()
        more = {} if anchors is model else {"anchors": anchors}
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        objects = {"model": model, "optimizer": optimizer, **more}
        run = colabkit.Run(folder, objects=objects, progress=False, save_every=None, **options)
        for _ in run.epochs(2):
            for x, y in run.batches(shared_out()):
                loss = functional.cross_entropy(model(x), y)
                optimizer.zero_grad()
                loss.backward()
                *same, wide = anchors.kept or [None]
                for weight, anchor in zip(model.parameters(), same, strict=False):
                    weight.grad.add_(weight.detach() - anchor, alpha=0.1)
                if wide is not None:
                    model[0].weight.grad.add_(wide.chunk(2, dim=1)[0], alpha=0.1)
                optimizer.step()
                if run.step == 3:
                    weights = [each.detach().clone() for each in model.parameters()]
                    anchors.kept = [*weights, torch.cat([weights[0]] * 2, dim=1)]
        return [each.full_tensor() for each in model.parameters()], str(run.history.verdict)

    def work(_: int) -> None:
        alone, _verdict = trained(tmp_path / "alone")
        trained(tmp_path / "run", max_steps=6)
        again, verdict = trained(tmp_path / "run")
        assert all(map(torch.equal, again, alone))
        assert verdict.startswith("Resume is exact")

    came_through(work, 2, tmp_path)


def anchored(folder: Path) -> str:
    """A loop that goes by pieces of its own, one of which is not there at first."""
    model: Any = in_pieces(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = colabkit.Run(folder, model=model, optimizer=optimizer, progress=False)
    anchors, newest = [each.detach().clone() for each in model.parameters()], None
    for x, y in run.batches(shared_out()):
        loss = functional.cross_entropy(model(x), y)
        optimizer.zero_grad()
        loss.backward()
        for weight, anchor in zip(model.parameters(), anchors, strict=True):
            weight.grad.add_(weight.detach() - anchor, alpha=0.1)
        if newest is not None:
            model[0].weight.grad.add_(newest, alpha=0.1)
        newest = model[0].weight.detach().clone()
        optimizer.step()
    return str(run.history.verdict)


def test_pieces_among_the_loops_own_values_are_an_error_that_says_where_to_keep_them(tmp_path):
    def keep_pieces() -> None:
        model = in_pieces(network())
        run = colabkit.Run(tmp_path / "run", model=model, progress=False)
        kept = run.state(anchor=None)
        for _ in run.batches(shared_out()):
            kept.anchor = next(model.parameters()).detach().clone()

    def work(_: int) -> None:
        said = anchored(tmp_path / "loop")
        for name in ("newest", "anchors"):
            assert f"in an attribute of the model (model.{name}" in said
            assert f"run.state({name}=" not in said
        with pytest.raises((StateError, ProcessLostError)) as caught:
            keep_pieces()
        assert "kept.anchor is in pieces" in str(caught.value)
        assert "an object with state_dict and load_state_dict" in str(caught.value)

    came_through(work, 2, tmp_path)


def test_layers_in_pieces_are_no_other_layers_where_one_process_goes_on(tmp_path):
    def work(count: int, steps: int) -> None:
        model = network()
        said = io.StringIO()
        with contextlib.redirect_stdout(said), contextlib.redirect_stderr(said):
            colabkit.fit(
                in_pieces(model) if dist.is_initialized() else model,
                arrays(),
                tmp_path / "run",
                optimizer=sgd,
                max_steps=steps,
                **{**QUIET, "progress": True},
            )
        if not dist.is_initialized() or not dist.get_rank():
            (tmp_path / f"said-{count}").write_text(said.getvalue())

    for count, steps in ((2, 2), (1, 4)):
        came_through(lambda _, n=count, to=steps: work(n, to), count, tmp_path)
    said = (tmp_path / "said-1").read_text()
    assert "Resumed at epoch 1, step 2" in said
    assert "Taken as passed now: max_steps 2 → 4." in said


@pytest.mark.parametrize("round_number", range(20 if SOAK else 1))
def test_processes_killed_at_any_instant_go_on_bit_for_bit(round_number, undisturbed, tmp_path):
    chooser = random.Random(round_number)
    way, count = chooser.choice(list(WAYS)), chooser.choice([2, 3])

    def dying(rank: int) -> None:
        world.DEADLINE_S = 5.0
        if rank in doomed:  # the timer ends the process, wherever that is
            signal.setitimer(signal.ITIMER_REAL, instant_s)
        train_in_pieces(tmp_path, way, save_every=1)

    for _ in range(4 if SOAK else 2):
        doomed = chooser.choice([(0,), (1,), tuple(range(count))])
        instant_s = chooser.uniform(0.2, 1.5)
        together(dying, count, tmp_path)
    came_through(lambda _: train_in_pieces(tmp_path, way), count, tmp_path)
    same_weights(tmp_path, count)
    assert result(tmp_path) == undisturbed(way, count)


def test_a_loop_that_all_processes_leave_is_saved_where_it_was_left(tmp_path):
    came_through(lambda _: looped(tmp_path, stops_at=4), 2, tmp_path)
    assert colabkit.checkpoints(tmp_path / "run", verify=True)[0].step == 4


def older(model: nn.Module) -> nn.Module:
    from torch.distributed.fsdp import FullyShardedDataParallel

    return FullyShardedDataParallel(model, device_id=torch.device("cpu"))


def a_layer_alone(model: nn.Module) -> nn.Module:
    fully_shard(model[0], mesh=init_device_mesh("cpu", (2,)))
    return model


@pytest.mark.parametrize(
    ("made", "words"), [(a_layer_alone, "sums the gradients of others"), (older, "by fully_shard")]
)
def test_what_is_in_pieces_otherwise_is_refused_before_anything_is_written(made, words, tmp_path):
    def work(_: int) -> None:
        model = made(network())
        with pytest.raises(ArgumentError, match=words):
            colabkit.Run(tmp_path / "run", model=model, progress=False)
        with pytest.raises(ArgumentError, match=words):
            train(tmp_path, model=model)

    came_through(work, 2, tmp_path)
    assert not (tmp_path / "run").exists()
