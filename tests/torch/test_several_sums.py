"""What goes along with the gradients of several processes: loss, what counts, what is unused."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils import data as torch_data
from torchmetrics import MetricCollection
from torchmetrics.classification import MulticlassAccuracy, MulticlassConfusionMatrix

import colabkit
from tests import abilities
from tests.torch.cases import SAMPLES, Table, arrays, network
from tests.torch.killing import kill_self, outcome
from tests.torch.ranks import came_through, killed, together
from tests.torch.several_pieces import in_pieces
from tests.torch.test_several_loops import nothing, rank, shared_out

BATCH = 12


class Picky(nn.Module):
    """Uses one branch for some samples, another for others, and one for none at all."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.first = nn.Linear(6, 3)
        self.other = nn.Linear(6, 3)
        self.never = nn.Linear(6, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        # By the samples at hand: the processes and the batches differ.
        return self.first(x) if float(x[0, 0]) > 0.3 else self.other(x)


class InOrder(torch_data.Sampler[list[int]]):
    def __iter__(self) -> Any:
        return iter([list(range(at, at + BATCH)) for at in range(0, SAMPLES - BATCH + 1, BATCH)])

    def __len__(self) -> int:
        return SAMPLES // BATCH


def by_hand(model: nn.Module, x: torch.Tensor, y: torch.Tensor, rank: int, epochs: int) -> None:
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1, weight_decay=0.1)
    for batch in list(InOrder()) * epochs:
        own = torch.tensor(batch).tensor_split(2)[rank]
        loss = functional.cross_entropy(wrapped(x[own]), y[own])
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()


def fitted(model: nn.Module, x: torch.Tensor, y: torch.Tensor, folder: Any, **options: Any) -> Any:
    return colabkit.fit(
        model,
        torch_data.DataLoader(torch_data.TensorDataset(x, y), batch_sampler=InOrder()),
        folder,
        optimizer=lambda weights: torch.optim.AdamW(weights, lr=0.1, weight_decay=0.1),
        progress=False,
        device="cpu",
        **options,
    )


def test_weights_that_some_or_all_processes_leave_unused_have_the_bits_of_a_loop_by_hand(tmp_path):
    def work(rank: int) -> None:
        x, y = arrays()
        model, own = Picky(), Picky()
        fitted(model, x, y, tmp_path / "run", epochs=3)
        by_hand(own, x, y, rank, 3)
        untouched = Picky()
        for name, each in model.named_parameters():
            assert torch.equal(each, own.get_parameter(name)), name
            # Decay would have moved what no process has used, were its gradient 0 and not None.
            is_unused = torch.equal(each, untouched.get_parameter(name))
            assert is_unused == name.startswith("never"), name

    x, _ = arrays()
    picked = [[bool(x[own[0], 0] > 0.3) for own in (b[:6], b[6:])] for b in InOrder()]
    assert len({*map(tuple, picked)}) > 1  # some batches are of one branch, some of both
    came_through(work, 2, tmp_path)


