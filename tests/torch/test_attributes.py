"""What training keeps in plain attributes, and in optimizers within optimizers, goes on."""

from __future__ import annotations

import collections
import copy
import dataclasses
import enum
import fractions
import io
import itertools
import threading
import types
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import colabkit
from tests.torch.cases import arrays
from tests.torch.test_restored import (
    QUIET,
    ClassRecall,
    assert_resumes_exactly,
    hashes,
    network,
    trained,
)


class Remembering(nn.Module):
    """Keeps a hidden tensor, a queue of tensors, and a table of arrays, without any buffer."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.hidden: torch.Tensor | None = None
        self.queue = collections.deque([torch.zeros(6)], maxlen=3)
        self.table: dict[str, Any] = {"mean": np.zeros(6), "seen": []}
        self.parts = [self.body]
        self.late = self.queue
        self.sizes: collections.Counter[int] = collections.Counter()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.hidden is not None:
            x = x + self.hidden.detach()
        x = x + sum(self.late) + torch.from_numpy(self.table["mean"]).float()
        self.hidden = 0.1 * x.mean(0)
        self.queue.append(x.detach().mean(0))
        self.table["mean"] *= 0.5
        self.table["mean"] += x.detach().double().mean(0).numpy()
        self.table["seen"].append(len(x))
        self.sizes[len(x)] += 1
        return self.body(x) / (len(self.table["seen"]) + 0.1 * self.sizes[8])


def test_tensors_and_containers_that_a_model_keeps_as_attributes_go_on(tmp_path):
    assert_resumes_exactly(lambda: {"model": Remembering()}, tmp_path)


class Centre:
    """The mean of what it was given, in slots alone."""

    __slots__ = ("__count", "mean")

    def __init__(self) -> None:
        self.__count = 0
        self.mean = torch.zeros(6)

    def add(self, x: torch.Tensor) -> torch.Tensor:
        self.__count += 1
        self.mean = self.mean + (x.mean(0) - self.mean) / self.__count
        return self.mean


class Wider(Centre):
    """Has slots, and attributes beside them."""

    def __init__(self) -> None:
        super().__init__()
        self.widest = 0.0

    def add(self, x: torch.Tensor) -> torch.Tensor:
        self.widest = max(self.widest, float(x.abs().max()))
        return super().add(x) / (1 + self.widest)


class Centring(nn.Module):
    """Keeps objects as an attribute, in a list, in a dict and within each other."""

    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Linear(6, 3)
        self.one, self.several = Centre(), [Wider(), "", (Centre(),)]
        self.by = {"a.b": Centre(), 1: Wider()}

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        every = [self.one, self.several[0], self.several[2][0], *self.by.values()]
        return self.body(x - sum(each.add(x) for each in every))


class Easing:
    """A callback that has slots alone."""

    __slots__ = ("optimizer", "steps")

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer, self.steps = optimizer, 0

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        self.steps += 1
        self.optimizer.param_groups[0]["lr"] = 0.1 / (1 + self.steps)


def test_objects_with_slots_and_those_in_lists_and_dicts_go_on(tmp_path):
    torch.manual_seed(11)
    first, (x, y) = Centring(), arrays()
    batches = list(zip(x.split(8), y.split(8), strict=True))

    def made() -> dict[str, Any]:
        model = copy.deepcopy(first)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return {"model": model, "optimizer": optimizer, "callbacks": [Easing(optimizer)]}

    by_fit = resumed(made, batches, tmp_path)
    model, optimizer, (easing,) = made().values()
    for x, y in batches * QUIET["epochs"]:
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        easing.on_batch_end(None, 0, {})
    assert torch.equal(by_fit.body.weight, model.body.weight)
    assert torch.equal(by_fit.by["a.b"].mean, model.by["a.b"].mean)


class Tally(collections.Counter):  # type: ignore[type-arg]
    """A container of the user's own class, with an attribute."""

    rounds = 0


class Places(list):  # type: ignore[type-arg]
    """Another one."""


