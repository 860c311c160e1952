"""What a loop changes of PyTorch where its source does not tell is named once it has changed."""

from __future__ import annotations

import contextlib
import functools
import importlib
import io
import weakref
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import colabkit
from tests import abilities

X = torch.arange(12.0).reshape(6, 2) / 10


class Trainer:
    """A model, and what trains and follows it."""

    def __init__(self) -> None:
        torch.manual_seed(3)
        self.model = nn.Linear(2, 1)
        self.optimizers = {
            "often": torch.optim.SGD(self.model.parameters(), lr=0.1),
            "seldom": torch.optim.Adam(self.model.parameters(), lr=0.1),
        }
        self.teacher = nn.Linear(2, 1).requires_grad_(requires_grad=False)
        self.schedules = [torch.optim.lr_scheduler.StepLR(self.optimizers["often"], 2)]

    def step(self, x: torch.Tensor, name: str = "often") -> None:
        self.optimizers[name].zero_grad()
        (self.model(x) - self.teacher(x)).pow(2).sum().backward()
        self.optimizers[name].step()


def seldom(trainer: Trainer, run: Any, x: torch.Tensor) -> None:
    trainer.step(x, "seldom" if run.epoch else "often")


def averages(trainer: Trainer, run: Any, x: torch.Tensor) -> None:
    trainer.step(x)
    own, others = (list(each.parameters()) for each in (trainer.teacher, trainer.model))
    with torch.no_grad():
        torch._foreach_lerp_(own, others, 0.1)


def averages_uncounted(trainer: Trainer, run: Any, x: torch.Tensor) -> None:
    trainer.step(x)
    states = (each.state_dict().values() for each in (trainer.teacher, trainer.model))
    for own, other in zip(*states, strict=True):
        own.data.mul_(0.9).add_(other, alpha=0.1)


def schedules(trainer: Trainer, run: Any, x: torch.Tensor) -> None:
    trainer.step(x)
    for each in trainer.schedules if run.epoch else ():
        each.step()


def trained(folder: Path, trainer: Trainer, change: Any, **more: Any) -> Any:
    more = {"progress": False, "optimizer": trainer.optimizers["often"], **more}
    run = colabkit.Run(folder, model=trainer.model, save_every=1, **more)
    for _ in run.epochs(2):
        for x in run.batches(X, batch_size=2):
            change(trainer, run, x)
    return run


@pytest.mark.parametrize(
    ("change", "path", "name"),
    [
        (seldom, "trainer.optimizers['seldom']", "optimizers_seldom"),
        (averages, "trainer.teacher", "teacher"),
        (averages_uncounted, "trainer.teacher", "teacher"),
        (schedules, "trainer.schedules[0]", "schedules_0"),
    ],
)
def test_what_changes_is_named_when_it_does_and_in_later_sessions(change, path, name, tmp_path):
    trainer = Trainer()
    with contextlib.redirect_stdout(io.StringIO()) as said:
        run = trained(tmp_path, trainer, change, progress=True)
    first, *_ = [line for line in said.getvalue().splitlines() if line.startswith("Resume is")]
    assert first.startswith("Resume is exact")
    reason = f"the loop's {path} begins anew at a resume: pass {name}={path} to Run"
    assert run.verdict.reasons == (reason,)
    assert f"Resume is approximate: {reason}." in said.getvalue()
    objects = {"model": trainer.model, "optimizer": trainer.optimizers["often"]}
    again = colabkit.Run(tmp_path, progress=False, **objects)
    assert again.verdict.reasons == (reason,)


def test_an_optimizer_that_a_later_epoch_makes_is_named(tmp_path):
    trainer = Trainer()
    run = colabkit.Run(tmp_path, model=trainer.model, progress=False, save_every=1)
    for epoch in run.epochs(3):
        if epoch == 1:
            late = torch.optim.Adam(trainer.model.parameters(), lr=0.1)
        for x in run.batches(X, batch_size=2):
            if epoch:
                trainer.model(x).sum().backward()
                late.step()
    (reason,) = run.verdict.reasons
    assert "the loop's late begins anew at a resume: pass late=late to Run" in reason


MEMORY = """
ROWS = []
def push(row):
    ROWS.append(row)
def newest():
    return ROWS[-3:]
"""