@pytest.mark.parametrize("ignored", [0.0, 0.4])
def test_targets_that_do_not_count_are_left_out_of_the_mean_of_all_processes(ignored, tmp_path):
    x, y = arrays()
    torch.manual_seed(3)
    y = y.masked_fill(torch.rand(len(y)) < ignored, -100)

    def work(_: int) -> None:
        model, own = network(dropout=0.0), network(dropout=0.0)
        history = fitted(model, x, y, tmp_path / "run", epochs=2)
        optimizer = torch.optim.AdamW(own.parameters(), lr=0.1, weight_decay=0.1)
        losses = []
        for batch in list(InOrder()) * 2:  # in one process, the whole batch at once
            loss = functional.cross_entropy(own(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            losses.append(loss.item())
        assert history.numbers()["steps"]["loss"].tolist() == pytest.approx(losses, rel=1e-4)
        for one, other in zip(model.parameters(), own.parameters(), strict=True):
            torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)

    came_through(work, 2, tmp_path)


def test_one_process_goes_on_bit_for_bit_where_targets_did_not_count(tmp_path):
    x, y = arrays()
    y = y.masked_fill(torch.arange(len(y)) % 5 == 0, -100)
    found = []
    for counts in ((2, 2), (2, 1)):
        folder, weights = tmp_path / f"{counts}", tmp_path / f"{counts}.pt"

        def work(_: int, steps: int | None, to: Any = (folder, weights)) -> None:
            model = Picky()
            fitted(model, x, y, to[0] / "run", epochs=3, max_steps=steps)
            torch.save(model.state_dict(), to[1])

        came_through(lambda rank, run=work: run(rank, 4), counts[0], folder)
        came_through(lambda rank, run=work: run(rank, None), counts[1], folder)
        found.append(torch.load(weights, weights_only=True))
    assert all(torch.equal(each, found[1][name]) for name, each in found[0].items())


@pytest.mark.parametrize("accumulate", [1, 2])
def test_rows_of_sparse_gradients_are_summed_as_by_hand_and_in_one_process(accumulate, tmp_path):
    x, y = arrays()

    def fit(steps: int, to: Path) -> nn.Module:
        model = Table()
        loader = torch_data.DataLoader(torch_data.TensorDataset(x, y), batch_sampler=InOrder())
        optimizer = torch.optim.SGD(model.parameters(), lr=0.3)
        given = {"epochs": 3, "max_steps": steps, "progress": False, "accumulate": accumulate}
        colabkit.fit(model, loader, to, optimizer=optimizer, **given)
        return model

    def work(rank: int) -> None:
        fit(4, tmp_path / "run")
        model, own = fit(9, tmp_path / "alone"), Table()
        if rank == 0:
            torch.save(model.state_dict(), tmp_path / "weights")
        if accumulate > 1:
            return
        wrapped = DistributedDataParallel(own)
        optimizer = torch.optim.SGD(own.parameters(), lr=0.3)
        for batch in list(InOrder()) * 3:
            at = torch.tensor(batch).tensor_split(2)[rank]
            optimizer.zero_grad()
            functional.cross_entropy(wrapped(x[at]), y[at]).backward()
            optimizer.step()
        assert torch.equal(model.rows.weight, own.rows.weight)

    def go_on(_: int) -> None:
        model = fit(9, tmp_path / "run")
        alone = torch.load(tmp_path / "weights", weights_only=True)
        assert torch.equal(model.rows.weight, alone["rows.weight"])

    came_through(work, 2, tmp_path)
    came_through(go_on, 1, tmp_path)


def test_a_loss_is_called_once_for_each_part_and_its_first_look_leaves_it_as_it_was(tmp_path):
    x, y = arrays()

    def work(_: int) -> None:
        calls = []

        def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            calls.append(len(target))
            return functional.cross_entropy(output, target) * (1 + len(calls))

        rows = torch_data.DataLoader(torch_data.TensorDataset(x, y), batch_sampler=InOrder())
        given = {"epochs": 1, "optimizer": "sgd", "progress": False, "validation_data": rows}
        colabkit.fit(network(), rows, tmp_path / "run", loss=loss, **given)
        assert calls == [BATCH // 2] * (2 * len(InOrder()))

    came_through(work, 2, tmp_path)


def test_metrics_that_would_add_up_over_processes_count_each_sample_once(tmp_path):
    x, y = arrays()

    def work(_: int) -> None:
        collection = MetricCollection({"matrix": MulticlassConfusionMatrix(3)})
        metrics = {"count": MulticlassConfusionMatrix(3), "top": MulticlassAccuracy(3)}
        history = fitted(network(), x, y, tmp_path / "run", metrics={**metrics, "all": collection})
        for name in ("count", "matrix"):
            row = history.epochs[0]
            assert sum(row[f"{name}_{place}"] for place in range(9)) == BATCH * len(InOrder())

    came_through(work, 2, tmp_path)


class Normalising(nn.Module):
    """What BatchNorm1d does, by a function."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(12))
        self.register_buffer("variance", torch.ones(12))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return functional.batch_norm(x, self.mean, self.variance, training=self.training)


def test_a_part_has_two_samples_where_the_model_normalises_over_them(tmp_path):
    """As in a last batch of three processes, of which one or two then take none."""

    def trained(layer: nn.Module, folder: Path, last: int) -> nn.Module:
        x, y = (each[: 12 + last] for each in arrays())
        torch.manual_seed(0)
        model = nn.Sequential(nn.Linear(6, 12), layer, nn.Linear(12, 3))
        options = {"epochs": 2, "optimizer": "sgd", "validation_data": (x[:1], y[:1])}
        colabkit.fit(model, (x, y), folder, batch_size=12, progress=False, **options)
        return model

    def work(_: int) -> None:
        for last in (2, 3, 4):
            plain, own = nn.BatchNorm1d(12, affine=False), Normalising()
            expected = trained(plain, tmp_path / f"plain {last}", last)
            found = trained(own, tmp_path / f"own {last}", last)
            assert all(map(torch.equal, found.parameters(), expected.parameters()))
            assert torch.equal(own.mean, plain.running_mean)
            assert torch.equal(own.variance, plain.running_var)

    came_through(work, 3, tmp_path)


def stepped_by_hand(folder: Path, at_step: Callable[[Any, int], None]) -> Any:
    """Without an optimizer, so that nothing says whether gradients wait or were used."""
    model = network()
    wrapped = DistributedDataParallel(model)
    run = colabkit.Run(folder, model=wrapped, progress=False, save_every=1)
    for _epoch in run.epochs(1):
        for x, y in run.batches(shared_out()):
            ends = run.batch % 3 == 2
            with wrapped.no_sync() if not ends else torch.enable_grad():
                functional.cross_entropy(wrapped(x), y).backward()
            for each in model.parameters() if ends else ():
                each.data.sub_(each.grad, alpha=0.1)
                each.grad = None
            at_step(run, run.step + 1)
    return run


def in_summed_pieces(folder: Path, at_step: Callable[[Any, int], None]) -> Any:
    """Layers in pieces keep what is not summed yet, and nobody sees it in the weights."""
    model: Any = in_pieces(network())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = colabkit.Run(folder, model=model, optimizer=optimizer, progress=False, save_every=1)
    for _epoch in run.epochs(1):
        for x, y in run.batches(shared_out()):
            ends = run.batch % 3 == 2
            model.set_requires_gradient_sync(ends)
            functional.cross_entropy(model(x), y).backward()
            if ends:
                optimizer.step()
                optimizer.zero_grad()
            at_step(run, run.step + 1)
    return run


def in_turn(folder: Path, at_step: Callable[[Any, int], None]) -> Any:
    """Steps with one of two optimizers, while what the other gathers waits, the same in each."""
    model = network()
    wrapped = DistributedDataParallel(model)
    body, head = (torch.optim.SGD(model[n].parameters(), lr=0.1) for n in (0, -1))
    objects = {"model": wrapped, "body": body, "head": head}
    run = colabkit.Run(folder, objects=objects, progress=False, save_every=1)
    for _epoch in run.epochs(1):
        for x, y in run.batches(shared_out()):
            functional.cross_entropy(wrapped(x), y).backward()
            for each in (body, head) if run.batch % 3 == 2 else (body,):
                each.step()
                each.zero_grad()
            at_step(run, run.step + 1)
    return run


@pytest.mark.parametrize(
    "loop",
    [
        stepped_by_hand,
        pytest.param(in_summed_pieces, marks=pytest.mark.needs(abilities.PIECES)),
        in_turn,
    ],
)
def test_gradients_that_wait_go_on_bit_for_bit(loop, tmp_path):
    def dies(run: Any, now: int) -> None:
        run.flush()
        if now == 5:
            dist.barrier()
            kill_self()

    def goes_on(_: int) -> None:
        for name, at_step in (("run", nothing), ("alone", nothing)):
            run = loop(tmp_path / name, at_step)
            assert str(run.history.verdict).startswith("Resume is exact")
            if rank() == 0:
                outcome(tmp_path / name, run.history, tmp_path / f"outcome-{name}")

    assert all(map(killed, together(lambda _: loop(tmp_path / "run", dies), 2, tmp_path)))
    assert colabkit.checkpoints(tmp_path / "run", verify=True)[0].step in {3, 4}
    came_through(goes_on, 2, tmp_path)
    assert (tmp_path / "outcome-run").read_text() == (tmp_path / "outcome-alone").read_text()


@pytest.mark.needs(abilities.PIECES)
def test_gradients_that_no_checkpoint_can_hold_are_named(tmp_path):
    """An optimizer steps while a layer in pieces keeps what it is yet to sum."""

    def work(_: int) -> None:
        model: Any = in_pieces(network())
        model[0].set_requires_gradient_sync(False)
        optimizer = torch.optim.SGD(model[-1].parameters(), lr=0.1)
        given = {"objects": {"model": model, "optimizer": optimizer}, "progress": False}
        run = colabkit.Run(tmp_path / "run", save_every=1, **given)
        for _epoch in run.epochs(1):
            for x, y in run.batches(shared_out()):
                functional.cross_entropy(model(x), y).backward()
                optimizer.step()
                optimizer.zero_grad()
        if rank() == 0:
            assert "yet to sum" in str(run.history.verdict)

    came_through(work, 2, tmp_path)


class Beside(torch.optim.Optimizer):
    """Keeps a moment in pieces, and beside it one that each process has for itself."""

    def __init__(self, weights: Any) -> None:
        super().__init__(weights, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for each in self.param_groups[0]["params"]:
            kept = self.state[each]
            kept["square"] = kept.get("square", 0) + each.grad * each.grad
            kept["own"] = kept.get("own", 0) + each.grad.to_local().sum()


@pytest.mark.needs(abilities.PIECES)
def test_what_an_optimizer_keeps_beside_pieces_in_one_process_alone_is_named(tmp_path):
    def work(_: int) -> None:
        model: Any = in_pieces(network())
        given = {"model": model, "optimizer": Beside(model.parameters()), "progress": False}
        run = colabkit.Run(tmp_path / "run", **given)
        for _epoch in run.epochs(1):
            for x, y in run.batches(shared_out()):
                functional.cross_entropy(model(x), y).backward()
                given["optimizer"].step()
                given["optimizer"].zero_grad()
        assert "each process has optimizer (its state) of its own" in str(run.history.verdict)

    came_through(work, 2, tmp_path)
