"""What each process of a loop of one's own may have for itself, and what it trains beside."""

from __future__ import annotations

import inspect
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
from tests.torch.killing import outcome
from tests.torch.ranks import came_through, killed, together
from tests.torch.several_pieces import in_pieces
from tests.torch.several_ways import QUIET, KillRanks, result, same_weights
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
    """

    norm: bool = False
    wrap: Callable[[nn.Module], nn.Module] = DistributedDataParallel
    objects: Callable[[nn.Module], dict[str, Any]] = lambda _: {}
    after: Callable[[Any, dict[str, Any], torch.Tensor], object] = lambda *_: None


def train(folder: Path, way: Ways, **options: Any) -> colabkit.History:
    model = network(dropout=0.0, norm=way.norm)
    wrapped = way.wrap(model)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1, momentum=0.9)
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
            way.after(kept, {"model": model, **others}, loss.detach())
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


NAMED = {
    "a_metric": (
        Ways(objects=lambda _: {"mean": Mean()}, after=lambda _, o, loss: o["mean"].update(loss)),
        "each process has mean of its own",
    ),
    "a_kept_value": (Ways(after=keep_sum), "each process has total of its own"),
    "a_metric_beside_pieces": (
        Ways(
            wrap=in_pieces,
            objects=lambda _: {"mean": Mean()},
            after=lambda _, o, loss: o["mean"].update(loss),
        ),
        "each process has mean of its own",
    ),
    "buffers": (
        Ways(norm=True, wrap=leaving_buffers),
        "model has buffers of its own in each process",
    ),
    "statistics": (Ways(norm=True), "provided model is not left in an evaluation"),
    "a_hook": (Ways(wrap=compressed), "model sums by a hook whose state no checkpoint holds"),
}


@pytest.mark.parametrize(
    "what",
    [
        pytest.param(each, marks=pytest.mark.needs(abilities.PIECES) if "pieces" in each else ())
        for each in NAMED
    ],
)
def test_what_each_process_has_for_itself_is_named(what, tmp_path):
    way, words = NAMED[what]
    came_through(lambda _: train(tmp_path, way, save_every=2, max_steps=4), 2, tmp_path)
    assert words in (tmp_path / "verdict").read_text()


def averaging(model: nn.Module) -> dict[str, Any]:
    average = swa_utils.get_ema_multi_avg_fn(0.9)
    return {"average": swa_utils.AveragedModel(model, multi_avg_fn=average)}


@pytest.mark.parametrize("sums", [True, False])
@pytest.mark.parametrize(
    "made",
    [lambda model: model, pytest.param(in_pieces, marks=pytest.mark.needs(abilities.PIECES))],
    ids=["copies", "pieces"],
)
def test_what_a_loss_sums_up_of_its_own_parts_is_named(made, sums, tmp_path):
    def work(_: int) -> None:
        seen = {"calls": 0, "mean": torch.zeros(())}

        def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            found = functional.cross_entropy(output, target)
            seen["calls"] += 1
            if sums:
                seen["mean"] = 0.9 * seen["mean"] + 0.1 * found.detach()
            return found

        history = colabkit.fit(
            made(network(dropout=0.0)), arrays(), tmp_path, loss=loss, epochs=1, batch_size=8,
            save_every=2, progress=False,
        )  # fmt: skip
        named = [each for each in history.verdict.reasons if "of given code" in each]
        assert len(named) == sums

    came_through(work, 2, tmp_path)


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
