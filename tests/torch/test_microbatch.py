"""A batch too large for memory is trained in parts, with the numbers of the whole."""

from __future__ import annotations

import functools
import json
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional

import colabkit
from colabkit.errors import ArgumentError, TrainingMemoryError
from tests.torch.cases import SAMPLES, arrays, network
from tests.torch.killing import KillAtStep, in_child, outcome

QUIET = {"progress": False, "device": "cpu", "batch_size": 8}
OUT_OF_MEMORY = "CUDA out of memory. Tried to allocate 2.00 GiB.\nSee the documentation."


class ShortOfMemory(nn.Module):
    """Runs out of memory when it is given more than ``most`` samples at once."""

    def __init__(self, inner: nn.Module, most: int, *, backward: bool = False) -> None:
        super().__init__()
        self.inner = inner
        self.most = most
        self.backward = backward
        self.seen: list[int] = []
        self.streams: list[int] = []

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen.append(len(x))
        self.streams.append(hash((random.getstate(), torch.get_rng_state().numpy().tobytes())))
        first, rest = self.inner[0], self.inner[1:]
        hidden = first(x)
        if self.training and len(x) > self.most:
            if not self.backward:
                raise torch.OutOfMemoryError(OUT_OF_MEMORY)
            # Halfway back: by then the last layer has its gradient.
            hidden.register_hook(_refuse)
        return rest(hidden)


def _refuse(gradient: torch.Tensor) -> None:
    raise torch.OutOfMemoryError(OUT_OF_MEMORY)


def short(most: int = 3, **options: Any) -> ShortOfMemory:
    return ShortOfMemory(network(dropout=0.0), most, **options)


def trained(model: nn.Module, folder: Path, data: Any = None, **options: Any) -> colabkit.History:
    return colabkit.fit(model, data or arrays(), folder, **{"epochs": 2, **QUIET, **options})


def largest_difference(one: nn.Module, other: nn.Module) -> float:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return max(float((a.double() - b.double()).abs().max()) for a, b in pairs)


def plain_and_split(folder: Path, **options: Any) -> tuple[Any, Any, Any, Any]:
    """Trains by SGD, whose weights follow the gradients linearly, whole and in parts."""
    options = {"optimizer": "sgd", **options}
    whole, parts = short(99), short(3)
    first = trained(whole, folder / "whole", **options)
    second = trained(parts, folder / "parts", **options, microbatch="auto")
    assert max(parts.seen[2:]) <= 4
    return whole, parts, first, second


def same_history(one: colabkit.History, other: colabkit.History) -> None:
    assert [row.keys() for row in one.epochs] == [row.keys() for row in other.epochs]
    for name, values in one.history.items():
        assert other.history[name] == pytest.approx(values, rel=1e-5), name


def test_without_need_it_changes_no_bit(tmp_path):
    kinds = {"metrics": "accuracy", "accumulate": 3, "clip_grad_norm": 0.5}
    whole, auto = network(), network()
    first = trained(whole, tmp_path / "whole", **kinds)
    second = trained(auto, tmp_path / "auto", **kinds, microbatch="auto")
    assert largest_difference(whole, auto) == 0
    assert first.history == second.history


@pytest.mark.parametrize("backward", [False, True])
@pytest.mark.parametrize("accumulate", [1, 3])
def test_the_gradient_is_that_of_the_whole_batch(backward, accumulate, tmp_path):
    options = {"accumulate": accumulate, "optimizer": "sgd", "clip_grad_norm": 0.05}
    whole, parts = short(99), short(3, backward=backward)
    first = trained(whole, tmp_path / "whole", **options)
    second = trained(parts, tmp_path / "parts", **options, microbatch="auto")
    assert largest_difference(whole, parts) < 1e-6
    same_history(first, second)
    assert parts.seen[:7] == [8, 4, 2, 2, 2, 2, 2]


def test_a_number_takes_parts_of_that_size_from_the_start(tmp_path):
    whole, parts = short(99), short(99)
    trained(whole, tmp_path / "whole")
    trained(parts, tmp_path / "parts", microbatch=3)
    assert parts.seen[:6] == [3, 3, 2, 3, 3, 2]
    assert largest_difference(whole, parts) < 1e-5