def test_a_pool_that_functions_of_a_module_share_is_named_before_the_first_step(
    tmp_path, monkeypatch
):
    folder = tmp_path / "lib" / "python"
    folder.mkdir(parents=True)
    (folder / "memory_of_a_test.py").write_text(MEMORY)
    monkeypatch.syspath_prepend(folder)
    memory, trainer = importlib.import_module("memory_of_a_test"), Trainer()
    objects = {"model": trainer.model, "optimizer": trainer.optimizers["often"]}
    run = colabkit.Run(tmp_path / "run", progress=False, **objects)
    for x in run.batches(X, batch_size=2):
        memory.push(x)
        trainer.step(torch.cat(memory.newest()))
    said = (
        "the loop's push:ROWS begins anew at a resume: keep it, where it is made, with"
        " run.state(ROWS=ROWS)"
    )
    assert run.history.verdict.reasons == (said,)


class Around:
    """Saves what it holds, and is no module."""

    def __init__(self, teacher: nn.Module) -> None:
        self.parts = {"teacher": teacher}

    def state_dict(self) -> dict[str, Any]:
        return self.parts["teacher"].state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.parts["teacher"].load_state_dict(state)


@pytest.mark.parametrize("way", ["by name", "kept", "within an object"])
def test_what_is_passed_in_whatever_way_is_not_named(way, tmp_path):
    trainer = Trainer()
    more: dict[str, Any] = {"teacher": trainer.teacher} if way == "by name" else {}
    if way == "within an object":
        more = {"around": Around(trainer.teacher)}
    run = colabkit.Run(
        tmp_path,
        model=trainer.model,
        optimizer=trainer.optimizers["often"],
        save_every=1,
        progress=False,
        **more,
    )
    if way == "kept":
        run.state(teacher=trainer.teacher)
    for _ in run.epochs(2):
        for x in run.batches(X, batch_size=2):
            averages(trainer, run, x)
    assert run.verdict.reasons == ()


class Delegating:
    """A library's schedule around another one, as Accelerate's is."""

    __module__ = "numpy"

    def __init__(self, scheduler: Any) -> None:
        self.scheduler = scheduler

    def step(self) -> None:
        self.scheduler.step()

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict()

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.scheduler.load_state_dict(state)


class Counting(Delegating):
    """A library's schedule around another one, which is put off."""

    __module__ = "numpy"

    def __init__(self, scheduler: Any) -> None:
        super().__init__(scheduler)
        self.steps = 0

    def step(self) -> None:
        self.steps += 1
        if self.steps > 2:
            super().step()

    def state_dict(self) -> dict[str, Any]:
        return {"steps": self.steps, "after": super().state_dict()}


class CountingInSecret(Counting):
    """A schedule of the user's own that leaves its count out of its state."""

    def state_dict(self) -> dict[str, Any]:
        return self.scheduler.state_dict()


@pytest.mark.parametrize(
    ("kind", "is_named"), [(Delegating, False), (Counting, True), (CountingInSecret, True)]
)
def test_a_schedule_around_one_of_the_runs_is_named_where_it_may_count_itself(
    kind, is_named, tmp_path
):
    trainer = Trainer()
    around = kind(trainer.schedules[0])
    run = colabkit.Run(
        tmp_path,
        model=trainer.model,
        optimizer=trainer.optimizers["often"],
        schedule=trainer.schedules[0],
        progress=False,
    )
    for x in run.batches(X, batch_size=2):
        trainer.step(x)
        around.step()
    said = "the loop's around begins anew at a resume: pass around=around to Run"
    assert run.verdict.reasons == ((said,) if is_named else ())


@pytest.mark.needs(abilities.trainer("accelerate"))
def test_what_accelerate_has_prepared_is_held_where_the_run_has_what_is_within(tmp_path):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=2)
    trainer = Trainer()
    model, optimizer, schedule = accelerator.prepare(
        trainer.model, trainer.optimizers["often"], trainer.schedules[0]
    )
    run = colabkit.Run(
        tmp_path,
        model=model,
        optimizer=optimizer.optimizer,
        schedule=schedule.scheduler,
        progress=False,
    )
    for x in run.batches(X, batch_size=2):
        with accelerator.accumulate(model):
            accelerator.backward(model(x).sum())
            optimizer.step()
            schedule.step()
            optimizer.zero_grad()
    assert run.verdict.reasons == ()


