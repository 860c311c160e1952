"""What each process of a loop of one's own may have for itself, and what it trains beside."""

from __future__ import annotations

import functools
import inspect
import re
import shutil
import threading
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.distributed.algorithms.ddp_comm_hooks import powerSGD_hook
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.optim import swa_utils

import colabkit
from colabkit.errors import ArgumentError
from tests import abilities
from tests.torch.cases import arrays, network
from tests.torch.killing import kill_self, outcome
from tests.torch.ranks import came_through, killed, together
from tests.torch.several_pieces import in_pieces, sgd
from tests.torch.several_ways import QUIET, KillRanks, result, same_weights
from tests.torch.several_ways import train as fitted
from tests.torch.test_several_loops import shared_out


class Mean:
    """A metric over the batches of its process."""

    def __init__(self) -> None:
        self.total, self.count = torch.zeros(()), 0

    def update(self, value: torch.Tensor) -> None:
        self.total, self.count = self.total + value, self.count + 1

    def state_dict(self) -> dict[str, Any]:
        return {"total": self.total, "count": self.count}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.total, self.count = state["total"], state["count"]


class Ways(NamedTuple):
    """How a loop trains.

    Attributes:
        norm: Whether the model has batch normalization.
        wrap: Makes the wrapped model of it.
        objects: Makes what else the run is given, of the model within.
        after: Called after each step with the kept values, those objects and the loss.
        optimizer: Makes what steps with the weights.
    """

    norm: bool = False
    wrap: Callable[[nn.Module], nn.Module] = DistributedDataParallel
    objects: Callable[[nn.Module], dict[str, Any]] = lambda _: {}
    after: Callable[[Any, dict[str, Any], torch.Tensor], object] = lambda *_: None
    optimizer: Callable[[Any], torch.optim.Optimizer] = sgd


