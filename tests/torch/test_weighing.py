"""Whether several devices pay, which devices="auto" finds out by a look that leaves nothing."""

from __future__ import annotations

import inspect
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.utils import data as torch_data

import colabkit
from colabkit.fitting.torch import TorchOptions
from colabkit.fitting.torch.devices import Devices, fit_on_devices
from colabkit.fitting.torch.fitting import fit_module
from colabkit.fitting.torch.weighing import Clock, OneDeviceError
from colabkit.runs.news import News
from tests.torch.cases import Augmented, arrays, network
from tests.torch.killing import outcome
from tests.torch.ranks import came_through
from tests.torch.several_ways import QUIET, WAYS, result, train

STEPS_ALONE = 20  # as many as are taken where the clock hardly moves, and it is read around them


class Ticking:
    """A clock by which process 0 is as fast alone, and each process among all, as it is told.

    Args:
        alone: Milliseconds that pass from one reading to the next while process 0 is alone.
        together: The same from then on.
    """

    def __init__(self, alone: float, together: float) -> None:
        self.alone, self.together = alone, together
        self.readings, self.now_s = 0, 0.0

    def __call__(self) -> float:
        self.readings += 1
        is_alone = dist.get_rank() == 0 and self.readings <= STEPS_ALONE + 2
        self.now_s += (self.alone if is_alone else self.together) / 1e3
        return self.now_s


LOOKED = "a step takes 1.05 ms there, and 2.1 ms on 2 (devices=2 takes them)"
KEPT = "so it was decided when this run began (devices=2 takes all)"
ONE, ALL = Ticking(1, 2), Ticking(2, 1)


def never() -> float:
    message = "the clock was asked"
    raise AssertionError(message)


def asked(way: str, **options: Any) -> tuple[nn.Module, Any, TorchOptions]:
    """Returns model, data and options of a call."""
    parameters = inspect.signature(colabkit.fit).parameters
    given: dict[str, Any] = {name: each.default for name, each in parameters.items()}
    for name in ("ckpt_dir", "notify", "keras_arguments"):
        del given[name]
    given |= {**QUIET, "save_every": None, "model": None, "data": None, "news": News()}
    given |= {**WAYS[way](), **options}
    model, data = given.pop("model") or network(), given.pop("data") or arrays()
    return model, data, TorchOptions(**given)


def trained(folder: Path, way: str = "dropout_and_arrays", **options: Any) -> None:
    """Trains in this process, one of several or not; process 0 writes down what came of it."""
    model, data, given = asked(way, **options)
    history = fit_module(model, data, folder / "run", given)
    if not dist.is_initialized() or dist.get_rank() == 0:
        outcome(folder / "run", history, folder / "outcome")


def test_one_device_that_is_as_fast_trains_alone_and_goes_on_so(tmp_path):
    way = "augmented_samples_and_validation"

    def automatic(clock: Clock, **options: Any) -> list[str]:
        model, data, given = asked(way, devices="auto", **options)
        said: list[str] = []
        history = fit_on_devices(
            *(model, data, tmp_path / "run", given),
            train=fit_module,
            say=said.append,
            choose=lambda *_: Devices(2),
            clock=clock,
        )
        outcome(tmp_path / "run", history, tmp_path / "outcome")
        assert history.verdict.reasons == ()
        return said

    def work(_: int) -> None:
        assert automatic(ONE, max_steps=5) == [f"Trains on one device: {LOOKED}."]
        assert automatic(ALL) == [f"Trains on one device: {KEPT}."]  # by this clock two are faster

    came_through(work, 1, tmp_path)
    came_through(lambda _: train(tmp_path / "alone", way), 1, tmp_path)
    assert result(tmp_path) == result(tmp_path / "alone")


@pytest.mark.parametrize(
    "way", ["augmented_samples_and_validation", "groups_that_do_not_divide_and_batch_norm"]
)
def test_several_that_are_faster_train_as_if_nobody_had_looked(way, tmp_path):
    came_through(lambda _: trained(tmp_path, way, weighs_by=ALL, max_steps=5), 2, tmp_path)
    came_through(lambda _: trained(tmp_path, way, weighs_by=never), 2, tmp_path)  # two began
    came_through(lambda _: train(tmp_path / "two", way), 2, tmp_path)
    assert result(tmp_path) == result(tmp_path / "two")


def test_a_look_leaves_the_variables_of_a_loss_as_they_are(tmp_path):
    def work(_: int) -> None:
        seen = [0]

        def loss(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
            seen[0] += 1
            return nn.functional.cross_entropy(output, target)

        with pytest.raises(OneDeviceError):
            trained(tmp_path, weighs_by=ONE, loss=loss)
        assert seen == [0]

    came_through(work, 2, tmp_path)


def test_all_processes_hear_that_one_is_as_fast_before_anything_is_written(tmp_path):
    def work(_: int) -> None:
        with pytest.raises(OneDeviceError, match=r"and 2\.1 ms on 2"):
            trained(tmp_path, weighs_by=ONE)

    came_through(work, 2, tmp_path)
    assert not list((tmp_path / "run").glob("checkpoints/*"))


def test_a_number_of_devices_takes_so_many_also_where_one_was_found_to_do(tmp_path):
    came_through(lambda _: trained(tmp_path, stays_on_one=True, max_steps=5), 1, tmp_path)
    came_through(lambda _: train(tmp_path), 2, tmp_path)
    assert "was taken in 1 parts, is taken in 2" in (tmp_path / "verdict").read_text()


class Odd(nn.Linear):
    """Cannot be copied, and can be handed over."""

    def __deepcopy__(self, memo: Any) -> Any:
        message = "there is but one"
        raise TypeError(message)


def _with_workers() -> dict[str, Any]:
    return {"data": torch_data.DataLoader(Augmented(), batch_size=8, num_workers=1)}


UNSEEN = {
    "workers": _with_workers,
    "no_copy": lambda: {"model": nn.Sequential(Odd(6, 3))},
    "no_step": lambda: {"model": nn.Sequential(nn.Linear(6, 3), Failing())},
}


class Failing(nn.Module):
    """Has no memory for a whole batch."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if len(x) > 4:
            message = "CUDA out of memory, say"
            raise RuntimeError(message)
        return x


@pytest.mark.parametrize("what", UNSEEN)
def test_where_there_is_no_look_all_devices_are_taken(what, tmp_path):
    work = {"weighs_by": never, "epochs": 1}
    came_through(lambda _: trained(tmp_path, **UNSEEN[what](), **work), 2, tmp_path)
    assert result(tmp_path)["step"] == 6