class Own(nn.Module):
    """A loss of one's own that says how it is reduced."""

    def __init__(self, reduction: str) -> None:
        super().__init__()
        self.reduction = reduction

    def forward(self, output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
        each = (output - functional.one_hot(target.clamp(min=0), 3)).square().sum(1)
        return each.mean() if self.reduction == "mean" else each.sum()


def own_mean(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(output, target.clamp(min=0)) + output.square().mean()


WEIGHT = torch.tensor([0.2, 1.0, 3.0])
LOSSES: dict[str, Any] = {
    "inferred": None,
    "by name": "cross_entropy",
    "weights and ignored targets": nn.CrossEntropyLoss(weight=WEIGHT, label_smoothing=0.1),
    "another ignored target": nn.CrossEntropyLoss(ignore_index=1),
    "a partial": functools.partial(functional.cross_entropy, weight=WEIGHT),
    "a sum": nn.CrossEntropyLoss(reduction="sum"),
    "own mean": Own("mean"),
    "own sum": Own("sum"),
    "own function": own_mean,
}


@pytest.mark.parametrize("name", LOSSES)
def test_losses_are_weighted_as_the_whole_would_weigh_them(name, tmp_path):
    x, y = arrays()
    if "own" not in name and "another" not in name:
        y[torch.arange(SAMPLES) % 5 < 2] = -100
        y[:4] = -100
    loss = LOSSES[name]
    rate = 1e-3 if "sum" in name else 0.05
    options = {
        "loss": loss,
        "optimizer": lambda parameters: torch.optim.SGD(parameters, lr=rate),
        "accumulate": 2,
    }
    ordered = [(x[i : i + 8], y[i : i + 8]) for i in range(0, SAMPLES, 8)]
    whole, parts, first, second = plain_and_split(tmp_path, data=ordered, **options)
    assert largest_difference(whole, parts) < 1e-6
    same_history(first, second)


def contrasting(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    return functional.cross_entropy(output @ output.T, torch.arange(len(output)))


@pytest.mark.parametrize(
    "loss", [contrasting, lambda o, t: functional.cross_entropy(o, t) * len(o)]
)
@pytest.mark.parametrize("microbatch", [1, 3, "auto"])
def test_a_loss_that_cannot_be_taken_in_parts_is_refused(loss, microbatch, tmp_path):
    with pytest.raises(ArgumentError, match="do not add up") as caught:
        trained(short(3), tmp_path, loss=loss, microbatch=microbatch)
    assert caught.value.argument == "loss"


def test_a_loss_that_keeps_the_samples_apart_is_refused_before_the_first_step(tmp_path):
    loss = nn.CrossEntropyLoss(reduction="none")
    with pytest.raises(ArgumentError, match="reduction='none'"):
        trained(network(), tmp_path / "run", loss=loss, microbatch="auto")
    assert not (tmp_path / "run").exists()


class OwnLoss(nn.Module):
    """Computes its loss itself, as Hugging Face's models do."""

    def __init__(self, most: int) -> None:
        super().__init__()
        self.short = short(most)

    def forward(self, x: torch.Tensor, labels: torch.Tensor) -> dict[str, torch.Tensor]:
        logits = self.short(x)
        return {"loss": functional.cross_entropy(logits, labels), "logits": logits}


def named_batches(ignored: int | None = None) -> list[dict[str, torch.Tensor]]:
    x, y = arrays()
    if ignored is not None:
        y[::3] = ignored
    return [{"x": x[i : i + 8], "labels": y[i : i + 8]} for i in range(0, SAMPLES, 8)]


def test_a_model_that_computes_its_loss_itself_is_taken_in_parts(tmp_path):
    whole, parts = OwnLoss(99), OwnLoss(3)
    first = trained(whole, tmp_path / "whole", named_batches(), optimizer="sgd")
    second = trained(parts, tmp_path / "parts", named_batches(), optimizer="sgd", microbatch="auto")
    assert largest_difference(whole, parts) < 1e-6
    same_history(first, second)


def test_ignored_targets_of_a_models_own_loss_are_refused(tmp_path):
    with pytest.raises(ArgumentError, match="-100") as caught:
        trained(OwnLoss(3), tmp_path, named_batches(-100), microbatch="auto")
    assert "accumulate" in caught.value.hint


class Counting:
    """Counts what it is shown, and how often."""

    def __init__(self) -> None:
        self.calls = 0
        self.samples = 0

    def update(self, output: torch.Tensor, target: torch.Tensor) -> None:
        self.calls += 1
        self.samples += len(output)

    def compute(self) -> float:
        return float(self.samples)

    def reset(self) -> None:
        self.samples = 0

    def state_dict(self) -> dict[str, int]:
        return dict(vars(self))

    def load_state_dict(self, state: dict[str, int]) -> None:
        vars(self).update(state)


def spread(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """Differs from a mean over parts."""
    return output.std() * target.float().std()


@pytest.mark.parametrize("backward", [False, True])
def test_metrics_see_the_whole_batch_once(backward, tmp_path):
    counting = Counting()
    metrics = {"accuracy": "accuracy", "spread": spread, "samples": counting}
    whole, parts = short(99), short(3, backward=backward)
    first = trained(whole, tmp_path / "whole", metrics={**metrics, "samples": Counting()})
    second = trained(parts, tmp_path / "parts", metrics=metrics, microbatch="auto")
    same_history(first, second)
    assert counting.calls == 2 * 6
    assert second.history["samples"] == [SAMPLES, SAMPLES]


def test_a_failed_try_leaves_no_trace_in_streams_buffers_and_gradients(tmp_path):
    norm = nn.BatchNorm1d(12)
    inner = nn.Sequential(nn.Linear(6, 12), norm, nn.Dropout(0.3), nn.Linear(12, 3))
    model = ShortOfMemory(inner, 3, backward=True)
    trained(model, tmp_path, data=[arrays()] * 1, epochs=1, microbatch="auto")
    assert model.seen[:4] == [44, 22, 11, 6]
    first_of_each_try = [model.streams[i] for i in (0, 1, 2, 3)]
    assert len(set(first_of_each_try)) == 1
    # 44 samples in parts of at most 3: what was counted before was taken back.
    assert int(norm.num_batches_tracked) == 15

    norm = nn.BatchNorm1d(12)
    torch.manual_seed(11)
    alone = nn.Sequential(nn.Linear(6, 12), norm, nn.Dropout(0.3), nn.Linear(12, 3))
    torch.manual_seed(11)
    norm_after = nn.BatchNorm1d(12)
    after = nn.Sequential(nn.Linear(6, 12), norm_after, nn.Dropout(0.3), nn.Linear(12, 3))
    trained(alone, tmp_path / "alone", data=[arrays()], epochs=1, microbatch=3)
    trained(
        ShortOfMemory(after, 3, backward=True),
        tmp_path / "after",
        data=[arrays()],
        epochs=1,
        microbatch="auto",
    )
    assert largest_difference(alone, after) == 0


def test_one_sample_that_does_not_fit_is_said_with_what_to_do(tmp_path):
    with pytest.raises(TrainingMemoryError, match="1 sample does not fit") as caught:
        trained(short(0), tmp_path, microbatch="auto")
    assert caught.value.samples == 1
    assert "Tried to allocate 2.00 GiB." in str(caught.value)
    assert "checkpointing" in caught.value.hint
    assert isinstance(caught.value, MemoryError)


def test_a_number_that_does_not_fit_names_the_way_on(tmp_path):
    with pytest.raises(TrainingMemoryError, match="4 samples at once do not fit") as caught:
        trained(short(3), tmp_path, microbatch=4)
    assert "microbatch='auto'" in caught.value.hint


def test_another_error_is_not_taken_for_a_lack_of_memory(tmp_path):
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        trained(nn.Linear(7, 3), tmp_path, microbatch="auto")


def test_by_default_a_lack_of_memory_is_pytorchs_own_error(tmp_path):
    with pytest.raises(torch.OutOfMemoryError):
        trained(short(3), tmp_path)


@pytest.mark.parametrize("microbatch", [0, -1, True, 2.5, "some", "8"])
def test_a_wrong_size_is_named_before_the_first_step(microbatch, tmp_path):
    with pytest.raises(ArgumentError) as caught:
        trained(network(), tmp_path / "run", microbatch=microbatch)
    assert caught.value.argument == "microbatch"
    assert not (tmp_path / "run").exists()


def test_a_batch_without_a_dimension_of_samples_is_refused(tmp_path):
    x, _ = arrays()
    data = [(x[:8], torch.rand(5))]
    model = nn.Sequential(nn.Linear(6, 3))
    with pytest.raises(ArgumentError, match=r"\[5\], which cannot be cut"):
        trained(model, tmp_path, data, microbatch=4, loss=lambda o, t: o.sum() * t.sum())


def test_what_was_done_is_said_once(tmp_path, capsys):
    inner = nn.Sequential(nn.Linear(6, 12), nn.BatchNorm1d(12), nn.Linear(12, 3))
    trained(ShortOfMemory(inner, 3), tmp_path, microbatch="auto", progress=True)
    said = capsys.readouterr().out
    assert "Memory ran out with 8 samples at once: steps are taken in parts of at most 4" in said
    assert said.count("BatchNorm takes its statistics of each part") == 1
    assert "Resume is exact (provided memory runs out at the same steps)." in said


@pytest.mark.parametrize("precision", ["bf16", "fp16"])
def test_lower_precision_is_taken_in_parts(precision, tmp_path):
    whole, parts, first, second = plain_and_split(
        tmp_path, precision=precision, clip_grad_norm=1.0, metrics="accuracy"
    )
    assert largest_difference(whole, parts) < 2e-3
    assert second.history["loss"] == pytest.approx(first.history["loss"], rel=2e-3)


def resumable(folder: Path, target: Path, killers: list[Any], most: int, **options: Any) -> None:
    model = ShortOfMemory(network(norm=True), most, backward=True)
    made = {"epochs": 3, "accumulate": 2, "microbatch": "auto", **QUIET, **options}
    history = colabkit.fit(model, arrays(), folder, callbacks=killers, **made)
    outcome(folder, history, target)


def bits(work: Callable[..., None], tmp_path: Path, kills: tuple[int, ...], **options: Any) -> Any:
    folder = tmp_path / f"run{len(kills)}"
    target, report = tmp_path / f"{folder.name}.json", tmp_path / f"{folder.name}.txt"
    for step in kills:
        killers = [KillAtStep(step)]
        assert not in_child(
            lambda k=killers: work(folder, target, k, **options, save_every=1), report=report
        )
    assert in_child(lambda: work(folder, target, [], **options), report=report)
    return json.loads(target.read_text())


@pytest.mark.parametrize("microbatch", ["auto", 3])
def test_a_run_in_parts_that_is_killed_ends_with_the_same_bits(microbatch, tmp_path):
    most = 4
    alone = bits(resumable, tmp_path, (), most=most, microbatch=microbatch)
    assert bits(resumable, tmp_path, (3, 8, 11), most=most, microbatch=microbatch) == alone


def test_the_size_that_fits_is_remembered(tmp_path):
    first, again = short(3), short(3)
    trained(first, tmp_path, epochs=1, microbatch="auto")
    history = trained(again, tmp_path, epochs=2, microbatch="auto")
    # The model's own list is part of the checkpoint, and goes on.
    assert (first.seen[0], again.seen[len(first.seen)]) == (8, 2)
    assert history.verdict.grade.value == "exact"


@pytest.mark.parametrize(
    ("then", "now", "said"),
    [
        ("auto", None, "microbatch was 2, is the whole batch"),
        (None, 4, "microbatch was the whole batch, is 4"),
        (4, 2, "microbatch was 4, is 2"),
    ],
)
def test_another_size_after_the_resume_is_said(then, now, said, tmp_path):
    trained(short(3 if then == "auto" else 99), tmp_path, epochs=1, microbatch=then)
    history = trained(short(99), tmp_path, epochs=2, microbatch=now)
    assert history.verdict.reasons == (said,)