def train(folder: Path, way: Ways, **options: Any) -> colabkit.History:
    model = network(dropout=0.0, norm=way.norm)
    wrapped = way.wrap(model)
    optimizer = way.optimizer(wrapped.parameters())
    others = way.objects(model)
    callbacks = options.pop("callbacks", [])
    given = {"progress": False, "save_every": None, **options}
    objects = {"model": wrapped, "optimizer": optimizer, **others}
    run = colabkit.Run(folder / "run", objects=objects, **given)
    kept = run.state(total=0.0)
    for _ in run.epochs(2):
        for x, y in run.batches(shared_out(torch.utils.data.TensorDataset(*arrays()))):
            loss = functional.cross_entropy(wrapped(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            way.after(kept, {"model": model, "steps": optimizer, **others}, loss.detach())
            for each in callbacks:
                each.on_batch_end(run, run.step + 1, None)
    rank = dist.get_rank()
    torch.save(model.state_dict(), folder / f"weights-{rank}")
    if rank == 0:
        outcome(folder / "run", run.history, folder / "outcome")
        (folder / "verdict").write_text(str(run.history.verdict))
    return run.history


def keep_sum(kept: Any, _: Any, loss: torch.Tensor) -> None:
    kept.total += float(loss)


def compressed(model: nn.Module) -> nn.Module:
    wrapped = DistributedDataParallel(model)
    state = powerSGD_hook.PowerSGDState(None, start_powerSGD_iter=2)
    wrapped.register_comm_hook(state, powerSGD_hook.powerSGD_hook)
    return wrapped


def leaving_buffers(model: nn.Module) -> nn.Module:
    names = inspect.signature(DistributedDataParallel).parameters
    newer = "forward_sync_buffers"  # from 2.13 on
    name = newer if newer in names else "broadcast_buffers"
    return DistributedDataParallel(model, **{name: False})


def within(model: nn.Module, **options: Any) -> nn.Module:
    return nn.Sequential(DistributedDataParallel(model, **options))


def remember(_: Any, objects: dict[str, Any], loss: torch.Tensor) -> None:
    objects["model"].seen = 0.9 * getattr(objects["model"], "seen", 0.0) + float(loss)


class Dealt(torch.optim.Optimizer):
    """Each process steps with its share of the weights, and alone keeps what it needs for it."""

    def __init__(self, weights: Any) -> None:
        super().__init__(weights, {"lr": 0.1})

    @torch.no_grad()
    def step(self, closure: Any = None) -> Any:
        for number, each in enumerate(self.param_groups[0]["params"]):
            owner = number % dist.get_world_size()
            if dist.get_rank() == owner:
                kept = self.state[each]
                kept["momentum"] = 0.9 * kept.get("momentum", 0.0) + each.grad
                each.sub_(kept["momentum"], alpha=self.param_groups[0]["lr"])
            dist.broadcast(each, owner)


KEPT = {
    "shares_of_moments": Ways(optimizer=Dealt),
    "a_metric": Ways(
        objects=lambda _: {"mean": Mean()}, after=lambda _, o, loss: o["mean"].update(loss)
    ),
    "a_kept_value": Ways(after=keep_sum),
    **{
        f"a_metric_of_process_{alone}_alone": Ways(
            objects=lambda _, alone=alone: {"mean": Mean()} if dist.get_rank() == alone else {},
            after=lambda _, o, loss: o["mean"].update(loss) if "mean" in o else None,
        )
        for alone in (0, 1)
    },
    "a_metric_beside_pieces": Ways(
        wrap=in_pieces,
        objects=lambda _: {"mean": Mean()},
        after=lambda _, o, loss: o["mean"].update(loss),
    ),
    "an_attribute": Ways(after=remember),
    "buffers": Ways(norm=True, wrap=leaving_buffers),
    "statistics": Ways(norm=True),
    "statistics_of_a_wrapper_within": Ways(norm=True, wrap=within),
}


def _local(tensor: torch.Tensor) -> torch.Tensor:
    return tensor.to_local() if hasattr(tensor, "to_local") else tensor


def own_of(folder: Path, rank: int) -> dict[str, Any]:
    return torch.load(folder / f"own-{rank}", weights_only=False)


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(each, marks=pytest.mark.needs(abilities.PIECES) if "pieces" in each else ())
        for each in KEPT
    ],
)
def test_what_each_process_has_for_itself_is_saved_for_each(what, tmp_path):
    def work(folder: Path, **options: Any) -> None:
        kept: list[Any] = []

        def after(*given: Any) -> None:
            kept[:] = given[:2]
            KEPT[what].after(*given)

        history = train(folder, KEPT[what]._replace(after=after), **options)
        values, objects = kept
        mean = objects["mean"].state_dict() if "mean" in objects else {"total": -1.0}
        weights = {n: _local(each) for n, each in objects["model"].state_dict().items()}
        own = {**weights, **mean, "kept": values.total}
        own["seen"] = getattr(objects["model"], "seen", 0.0)
        moments = [_local(e).flatten() for s in objects["steps"].state.values() for e in s.values()]
        own["moments"] = torch.cat(moments)
        torch.save(own, folder / f"own-{dist.get_rank()}")
        assert str(history.verdict).startswith("Resume is exact")
        assert "provided 2 processes go on" in history.verdict.notices

    came_through(lambda _: work(tmp_path / "alone"), 2, tmp_path / "alone")
    killing = {"callbacks": [KillRanks(5, (1,))], "save_every": 1}
    assert killed(together(lambda _: work(tmp_path, **killing), 2, tmp_path)[1])
    came_through(lambda _: work(tmp_path), 2, tmp_path)
    for rank in (0, 1):
        alone, gone_on = own_of(tmp_path / "alone", rank), own_of(tmp_path, rank)
        assert all(torch.equal(*map(torch.as_tensor, (alone[n], gone_on[n]))) for n in alone)
    firsts, seconds = own_of(tmp_path, 0), own_of(tmp_path, 1)
    assert any(not torch.equal(*map(torch.as_tensor, (firsts[n], seconds[n]))) for n in firsts)
    assert result(tmp_path) == result(tmp_path / "alone")


def test_what_is_too_large_to_be_saved_for_each_process_is_named(tmp_path):
    def keep_much(kept: Any, _: Any, loss: torch.Tensor) -> None:
        kept.total = torch.full((3 << 20,), float(loss))

    def work(_: int) -> None:
        history = train(tmp_path, Ways(after=keep_much), save_every=2, max_steps=2)
        words = "each process has total of its own, too large for each to be saved"
        assert history.verdict.reasons[0].startswith(words)

    came_through(work, 2, tmp_path)


def test_a_hook_with_a_state_is_named(tmp_path):
    way, words = Ways(wrap=compressed), "model sums by a hook whose state no checkpoint holds"
    came_through(lambda _: train(tmp_path, way, save_every=2, max_steps=4), 2, tmp_path)
    assert words in (tmp_path / "verdict").read_text()


def feeding_back(**options: Any) -> Callable[[nn.Module], nn.Module]:
    """Wraps a model, whose gradients are sent in 16 bits: what rounding leaves over comes next."""

    def wrap(model: nn.Module) -> nn.Module:
        wrapped = DistributedDataParallel(model, **options)
        left_over: dict[int, torch.Tensor] = {}

        def hook(_, bucket):  # type: ignore[no-untyped-def]  # DDP wants its own type, or none
            whole = bucket.buffer() / dist.get_world_size() + left_over.get(bucket.index(), 0.0)
            sent = whole.bfloat16().float()
            left_over[bucket.index()] = whole - sent
            summed = dist.all_reduce(sent, async_op=True).get_future()
            return summed.then(lambda done: done.value()[0])

        wrapped.register_comm_hook(None, hook)
        return wrapped

    return wrap


