"""What the user passes to optimizers and schedulers, which a checkpoint must not undo."""

from __future__ import annotations

import copy
import dataclasses
import numbers
import warnings
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch.optim import lr_scheduler

from colabkit.errors import ArgumentError
from colabkit.frameworks.attributes import Attributes
from colabkit.frameworks.code_variables import CodeVariables
from colabkit.frameworks.plain_values import PlainValues
from colabkit.frameworks.torch.code_memory import rates_of
from colabkit.frameworks.torch.completed import complete_state

# What a scheduler's steps change; the rest of its state is as it was made.
_MOVING = frozenset(
    {
        "_get_lr_called_within_step", "_is_initial", "_last_lr", "_step_count", "base_lrs", "best",
        "cooldown_counter", "last_epoch", "num_bad_epochs",
    }
)  # fmt: skip
_NO_SETTINGS = frozenset({"params", "initial_lr"})


@dataclasses.dataclass(frozen=True, slots=True)
class Schedule:
    """What a checkpoint says of a schedule that may be another one now.

    Attributes:
        kind: The name of its class.
        steps: How often it has stepped.
    """

    kind: str
    steps: int = 0

    @classmethod
    def of_state(cls, kind: str, state: Any) -> Schedule:
        """Returns what a schedule's kept state says."""
        return cls(kind, _steps_of(state))


def kinds_of(objects: Mapping[str, Any]) -> dict[str, str]:
    """Returns the names of the classes of those that are schedules, by name."""
    kinds = (lr_scheduler.LRScheduler, lr_scheduler.ReduceLROnPlateau)
    return {n: type(each).__name__ for n, each in objects.items() if isinstance(each, kinds)}


def exchanged_in(objects: Mapping[str, Any], then: Mapping[str, str]) -> frozenset[str]:
    """Returns the names of the schedules that are of another kind than ``then``."""
    now = kinds_of(objects).items()
    return frozenset(name for name, kind in now if then.get(name, kind) != kind)


def _steps_of(state: Any) -> int:
    """Returns the place of a schedule by its state, or by that of the first within it."""
    if not isinstance(state, Mapping):
        return 0
    within = state.get("_schedulers")
    if "last_epoch" not in state and isinstance(within, list | tuple) and within:
        return _steps_of(within[0])
    place = state.get("last_epoch", 0)
    return place if isinstance(place, int) else 0