class Tallying:
    """A callback that counts in containers of kinds that are not Python's plain ones."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.tally, self.places = Tally(), Places()
        self.by: Any = collections.defaultdict(lambda: 2)
        self.space, self.data = types.SimpleNamespace(count=0), collections.UserDict(count=0)

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        self.tally["a"] += 1
        self.tally.rounds += 1
        self.places.append(self.tally.rounds)
        self.by["a"] += 1
        self.space.count += 1
        self.data["count"] += 1
        counts = [self.tally["a"], self.tally.rounds, self.by["a"], *self.places]
        counts += [self.space.count, self.data["count"]]
        self.optimizer.param_groups[0]["lr"] = 0.1 / sum(counts)


def test_containers_of_the_users_own_classes_and_namespaces_go_on(tmp_path):
    torch.manual_seed(11)
    first, (x, y) = nn.Linear(6, 3), arrays()
    batches = list(zip(x.split(8), y.split(8), strict=True))

    def made() -> dict[str, Any]:
        model = copy.deepcopy(first)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return {"model": model, "optimizer": optimizer, "callbacks": [Tallying(optimizer)]}

    by_fit = resumed(made, batches, tmp_path)
    model, optimizer, (easing,) = made().values()
    for x, y in batches * QUIET["epochs"]:
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
        easing.on_batch_end(None, 0, {})
    assert torch.equal(by_fit.weight, model.weight)


def resumed(make: Callable[[], dict[str, Any]], batches: Any, folder: Path) -> Any:
    """Returns a model that was trained in three sessions, each of which was to be exact."""
    for steps in (len(batches) + 2, len(batches) + 4, None):
        made = make()
        options = {**QUIET, "save_every": 1, "max_steps": steps}
        history = colabkit.fit(made["model"], batches, folder, **options, **without_model(made))
        assert not history.verdict.reasons
    return made["model"]


def without_model(made: dict[str, Any]) -> dict[str, Any]:
    return {name: each for name, each in made.items() if name != "model"}


class Settling(nn.Module):
    """Turns plain attributes into buffers and weights, and takes others away, at one step each."""

    def __init__(self) -> None:
        super().__init__()
        self.body, self.wait = nn.Linear(6, 3), 3
        self.mean: torch.Tensor | None = None
        self.gain, self.shift = 1.0, torch.zeros(6)
        self.centre, self.parts = Wider(), [Wider()]

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.mean is None:
            del self.mean, self.shift
            self.register_buffer("mean", x.mean(0))
            self.register_buffer("shift", x.amax(0), persistent=False)
            self.gain = nn.Parameter(1 + x.std(0), requires_grad=False)
        self.mean.lerp_(x.mean(0), 0.1)
        if hasattr(self, "wait"):
            self.wait -= 1
            x = x - self.centre.add(x) * (0.5 if hasattr(self.parts[0], "widest") else 2.0)
            if self.wait == 1:
                del self.parts[0].widest
            if self.wait == 0:
                del self.wait, self.centre
        return self.body((x - self.mean) * self.gain + self.shift)


def test_attributes_that_training_turns_into_buffers_or_takes_away_stay_so(tmp_path):
    torch.manual_seed(11)
    first, (x, y) = Settling(), arrays()
    batches = list(zip(x.split(8), y.split(8), strict=True))

    def made() -> dict[str, Any]:
        model = copy.deepcopy(first)
        return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.1)}

    by_fit = resumed(made, batches, tmp_path)
    model, optimizer = made().values()
    for x, y in batches * QUIET["epochs"]:
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
        optimizer.zero_grad()
    assert torch.equal(by_fit.body.weight, model.body.weight)
    assert torch.equal(by_fit.mean, model.mean)
    assert not hasattr(by_fit, "wait")


class Tagged(torch.Tensor):
    """A tensor of the user's own class."""


