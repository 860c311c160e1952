"""What a loop may read between two passes and change in any: metrics, schedules, rates, modes."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping, Sequence
from typing import Any

import torch
from torch import nn

from colabkit.checkpoint import Section, deep_copy
from colabkit.frameworks.estimators import EstimatorState
from colabkit.frameworks.small_copies import small_copies
from colabkit.frameworks.torch.metrics import is_metric
from colabkit.frameworks.torch.restoring import load_other
from colabkit.frameworks.torch.state import TorchState
from colabkit.frameworks.torch.structure import owner_of


@dataclasses.dataclass(frozen=True)
class SmallState:
    """Copies of what is small in a run's objects, but weights and what trains them.

    Attributes:
        others: States of the objects that are neither modules nor optimizers, by name.
        held: The same of those that these and modules keep, by path.
        python: Plain attributes, by the name of the module that was given.
        sums: What metrics and batch normalization have in their ``state_dict``, and buffers of
            the user's own, by module that was given and key.
        settings: Rates and other numbers of the groups of each optimizer.
        names: What of all objects' attributes is shared.
    """

    others: Mapping[str, Any]
    held: Mapping[str, Any]
    python: Mapping[str, Any]
    sums: Mapping[str, Mapping[str, Any]]
    settings: Mapping[str, Any]
    names: str

    @classmethod
    def of(cls, state: TorchState, sections: Sequence[Section]) -> SmallState:
        """Returns copies out of the sections of a save."""
        every = {section.name: section.state for section in sections}
        objects = every["objects"]
        modules, held = objects["modules"], objects["held"]
        others = {
            name: each
            for name, each in objects["others"].items()
            if name not in state.large and not is_data(state.others[name])
        }
        sums, buffers = {}, {}
        for name in modules:
            module = state.modules[name]
            whole = {**every.get(name, {}), **modules[name]["extra"]}
            sums[name] = {k: each for k, each in whole.items() if _is_counted(module, k)}
            own = {k: each for k, each in whole.items() if k not in sums[name]}
            buffers[name] = {k: each for k, each in own.items() if _is_buffer(module, k)}
        python = {name: rest["python"] for name, rest in modules.items()}
        if state.is_sharded:  # nobody puts copies of pieces together
            others, held, python, sums, buffers = {}, {}, {}, {}, {}
        settings = {
            name: [_numbers_of(group) for group in optimizer.param_groups]
            for name, optimizer in state.optimizers.items()
        }
        copies, own_sums = (small_copies(each, torch.is_tensor) for each in (others, buffers))
        # A memory of games may take long to give its state, and is not asked again.
        state.large |= others.keys() - copies.keys()
        return cls(
            copies,
            small_copies(held, torch.is_tensor),
            small_copies(python, torch.is_tensor),
            {
                name: {**each, **own_sums.get(name, {})}
                for name, each in small_copies(sums, torch.is_tensor).items()
            },
            small_copies(settings, torch.is_tensor),
            objects["names"],
        )

    def over(self, sections: Sequence[Section]) -> list[Section]:
        """Returns the sections of a save with these in the place of what they are now."""
        return [self._in(each, self) for each in sections]

    def left_out_of(self, sections: Sequence[Section]) -> list[Section]:
        """Returns the sections of a save without these."""
        nothing = SmallState(
            others=dict.fromkeys(self.others),
            held=dict.fromkeys(self.held),
            python=dict.fromkeys(self.python),
            sums={name: dict.fromkeys(each) for name, each in self.sums.items()},
            settings={n: [dict.fromkeys(g) for g in each] for n, each in self.settings.items()},
            names="",
        )
        return [self._in(each, nothing) for each in sections]

    @staticmethod
    def _in(section: Section, small: SmallState) -> Section:
        state = section.state
        if section.weights:
            own = small.sums.get(section.name, {})
            state = {key: own.get(key, each) for key, each in state.items()}
        elif section.name == "objects":
            modules = {}
            for name, rest in state["modules"].items():
                sums = small.sums.get(name, {})
                extra = {k: sums.get(k, e) for k, e in rest["extra"].items()}
                own = small.python.get(name, rest["python"])
                modules[name] = {**rest, "extra": extra, "python": own}
            state = {
                **state,
                "modules": modules,
                "others": {**state["others"], **small.others},
                "held": {**state["held"], **small.held},
                "names": small.names,
            }
            if "optimizers" in state:
                own = {
                    n: _put(e, small.settings.get(n, ())) for n, e in state["optimizers"].items()
                }
                state["optimizers"] = own
        return dataclasses.replace(section, state=state, form=None)

    def state_dict(self) -> dict[str, Any]:
        """Returns them as plain values and tensors."""
        return {field.name: getattr(self, field.name) for field in dataclasses.fields(self)}


def put_small(state: TorchState, stored: Mapping[str, Any]) -> None:
    """Puts into the objects what ``SmallState.state_dict`` gave; what is not in it stays."""
    kept = deep_copy(dict(stored))
    state.part_names(kept.get("names", ""))
    for name, optimizer in state.optimizers.items():
        settings = kept["settings"].get(name, [])
        for group, then in zip(optimizer.param_groups, settings, strict=False):
            group.update({key: each for key, each in then.items() if key in group})
        # Schedulers ask for that before their own first step; another session has seen to it.
        optimizer._opt_called = True  # type: ignore[attr-defined]
    for name, value in state.others.items():
        if name in kept["others"] and name not in state.exchanged:
            load_other(value, kept["others"][name])
    for name, module in state.modules.items():
        for key, each in kept["sums"].get(name, {}).items():
            owner, own_name = owner_of(module, key)
            if isinstance(owner, nn.Module) and is_metric(owner):
                owner.load_state_dict({own_name: each}, strict=False)
        values = kept["python"].get(name, {}).get("values", {})
        state.put_attributes(name, {p: v for p, v in values.items() if is_metric(_at(module, p))})
    state.put_held(kept["held"])


def _put(optimizer: Any, settings: Sequence[Mapping[str, Any]]) -> Any:
    """Returns the state of an optimizer with the numbers of its groups in it."""
    groups = optimizer.get("param_groups", ()) if isinstance(optimizer, dict) else ()
    if len(groups) != len(settings):
        return optimizer
    pairs = zip(groups, settings, strict=True)
    put = [{key: then.get(key, each) for key, each in group.items()} for group, then in pairs]
    return {**optimizer, "param_groups": put}


def _numbers_of(group: Mapping[str, Any]) -> dict[str, Any]:
    return {key: each for key, each in group.items() if type(each) in {bool, int, float, tuple}}


def _is_counted(module: nn.Module, key: str) -> bool:
    """Whether a forward pass without a step of an optimizer changes it: sums, and statistics."""
    owner, name = owner_of(module, key)
    is_statistic = isinstance(owner, nn.modules.batchnorm._NormBase) and name in owner._buffers
    return is_statistic or is_metric(owner)


def _is_buffer(module: nn.Module, key: str) -> bool:
    owner, name = owner_of(module, key)
    return isinstance(owner, nn.Module) and name in owner._buffers


def _at(module: nn.Module, path: str) -> Any:
    return owner_of(module, f"{path}.x" if path else "x")[0]


def is_data(value: Any) -> bool:
    """Whether an object is read while it is saved, or is large, as estimators are."""
    return hasattr(value, "__iter__") or isinstance(value, EstimatorState)