def test_what_a_hook_of_ones_own_remembers_goes_on_where_its_buckets_stay(tmp_path):
    way = Ways(wrap=feeding_back(find_unused_parameters=True))
    came_through(lambda _: train(tmp_path / "alone", way), 2, tmp_path / "alone")
    killing = {"callbacks": [KillRanks(4, (1,))], "save_every": 1}
    assert killed(together(lambda _: train(tmp_path, way, **killing), 2, tmp_path)[1])
    came_through(lambda _: train(tmp_path, way), 2, tmp_path)
    same_weights(tmp_path)
    assert result(tmp_path) == result(tmp_path / "alone")
    assert (tmp_path / "verdict").read_text().startswith("Resume is exact")


LAID_OUT_ANEW: dict[str, tuple[int, Callable[[nn.Module], nn.Module]]] = {
    "three_processes": (3, DistributedDataParallel),
    "three_processes_and_a_wrapper_within": (3, within),
    "a_graph_that_stays": (3, lambda m: DistributedDataParallel(m, static_graph=True)),
    "a_hook_that_remembers": (2, feeding_back()),
}


@pytest.mark.parametrize("what", LAID_OUT_ANEW)
def test_buckets_that_are_laid_out_anew_after_a_resume_are_named_where_that_matters(what, tmp_path):
    count, wrap = LAID_OUT_ANEW[what]
    work = functools.partial(train, tmp_path, Ways(wrap=wrap), save_every=2, max_steps=2)
    came_through(lambda _: work(), count, tmp_path)
    said = (tmp_path / "verdict").read_text()
    assert re.match(r"Resume is approximate: model(\.0)? lays its buckets out anew", said)


class Remembering(nn.Module):
    """Goes by what it has seen, which in each process is of its own parts."""

    def __init__(self) -> None:
        super().__init__()
        self.inner = network(dropout=0.0)
        self.seen = 0.0
        self.rows: list[float] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.seen = 0.9 * self.seen + 0.1 * float(x.mean())
            self.rows = [*self.rows[-3:], float(x[0, 0])]
        return self.inner(x) * (1 + self.seen + sum(self.rows) / 100)


class Locked(Remembering):
    """Has what cannot be copied, so that nobody can look at it beforehand."""

    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