class Tagging(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.hidden = torch.zeros(6).as_subclass(Tagged)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = self.hidden.as_subclass(torch.Tensor)
        self.hidden = (0.5 * hidden + 0.1 * x.detach().mean(0)).as_subclass(Tagged)
        return self.body(x + hidden)


def test_a_tensor_of_ones_own_class_goes_on(tmp_path):
    assert_resumes_exactly(lambda: {"model": Tagging()}, tmp_path)


class Slowing:
    """Counts, and lowers the rate; saves nothing itself."""

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self.optimizer = optimizer
        self.seen = 0
        self.sums: dict[str, list[float]] = collections.defaultdict(list)
        self.average: torch.Tensor | None = None

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        self.seen += 1
        self.sums["loss"].append(float(self.seen))
        new = torch.tensor([self.seen / 2])
        self.average = new if self.average is None else self.average.lerp(new, 0.5)
        factor = len(self.sums["loss"]) + self.average.item()
        self.optimizer.param_groups[0]["lr"] = 0.1 / (1 + factor)


def test_a_callback_without_a_state_dict_goes_on_counting(tmp_path):
    def make() -> dict[str, Any]:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return {"model": model, "optimizer": optimizer, "callbacks": [Slowing(optimizer)]}

    assert_resumes_exactly(make, tmp_path)


class Sharpness(torch.optim.Optimizer):
    """Two steps around another optimizer, whose groups it shares and whose state it forgets."""

    def __init__(self, parameters: Any, **options: Any) -> None:
        super().__init__(parameters, options)
        self.base = torch.optim.SGD(self.param_groups, **options)
        self.param_groups = self.base.param_groups
        self.climbs = 0

    @torch.no_grad()
    def climb(self) -> None:
        self.climbs += 1
        for parameter in self.param_groups[0]["params"]:
            self.state[parameter]["old"] = parameter.clone()
            parameter.add_(parameter.grad, alpha=0.05 / self.climbs)
        self.zero_grad()

    @torch.no_grad()
    def descend(self) -> None:
        for parameter in self.param_groups[0]["params"]:
            parameter.copy_(self.state[parameter]["old"])
        self.base.step()
        self.zero_grad()


class Lookahead(torch.optim.Optimizer):
    """Keeps slow weights in a list of its own, and steps another optimizer."""

    def __init__(self, base: torch.optim.Optimizer) -> None:
        super().__init__(base.param_groups, base.defaults)
        self.base, self.count = base, 0
        self.param_groups = base.param_groups
        self.slow = [p.detach().clone() for p in self.param_groups[0]["params"]]

    @torch.no_grad()
    def advance(self) -> None:
        self.base.step()
        self.count += 1
        if self.count % 3 == 0:
            for slow, parameter in zip(self.slow, self.param_groups[0]["params"], strict=True):
                slow.lerp_(parameter, 0.5)
                parameter.copy_(slow)


def looped(folder: Path, kind: str, *, epochs: int) -> None:
    model = network()
    if kind == "sharpness":
        optimizer: Any = Sharpness(model.parameters(), lr=0.05, momentum=0.9)
    else:
        optimizer = Lookahead(torch.optim.Adam(model.parameters(), lr=0.01))
    run = colabkit.Run(folder, model=model, optimizer=optimizer, progress=False, save_every=1)
    for _ in run.epochs(epochs):
        for x, y in run.batches(arrays(), batch_size=8):
            nn.functional.cross_entropy(model(x), y).backward()
            if kind == "sharpness":
                optimizer.climb()
                nn.functional.cross_entropy(model(x), y).backward()
                optimizer.descend()
            else:
                optimizer.advance()
                model.zero_grad()
        assert optimizer.param_groups is optimizer.base.param_groups


def test_optimizers_within_optimizers_go_on(tmp_path):
    for kind in ("sharpness", "lookahead"):
        looped(tmp_path / kind / "alone", kind, epochs=3)
        for epochs in (1, 2, 3):
            looped(tmp_path / kind / "resumed", kind, epochs=epochs)
        alone, resumed = (hashes(tmp_path / kind / each) for each in ("alone", "resumed"))
        assert resumed == alone


class Phase(enum.Enum):
    """Where a schedule of one's own stands."""

    WARM = 0
    FULL = 1


@dataclasses.dataclass
class Carried:
    """What a model carries from batch to batch."""

    mean: torch.Tensor
    count: int = 0
    phase: Phase = Phase.WARM


class Carrying(nn.Module):
    """Keeps dataclasses, in an attribute and in containers, and walks through phases."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.own = Carried(torch.zeros(6))
        self.past: collections.deque[Carried] = collections.deque(maxlen=2)
        self.by_phase: dict[Phase, list[float]] = {Phase.WARM: [], Phase.FULL: []}
        self.phase = Phase.WARM

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.own.count += 1
        self.own.mean = self.own.mean.lerp(x.detach().mean(0), 0.5)
        self.phase = self.own.phase = Phase.FULL if self.own.count > 4 else Phase.WARM
        self.by_phase[self.phase].append(float(len(x)))
        shift = sum(each.mean * each.count for each in self.past)
        self.past.append(dataclasses.replace(self.own))
        scale = 1 + len(self.by_phase[Phase.FULL]) + self.phase.value
        return self.body(x + self.own.mean + 0.01 * shift) / scale


def test_dataclasses_and_enums_that_a_model_keeps_go_on(tmp_path):
    assert_resumes_exactly(lambda: {"model": Carrying()}, tmp_path)


class Ranks:
    """A library's settings, beside something of no use to anybody else."""

    __module__ = "numpy"

    def __init__(self) -> None:
        self.kept: list[bool] | None = None
        self.token = object()


class Allocator:
    """Averages how much weights matter, as PEFT's AdaLoRA does, and forgets it in the end."""

    __module__ = "numpy"

    def __init__(self) -> None:
        self.ranks = Ranks()
        self.steps = 0
        self.means: dict[str, torch.Tensor] = {}

    def update(self, x: torch.Tensor) -> torch.Tensor:
        self.steps += 1
        if self.steps > 10:
            self.means = {}
        else:
            self.means["x"] = 0.8 * self.means.get("x", torch.zeros(6)) + 0.2 * x.detach().mean(0)
        if self.steps == 6:
            self.ranks.kept = (self.means["x"] > 0).tolist()
        ranks = torch.tensor([0.5 + each for each in self.ranks.kept or [True]])
        return (ranks + self.means.get("x", 0.0)) / self.steps


class Allocating(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.allocator = Allocator()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x * self.allocator.update(x))


def test_tensors_that_an_object_of_a_library_gathers_for_a_model_go_on(tmp_path):
    reasons = []

    class Asking:
        def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
            reasons.extend(run.verdict.reasons)

    def make() -> dict[str, Any]:
        return {"model": Allocating(), "callbacks": [Asking()], "save_every": 1}

    assert_resumes_exactly(make, tmp_path)
    assert not reasons


class Warmth:
    """Counts for a library, as schedules of noise do, and holds what nobody saves."""

    __module__ = "numpy"

    def __init__(self) -> None:
        self.steps, self.least, self.start_s = 0, None, 7.5
        self.lock, self.ranks = threading.Lock(), Ranks()

    def scale(self, x: torch.Tensor) -> float:
        self.steps += 1
        self.least = min(self.least or 9.0, x.mean().item())
        return self.least + 1 / self.steps


class Warming(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.warmth = Warmth()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x * self.warmth.scale(x))


def test_numbers_that_an_object_of_a_library_counts_for_a_model_go_on(tmp_path):
    assert_resumes_exactly(lambda: {"model": Warming()}, tmp_path)


def test_numbers_of_a_librarys_object_that_training_leaves_alone_are_the_notebooks_own(tmp_path):
    model = Warming()
    trained(tmp_path, {"model": model, "epochs": 1})
    again = Warming()
    again.warmth.start_s = 8.5
    trained(tmp_path, {"model": again, "epochs": 1})
    assert (again.warmth.steps, again.warmth.start_s) == (model.warmth.steps, 8.5)


class Averaging:
    """Keeps averaged copies of a model, made at its first batch, as it begins, or before."""

    def __init__(self, model: nn.Module, made: str) -> None:
        self.model, self.made = model, made
        self.mean = copy.deepcopy(model) if made == "before" else None

    def on_train_begin(self, run: Any) -> None:
        if self.made == "as it begins":
            self.mean = copy.deepcopy(self.model)

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if self.mean is None:
            self.mean = copy.deepcopy(self.model)
        with torch.no_grad():
            for mean, now in zip(self.mean.parameters(), self.model.parameters(), strict=True):
                mean.lerp_(now, 0.1)
                now.lerp_(mean, 0.01)


@pytest.mark.parametrize("made", ["before", "as it begins", "at its first batch"])
def test_averaged_copies_that_a_callback_keeps_go_on(made, tmp_path):
    kept = []

    def make() -> dict[str, Any]:
        model = network()
        callback = Averaging(model, made)
        kept.append(callback)
        return {"model": model, "callbacks": [callback]}

    assert_resumes_exactly(make, tmp_path)
    alone, _, resumed = (callback.mean.state_dict() for callback in kept)
    assert all(torch.equal(resumed[name], each) for name, each in alone.items())


class Gathering:
    """Keeps copies of a model in a list, a dict and a queue, and the newest under a name."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.newest = model, None
        self.best: list[nn.Module] = []
        self.by_step: dict[int, nn.Module] = {}
        self.last: collections.deque[nn.Module] = collections.deque(maxlen=2)

    def every(self) -> list[nn.Module]:
        return [*self.best, *self.by_step.values(), *self.last]

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if step % 2 == 0:
            self.newest = self.by_step[step] = copy.deepcopy(self.model)
            self.best = [*self.best, copy.deepcopy(self.model)][-2:]
            self.last.append(copy.deepcopy(self.model).eval())
        with torch.no_grad():
            for each in (*self.every(), *filter(None, [self.newest])):
                self.model[0].bias += each(torch.ones(2, 6)).mean() * 0.01
            if self.newest is not None:
                next(self.newest.parameters()).mul_(0.9)


def test_copies_of_a_model_in_lists_and_dicts_go_on(tmp_path):
    kept = []

    def make() -> dict[str, Any]:
        model = network()
        kept.append(Gathering(model))
        return {"model": model, "callbacks": [kept[-1]]}

    assert_resumes_exactly(make, tmp_path)
    alone, resumed = kept[0].every(), kept[2].every()
    assert len(alone) == len(resumed) == 13
    for one, other in zip(alone, resumed, strict=True):
        assert all(map(torch.equal, one.state_dict().values(), other.state_dict().values()))
    assert kept[2].newest is kept[2].by_step[18]


class Pairing:
    """Keeps copies of a model where no path leads that a resume could go."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.pairs = model, []

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        self.pairs.append((step, copy.deepcopy(self.model)))


def test_copies_that_cannot_be_put_back_are_named(tmp_path):
    model = network()
    options = {**QUIET, "epochs": 1, "save_every": 1}
    history = colabkit.fit(model, arrays(), tmp_path, callbacks=[Pairing(model)], **options)
    assert any("Pairing.pairs[0][1]" in reason for reason in history.verdict.reasons)


class Foreign:
    """Keeps what is no plain value, and changes it: an iterator, and a library's object."""

    def __init__(self) -> None:
        self.numbers = iter(range(100))
        self.fractions = [fractions.Fraction(1)]
        self.bar: Any = None

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        self.numbers = itertools.chain([step], self.numbers)
        self.fractions.append(self.fractions[-1] / 2)
        self.bar = io.StringIO()


def test_what_changes_and_cannot_be_saved_is_named_in_every_session(tmp_path):
    for epochs in (1, 2):
        history = colabkit.fit(
            network(), arrays(), tmp_path, callbacks=[Foreign()], epochs=epochs, progress=False,
            save_every=1,
        )  # fmt: skip
        named = [each.partition(" (")[0] for each in history.verdict.reasons]
        assert named == ["callback 0 Foreign.numbers", "callback 0 Foreign.fractions"]


@pytest.mark.parametrize(
    "make", [lambda: (0.9**n for n in range(99)), lambda: itertools.cycle([0.1, 0.2])]
)
def test_an_iterator_from_which_a_callback_takes_is_named_from_the_first_step_on(make, tmp_path):
    said = []

    class Taking:
        def __init__(self) -> None:
            self.rates = make()

        def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
            said.append(run.verdict.reasons)
            next(self.rates)

    colabkit.fit(network(), arrays(), tmp_path, callbacks=[Taking()], epochs=1, progress=False)
    assert [each.partition(" (")[0] for each in said[0]] == ["callback 0 Taking.rates"]


def test_what_nobody_changes_leaves_the_verdict_exact(tmp_path):
    class Owning:
        def __init__(self) -> None:
            self.text, self.lines = io.StringIO(), range(100)
            self.lock, self.table = threading.Lock(), {"a": object()}

        def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
            self.text.write(f"{step}\n")

    history = colabkit.fit(
        network(), arrays(), tmp_path, callbacks=[Owning()], epochs=2, progress=False, save_every=1
    )
    assert not history.verdict.reasons


class Watching(nn.Module):
    """Keeps its activations, as models do whose attention is to be looked at."""

    def __init__(self, copies: int) -> None:
        super().__init__()
        self.body, self.copies = network(), copies

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.seen = x.new_ones(self.copies, requires_grad=True) * 2
        return self.body(x)


@pytest.mark.parametrize(("copies", "is_saved"), [(1 << 10, True), (5 << 20, False)])
def test_activations_are_saved_up_to_a_size_and_named_above(copies, is_saved, tmp_path):
    data, options = arrays(), {"progress": False, "save_every": 4, "batch_size": 16}
    history = colabkit.fit(Watching(copies), data, tmp_path, epochs=2, **options)
    saved = "objects.modules.model.python.values..seen" in hashes(tmp_path)
    assert saved is is_saved
    named = history.verdict.reasons
    assert named == (
        () if is_saved else ("model.seen (Tensor) changes in training and cannot be saved",)
    )


class Shadowing:
    """Keeps copies that are parameters themselves, in a list and under a name; and a metric."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.shadow = copy.deepcopy(list(model.parameters()))
        self.heat = nn.Parameter(torch.ones(()))
        self.own = list(model.parameters())
        self.recall, self.found = ClassRecall(), []

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        x, y = arrays()
        self.recall.update(self.model(x), y)
        with torch.no_grad():
            self.heat.mul_(0.9)
            for shadow, parameter in zip(self.shadow, self.own, strict=True):
                shadow.lerp_(parameter, 0.1 * self.heat)
                parameter.lerp_(shadow, 0.01)

    def on_epoch_end(self, run: Any, epoch: int, logs: Any) -> None:
        self.found.append(self.recall.compute()["mean"].item())
        self.recall.reset()


def test_copies_of_weights_and_metrics_that_a_callback_keeps_go_on(tmp_path):
    kept = []

    def make() -> dict[str, Any]:
        model = network()
        kept.append(Shadowing(model))
        return {"model": model, "callbacks": [kept[-1]]}

    assert_resumes_exactly(make, tmp_path)
    alone, _, resumed = kept
    assert all(map(torch.equal, alone.shadow, resumed.shadow))
    assert resumed.found == alone.found
    assert resumed.heat == alone.heat


class Guided:
    """Takes a copy that was there before for its guide, after some steps."""

    def __init__(self, model: nn.Module) -> None:
        self.model, self.teacher = model, copy.deepcopy(model)
        self.guide: nn.Module | None = None

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if step == 2:
            self.guide = self.teacher
        if self.guide is not None:
            with torch.no_grad():
                others = self.guide.parameters()
                for own, other in zip(self.model.parameters(), others, strict=True):
                    own.lerp_(other, 0.1)


def test_a_second_name_for_a_copy_that_never_changes_goes_on(tmp_path):
    def make() -> dict[str, Any]:
        model = network()
        return {"model": model, "callbacks": [Guided(model)]}

    assert_resumes_exactly(make, tmp_path)


class Odd(nn.Module):
    """Keeps tensors of forms that no file knows, or that count no changes."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.seen, self.short = torch.zeros(6), torch.zeros(6).to(torch.float8_e4m3fnuz)
        self.empty = torch.empty(2, device="meta")

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        with torch.inference_mode():
            self.seen = self.seen * 0.5 + x.mean(0)
        self.short = (self.short.float() + 1).to(torch.float8_e4m3fnuz)
        self.empty = self.empty + 1
        return self.body(x + self.seen.clone())


def test_tensors_of_forms_that_cannot_be_stored_are_named_and_others_go_on(tmp_path):
    assert_resumes_exactly(lambda: {"model": Odd()}, tmp_path)
    history = colabkit.fit(
        Odd(), arrays(), tmp_path / "named", epochs=2, progress=False, save_every=2
    )
    named = [each.partition(" (")[0] for each in history.verdict.reasons]
    assert named == ["model.short", "model.empty"]


class Judging:
    """Makes a network of its own at its first batch, which no resume can make again."""

    def __init__(self) -> None:
        self.judge: nn.Module | None = None

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        self.judge = self.judge or nn.Linear(3, 1)


def test_a_network_that_a_callback_makes_in_mid_run_is_named(tmp_path):
    history = colabkit.fit(
        network(), arrays(), tmp_path, callbacks=[Judging()], epochs=2, progress=False, save_every=1
    )
    (said,) = history.verdict.reasons
    assert said == "callback 0 Judging.judge (Linear) changes in training and cannot be saved"


class Holding:
    """Holds the run that it is called with, and what that has noted."""

    def on_train_begin(self, run: Any) -> None:
        self.run, self.history = run, run.history


def test_a_callback_that_holds_the_run_loses_nothing(tmp_path):
    for epochs in (2, 3):
        history = colabkit.fit(
            network(),
            arrays(),
            tmp_path,
            callbacks=[Holding()],
            epochs=epochs,
            progress=False,
            save_every=1,
        )
        assert history.verdict is not None
        assert not history.verdict.reasons


class Share:
    """A metric that gathers what it counts in a list, and has no state of its own."""

    def __init__(self) -> None:
        self.hits: list[torch.Tensor] = []

    def update(self, output: torch.Tensor, target: torch.Tensor) -> None:
        self.hits.append(output.argmax(1) == target)

    def compute(self) -> torch.Tensor:
        return torch.cat(self.hits).float().mean()

    def reset(self) -> None:
        self.hits = []


class WarmingUp:
    """A schedule around another, as many have written one."""

    def __init__(self, optimizer: torch.optim.Optimizer, steps: int) -> None:
        self.optimizer, self.steps, self.taken = optimizer, steps, 0
        self.rate = optimizer.param_groups[0]["lr"]
        self.behind = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)

    def step(self) -> None:
        self.taken += 1
        if self.taken > self.steps:
            self.behind.step()
        else:
            self.optimizer.param_groups[0]["lr"] = self.rate * self.taken / self.steps


def test_a_metric_and_a_schedule_without_a_state_of_their_own_go_on(tmp_path):
    told = []

    def make() -> dict[str, Any]:
        model = network()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.5)
        schedule = WarmingUp(optimizer, 4)
        told.append(schedule)
        return {
            "model": model,
            "optimizer": optimizer,
            "scheduler": (schedule, "step"),
            "metrics": {"share": Share()},
        }

    assert_resumes_exactly(make, tmp_path)
    shares = []
    for name in ("alone", "broken"):  # all is trained: that gives the history
        made = make()
        model = made.pop("model")
        history = colabkit.fit(model, arrays(), tmp_path / name, **QUIET, **made)
        shares.append(history["share"])
    assert shares[0] == shares[1]
    assert [each.taken for each in told[:3]] == [18, 9, 18]