def test_what_is_read_moved_or_given_the_weights_it_has_is_not_named(tmp_path):
    trainer, earlier = Trainer(), Trainer()
    earlier.step(X, "seldom")
    frozen = {name: each.clone() for name, each in trainer.teacher.state_dict().items()}

    def reads(trainer: Trainer, run: Any, x: torch.Tensor) -> None:
        trainer.teacher.double().float()
        with torch.no_grad():
            for name, each in trainer.teacher.named_parameters():
                torch._foreach_copy_([each], [frozen[name]])
        ordered, _ = torch.sort(torch.add(x, earlier.model(x).detach()))
        trainer.step(ordered)

    assert trained(tmp_path, trainer, reads).verdict.reasons == ()


_aside = nn.Linear(2, 1)


def frozen() -> nn.Linear:
    return nn.Linear(2, 1).requires_grad_(requires_grad=False)


def by_closure() -> tuple[nn.Module, Any]:
    teacher = frozen()
    return teacher, lambda: teacher


def by_attribute_of_function() -> tuple[nn.Module, Any]:
    def follow() -> None:
        pass

    follow.teacher = frozen()
    return follow.teacher, follow


def by_default_of_function() -> tuple[nn.Module, Any]:
    teacher = frozen()

    def follow(teacher: nn.Module = teacher) -> nn.Module:
        return teacher

    return teacher, follow


def by_weak_reference() -> tuple[nn.Module, Any]:
    teacher = frozen()
    return teacher, weakref.ref(teacher)


def by_weak_set() -> tuple[nn.Module, Any]:
    teacher = frozen()
    return teacher, weakref.WeakSet([teacher])


def by_generator() -> tuple[nn.Module, Any]:
    def teachers(teacher: nn.Module) -> Iterator[nn.Module]:
        while True:
            yield teacher

    teacher = frozen()
    return teacher, teachers(teacher)


def by_cache(*, size: int | None = None) -> tuple[nn.Module, Any]:
    make = functools.lru_cache(maxsize=size)(frozen)
    return make(), make


def by_private_name() -> tuple[nn.Module, Any]:
    return _aside, None


@pytest.mark.parametrize(
    ("way", "path"),
    [
        (by_closure, "teacher"),
        (by_attribute_of_function, "held.teacher"),
        (by_default_of_function, "teacher"),
        (by_weak_reference, "held()"),
        (by_weak_set, "held[...]"),
        (by_generator, "teacher"),
        (by_cache, "held()"),
        (functools.partial(by_cache, size=4), "held()"),
        (by_private_name, "_aside"),
    ],
)
def test_what_only_code_a_generator_or_a_weak_reference_leads_to_is_named(way, path, tmp_path):
    trainer = Trainer()
    objects = {"model": trainer.model, "optimizer": trainer.optimizers["often"]}
    kept, held = zip(*[way()], strict=True)
    teachers = {0: [each.weight for each in kept]}
    run = named_by(held[0], teachers, objects, tmp_path)
    (reason,) = run.verdict.reasons
    assert reason.startswith(f"the loop's {path} begins anew at a resume: pass ")


def named_by(held: Any, weights: Any, objects: Any, folder: Path) -> Any:
    run = colabkit.Run(folder, save_every=1, progress=False, **objects)
    for x in run.batches(X, batch_size=2):
        objects["model"](x).sum().backward()
        objects["optimizer"].step()
        with torch.no_grad():
            torch._foreach_add_(next(iter(weights.values())), 0.1)
    return run


def rates(trainer: Trainer, run: Any, x: torch.Tensor) -> None:
    trainer.step(x)
    [g.update(lr=g["lr"] / 2) for each in trainer.plain for g in each.param_groups]


def test_an_optimizer_of_which_nothing_but_its_rate_changes_is_named(tmp_path):
    trainer = Trainer()
    trainer.plain = [torch.optim.SGD(trainer.model.parameters(), lr=0.1)]
    (reason,) = trained(tmp_path, trainer, rates).verdict.reasons
    assert reason.startswith("the loop's trainer.plain[0] begins anew at a resume")


POOL = "the loop's pool begins anew at a resume: keep it with run.state(pool=pool)"


def test_a_second_pass_that_trains_is_looked_at_before_its_first_step(tmp_path):
    trainer, pool = Trainer(), []
    objects = {"model": trainer.model, "optimizer": trainer.optimizers["often"]}
    run = colabkit.Run(tmp_path, progress=False, **objects)
    for x in run.batches(X, batch_size=2):
        trainer.step(x)
    for x in run.batches(X, batch_size=2):
        pool.append(x)
        assert run.verdict.reasons == (POOL,)
        trainer.model(torch.cat(pool)).sum().backward()