class Easing(nn.Module):
    """A loss that goes by a mean of what it was."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.ones(()))

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        found = functional.cross_entropy(output, target)
        weight = 1 / self.mean
        if output.requires_grad:
            self.mean = 0.9 * self.mean + 0.1 * found.detach()
        return found * weight


def counting_loss() -> Callable[..., torch.Tensor]:
    seen = {"calls": 0}

    def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        seen["calls"] += output.requires_grad
        return functional.cross_entropy(output, target) * min(1.0, seen["calls"] / 8)

    return loss


REMEMBERED: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "a_model": (lambda: {"model": Remembering()}, "model (its attributes)"),
    "a_model_that_cannot_be_copied": (
        lambda: {"model": Locked()},
        "what a model or loss that cannot be copied remembers of its calls",
    ),
    "a_loss": (lambda: {"loss": Easing()}, "loss (its buffers)"),
    "a_count": (lambda: {"loss": counting_loss()}, "attributes of given code"),
}


@pytest.mark.parametrize("what", REMEMBERED)
def test_what_a_part_goes_by_in_its_process_goes_on_there_and_else_is_named(what, tmp_path):
    make, name = REMEMBERED[what]

    def work(folder: Path, **options: Any) -> None:
        fitted(folder, **{"model": network(dropout=0.0), **make(), **options})

    came_through(lambda _: work(tmp_path / "alone"), 2, tmp_path / "alone")
    killing = {"callbacks": [KillRanks(3, (0,))], "save_every": 1}
    assert killed(together(lambda _: work(tmp_path, **killing), 2, tmp_path)[0])
    shutil.copytree(tmp_path / "run", tmp_path / "one" / "run")
    came_through(lambda _: work(tmp_path), 2, tmp_path)
    same_weights(tmp_path)
    assert result(tmp_path) == result(tmp_path / "alone")
    assert (tmp_path / "verdict").read_text().startswith("Resume is exact")
    came_through(lambda _: work(tmp_path / "one"), 1, tmp_path / "one")
    said = (tmp_path / "one" / "verdict").read_text()
    assert said.startswith("Resume is approximate")
    assert f"{name} changes with each part that a process takes" in said


def test_what_only_a_callback_has_by_process_goes_on_in_one(tmp_path):
    class Rows:
        """Keeps the statistics that its process has."""

        def __init__(self, model: nn.Module) -> None:
            self.model, self.rows = model, torch.zeros(12)

        def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
            self.rows = self.rows * 0.9 + self.model[1].running_mean

        def state_dict(self) -> dict[str, Any]:
            return {"rows": self.rows}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.rows = state["rows"]

    def work(folder: Path, *more: Any, **options: Any) -> None:
        model = network(norm=True)
        fitted(folder, model=model, callbacks=[Rows(model), *more], **options)

    came_through(lambda _: work(tmp_path / "alone"), 2, tmp_path / "alone")
    work_killed = lambda _: work(tmp_path, KillRanks(3, (0, 1)), save_every=1)  # noqa: E731
    assert all(map(killed, together(work_killed, 2, tmp_path)))
    came_through(lambda _: work(tmp_path), 1, tmp_path)
    assert result(tmp_path) == result(tmp_path / "alone")
    assert (tmp_path / "verdict").read_text().startswith("Resume is exact")


def averaging(model: nn.Module) -> dict[str, Any]:
    average = swa_utils.get_ema_multi_avg_fn(0.9)
    return {"average": swa_utils.AveragedModel(model, multi_avg_fn=average)}


def test_an_average_of_the_weights_needs_no_wrapper_and_goes_on_bit_for_bit(tmp_path):
    way = Ways(objects=averaging, after=lambda _, o, __: o["average"].update_parameters(o["model"]))
    came_through(lambda _: train(tmp_path / "alone", way), 2, tmp_path / "alone")
    killing = {"callbacks": [KillRanks(4, (1,))], "save_every": 1}
    assert killed(together(lambda _: train(tmp_path, way, **killing), 2, tmp_path)[1])
    came_through(lambda _: train(tmp_path, way), 2, tmp_path)
    same_weights(tmp_path)
    assert result(tmp_path) == result(tmp_path / "alone")
    assert (tmp_path / "verdict").read_text().startswith("Resume is exact")


def test_a_wrapper_that_is_compiled_is_one(tmp_path):
    def work(_: int) -> None:
        wrapped = torch.compile(DistributedDataParallel(network()), backend="eager")
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
        colabkit.Run(tmp_path / "run", model=wrapped, optimizer=optimizer, progress=False)

    came_through(work, 2, tmp_path)


COMPILED = [
    DistributedDataParallel,
    pytest.param(in_pieces, marks=pytest.mark.needs(abilities.PIECES)),
]


@pytest.mark.soak
@pytest.mark.needs(abilities.SOAK)
@pytest.mark.parametrize("deal_out", COMPILED)
def test_a_model_that_is_compiled_goes_on_with_the_bits_of_one_that_is_not(deal_out, tmp_path):
    def trained(folder: Path, *, is_compiled: bool = True, dies: bool = False) -> None:
        model = network()
        wrapped = deal_out(model)
        called = torch.compile(wrapped, backend="eager") if is_compiled else wrapped
        optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
        options = {"save_every": 1, "progress": False}
        run = colabkit.Run(folder / "run", model=called, optimizer=optimizer, **options)
        for _ in run.epochs(2):
            for x, y in run.batches(shared_out()):
                optimizer.zero_grad()
                functional.cross_entropy(called(x), y).backward()
                optimizer.step()
                run.flush()
                if dies and run.step == 4:
                    dist.barrier()
                    kill_self()
        if dist.get_rank() == 0:
            outcome(folder / "run", run.history, folder / "outcome")

    together(lambda _: trained(tmp_path, dies=True), 2, tmp_path)
    assert colabkit.checkpoints(tmp_path / "run", verify=True)[0].step >= 3
    came_through(lambda _: trained(tmp_path), 2, tmp_path)
    plain = tmp_path / "plain"
    came_through(lambda _: trained(plain, is_compiled=False), 2, plain)
    assert result(tmp_path) == result(plain)


def test_an_optimizer_in_parts_of_its_own_is_an_error_that_says_what_to_take(tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it makes scripts of functions, which is out of use
        from torch.distributed.optim import ZeroRedundancyOptimizer

    def work(_: int) -> None:
        model = network()
        wrapped = DistributedDataParallel(model)
        optimizer = ZeroRedundancyOptimizer(model.parameters(), torch.optim.Adam, lr=0.01)
        with pytest.raises(ArgumentError, match="of which each process holds a part") as caught:
            colabkit.Run(tmp_path / "run", model=wrapped, optimizer=optimizer, progress=False)
        assert "fully_shard" in caught.value.hint
        with pytest.raises(ArgumentError, match="of which each process holds a part"):
            colabkit.fit(model, arrays(), tmp_path / "fit", optimizer=optimizer, **QUIET)

    came_through(work, 2, tmp_path)