class PassedSettings:
    """The settings of a run's optimizers and schedulers as they were made in this session.

    A person who passes another learning rate at a resume means it: what differs from what was
    passed in the session before is taken, and everything else comes from the checkpoint.

    Args:
        optimizers: By name, before anything is restored.
        others: Objects by name, schedulers among them.
    """

    def __init__(
        self, optimizers: Mapping[str, torch.optim.Optimizer], others: Mapping[str, Any]
    ) -> None:
        self._optimizers = optimizers
        self._schedulers = {name: others[name] for name in kinds_of(others)}
        self._groups = {
            name: [_settings(group) for group in optimizer.param_groups]
            for name, optimizer in optimizers.items()
        }
        self._fresh = {name: copy.deepcopy(s.state_dict()) for name, s in self._schedulers.items()}
        self._kinds = kinds_of(self._schedulers)
        self._code = {
            name: Attributes(CodeVariables(rates_of(each)), PlainValues(), names_lost=False)
            for name, each in self._schedulers.items()
        }
        self.values: dict[str, Any] = {
            **{name: [_passed_in(group) for group in self._groups[name]] for name in optimizers},
            **{name: _plain(state) for name, state in self._fresh.items()},
        }

    def now(self) -> dict[str, Any]:
        """Returns the settings that the optimizers have at this moment, by name and group."""
        return {
            name: [
                {key: _plain(value) for key, value in group.items() if key not in _NO_SETTINGS}
                for group in optimizer.param_groups
            ]
            for name, optimizer in self._optimizers.items()
        }

    def undone(self, restored: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns what is set otherwise than ``restored`` and comes back to that, a phrase each."""
        said = []
        for name, groups in self.now().items():
            for place, pair in enumerate(zip(restored[name], groups, strict=False)):
                where = f"{name}, group {place}" if len(groups) > 1 else name
                said += [_phrase(key, where, now, then) for key, (then, now) in _differing(*pair)]
        return tuple(said)

    def take(
        self, then: Mapping[str, Any], schedules: Mapping[str, Schedule] | None = None
    ) -> tuple[str, ...]:
        """Puts what is passed otherwise than ``then`` into the restored objects.

        Args:
            then: What was passed in the session before.
            schedules: Which schedules the checkpoint holds, by name; None where it does not say.

        Returns:
            What was taken, a phrase each: "lr of optimizer 0.1 → 0.01".
        """
        said: list[str] = []
        for name, scheduler in self._schedulers.items():
            kept = Schedule(self._kinds[name]) if schedules is None else schedules.get(name)
            owner = self._owner_of(scheduler)
            rates = self._take_groups(owner, then) if owner is not None else []
            if kept is None or kept.kind != self._kinds[name]:
                said += [f"{name} {kept.kind if kept else 'none'} → {self._kinds[name]}", *rates]
                if kept is not None:
                    self._begin_again(name, owner, then, done=kept.steps)
                continue
            changed = dict(_differing(then.get(name), self.values[name]))
            said += [_phrase(key, name, *pair) for key, pair in changed.items()]
            said += rates
            if changed or any(phrase.startswith("lr ") for phrase in rates):
                self._begin_again(name, owner, then)
            elif self._is_another(name):
                said.append(f"the schedule of {name}")
                self._begin_again(name, owner, then)
        gone = [name for name in schedules or {} if name not in self._schedulers]
        said += [f"{name} none, so the rate stays as it is" for name in gone]
        owned = {id(scheduler.optimizer) for scheduler in self._schedulers.values()}
        for name, optimizer in self._optimizers.items():
            if id(optimizer) not in owned:
                said += self._take_groups(name, then)
        return tuple(dict.fromkeys(said))

    def begin_at(self, name: str, steps: int) -> None:
        """Moves a schedule, as it was made, to the place after so many steps of its own."""
        scheduler = self._schedulers.get(name)
        if scheduler is not None:
            first = _steps_of(self._fresh[name])
            self._begin_again(name, self._owner_of(scheduler), {}, done=first + steps)

    def _owner_of(self, scheduler: Any) -> str | None:
        of_all = self._optimizers.items()
        return next((name for name, each in of_all if each is scheduler.optimizer), None)

    def _take_groups(self, name: str, then: Mapping[str, Any]) -> list[str]:
        said = []
        groups = self._optimizers[name].param_groups
        for place, (group, now) in enumerate(zip(groups, self._groups[name], strict=False)):
            before = then.get(name, [])[place] if place < len(then.get(name, [])) else {}
            for key, pair in _differing(before, self.values[name][place]):
                _set(group, key, now.get("initial_lr", now.get("lr")) if key == "lr" else now[key])
                where = f"{name}, group {place}" if len(groups) > 1 else name
                said.append(_phrase(key, where, *pair))
        if said:
            complete_state(self._optimizers[name])
        return said

    def _begin_again(
        self, name: str, owner: str | None, then: Mapping[str, Any], *, done: int | None = None
    ) -> None:
        """Moves a schedule, as it is made now, to the place that the restored one had.

        Args:
            name: The schedule.
            owner: Its optimizer's name.
            then: What was passed in the session before.
            done: The place of another schedule than the restored one.
        """
        scheduler = self._schedulers[name]
        if isinstance(scheduler, lr_scheduler.ReduceLROnPlateau):
            if done is None:
                self._scale(name, owner, then)
            return
        reached = _steps_of(scheduler.state_dict()) if done is None else done
        steps = reached - _steps_of(self._fresh[name])
        scheduler.load_state_dict(copy.deepcopy(self._fresh[name]))
        groups = self._optimizers[owner].param_groups if owner is not None else []
        for group, fresh in zip(groups, self._groups[owner or name] if groups else [], strict=True):
            for key, value in fresh.items():
                _set(group, key, value)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # that the optimizer has not stepped yet
            try:
                for _ in range(steps):
                    scheduler.step()
            except ValueError as error:
                message = f"{name} is shorter now than what is trained already: {error}."
                hint = 'Make it as long as before at least, or begin anew with resume="weights".'
                raise ArgumentError(message, argument=name, hint=hint) from error

    def _is_another(self, name: str) -> bool:
        """Whether a schedule's functions are others than those of the session before.

        A rate that depends on what training changes, or on how often it was asked, says nothing.
        """
        if self._code[name].state_dict():
            return False
        put_back = self._code[name].as_now()
        is_another = _gives_other_rate(self._schedulers[name])
        is_lasting = not self._code[name].state_dict()
        put_back()
        return is_another and is_lasting

    def _scale(self, name: str, owner: str | None, then: Mapping[str, Any]) -> None:
        """Plateaus follow what was seen: their rate is reduced as often as before."""
        scheduler = self._schedulers[name]
        for key, _ in _differing(then.get(name), self.values[name]):
            if hasattr(scheduler, key):
                setattr(scheduler, key, self._fresh[name][key])
        if owner is None:
            return
        groups = self._optimizers[owner].param_groups
        reduced = scheduler._last_lr
        for place, group in enumerate(groups):
            before = then.get(owner, [])
            if place < len(before) and place < len(reduced) and before[place].get("lr"):
                now = self.values[owner][place]["lr"]
                _set(group, "lr", now * (float(reduced[place]) / before[place]["lr"]))


def _settings(group: Mapping[str, Any]) -> dict[str, Any]:
    return {
        key: value.item() if isinstance(value, torch.Tensor) else copy.copy(value)
        for key, value in group.items()
        if key != "params" and (value is None or _plain(value) is not None)
    }


def _passed_in(group: Mapping[str, Any]) -> dict[str, Any]:
    """Returns a group's settings before a scheduler changed the rate."""
    plain = {key: _plain(value) for key, value in group.items() if key != "initial_lr"}
    return {**plain, "lr": _plain(group.get("initial_lr", group.get("lr")))}


def _plain(value: Any) -> Any:
    """Returns what JSON can hold of a setting, None for what is none."""
    if isinstance(value, torch.Tensor):
        return value.item() if value.numel() == 1 else None
    if isinstance(value, bool | str):
        return value
    if isinstance(value, numbers.Number) and not isinstance(value, complex):
        return value if isinstance(value, int) else float(value)  # type: ignore[arg-type]
    if isinstance(value, list | tuple):
        return [_plain(each) for each in value]
    if isinstance(value, Mapping):
        kept = {str(key): _plain(each) for key, each in value.items() if key not in _MOVING}
        return {key: each for key, each in kept.items() if each is not None}
    return None


def _differing(then: Any, now: Mapping[str, Any]) -> Iterator[tuple[str, tuple[Any, Any]]]:
    """Yields the settings that both know and that are not the same."""
    for key, value in now.items():
        if isinstance(then, Mapping) and key in then and then[key] != value:
            yield key, (then[key], value)


def _gives_other_rate(scheduler: Any) -> bool:
    """Whether functions that no checkpoint holds give another rate for the place restored."""
    if type(scheduler) is not lr_scheduler.LambdaLR or scheduler.last_epoch < 0:
        return False
    now = [
        base * function(scheduler.last_epoch)
        for base, function in zip(scheduler.base_lrs, scheduler.lr_lambdas, strict=True)
    ]
    return bool(now != list(scheduler._last_lr))


def _set(group: dict[str, Any], key: str, value: Any) -> None:
    there = group.get(key)
    if isinstance(there, torch.Tensor) and not isinstance(value, torch.Tensor):
        there.fill_(value)
    else:
        group[key] = value


def _phrase(key: str, where: str, then: Any, now: Any) -> str:
    if isinstance(now, int | float | str) and not key.startswith("_"):
        return f"{key} of {where} {then} → {now}"
    if key == "lr_lambdas" or key.startswith("_"):
        return f"the schedule of {where}"
    return f"{key} of {where}"
