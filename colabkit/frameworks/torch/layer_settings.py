"""The settings of a module's layers as the user made them, to say what is otherwise at a resume."""

from __future__ import annotations

import collections
import json
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.nn.modules import loss as torch_losses

from colabkit.frameworks.torch.module_tree import OF_ANY_MODULE
from colabkit.frameworks.torch.pieces import class_of
from colabkit.frameworks.users_own import attributes_of, module_of

_KINDS_MAX = 200
_WEIGHTS_MAX = 100_000
_SHOWN_MAX = 6
# What is larger is the time or a name in numbers, and no setting.
_NUMBER_MAX = 1e9
_OF_LOSSES = ("weight", "pos_weight")


class LayerSettings:
    """What the layers of a module are set to, and what losses of PyTorch weigh classes by.

    No tensor shows that a dropout, an activation or a smoothing of labels is another one: it is
    as passed now, and said. The weights of classes are buffers, which a checkpoint would undo.

    Args:
        module: As it was made, before anything is restored.
    """

    def __init__(self, module: nn.Module) -> None:
        kinds = collections.Counter(map(_described, module.modules()))
        self._kinds = dict(kinds) if len(kinds) <= _KINDS_MAX else {}
        self._buffers = dict(_class_weights(module))
        self._passed = {name: each.detach().clone() for name, each in self._buffers.items()}

    def state_dict(self) -> dict[str, Any]:
        """Returns them as they were made."""
        return {
            "torch": str(torch.__version__),
            "kinds": self._kinds,
            "class_weights": self._passed,
        }

    def take(self, then: Mapping[str, Any], name: str) -> tuple[str, ...]:
        """Puts class weights that are passed otherwise than ``then`` into a restored module.

        Args:
            then: What ``state_dict`` gave in the session before.
            name: What the run calls the module.

        Returns:
            What is otherwise, a phrase each.
        """
        said = []
        for key, now in self._passed.items():
            before = then["class_weights"].get(key)
            if before is None or before.shape != now.shape or torch.equal(before.to(now), now):
                continue
            self._buffers[key].copy_(now)
            said.append(f"{key} of {name}{_values(before, now)}")
        # Another release may know more of each layer.
        if then["torch"] == str(torch.__version__) and then["kinds"] and self._kinds:
            said += _differing(then["kinds"], self._kinds, name)
        return tuple(said)


def _described(module: nn.Module) -> str:
    kind = class_of(module)
    is_torchs = module_of(kind).startswith("torch.")
    own = {
        name: value
        for name, value in attributes_of(module).items()
        if not name.startswith("_")
        and name != "training"
        and name not in OF_ANY_MODULE
        and _is_setting(value, words=is_torchs)
    }
    return json.dumps([kind.__name__, own], sort_keys=True)


def _is_setting(value: Any, *, words: bool) -> bool:
    if isinstance(value, tuple):
        return all(_is_setting(each, words=words) for each in value)
    if type(value) is int or type(value) is float:
        return bool(abs(value) < _NUMBER_MAX)
    return type(value) is bool or (words and type(value) is str)


def _class_weights(module: nn.Module) -> Iterator[tuple[str, torch.Tensor]]:
    for path, each in module.named_modules():
        if type(each).__module__ != torch_losses.__name__:
            continue
        for name in _OF_LOSSES:
            weights = getattr(each, name, None)
            if isinstance(weights, torch.Tensor) and weights.numel() <= _WEIGHTS_MAX:
                yield f"{path}.{name}".lstrip("."), weights


def _values(then: torch.Tensor, now: torch.Tensor) -> str:
    if now.numel() > _SHOWN_MAX:
        return ""
    before, after = ([round(each, 4) for each in t.flatten().tolist()] for t in (then, now))
    return f" {before} → {after}"


def _differing(then: Mapping[str, int], now: Mapping[str, int], name: str) -> list[str]:
    gone = collections.Counter(then) - collections.Counter(now)
    come = collections.Counter(now) - collections.Counter(then)
    lost, found = _by_kind(gone), _by_kind(come)
    said = []
    for kind in lost.keys() & found.keys():
        befores, afters = lost.pop(kind), found.pop(kind)
        pairs = zip(befores, afters, strict=False)
        keys = {k for b, a in pairs for k in a if k in b and a[k] != b[k]}
        for key in sorted(keys):
            is_one = len(befores) == len(afters) == 1
            values = f" {befores[0][key]} → {afters[0][key]}" if is_one else ""
            said.append(f"{key} of {kind} in {name}{values}")
    if lost or found:
        before, after = (", ".join(sorted(each)) or "none" for each in (lost, found))
        said.append(f"layers of {name} {before} → {after}")
    return said


def _by_kind(kinds: Mapping[str, int]) -> dict[str, list[dict[str, Any]]]:
    found: dict[str, list[dict[str, Any]]] = {}
    for kind, settings in map(json.loads, kinds):
        found.setdefault(kind, []).append(settings)
    return found
