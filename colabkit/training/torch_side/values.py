"""What modules keep in plain Python: counters, switches, modes, and which weights are frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

_PLAIN = frozenset({bool, int, float, str, type(None)})


class ModuleValues:
    """The plain attributes of a module and all within it that training has changed.

    What it has left alone is the notebook's own business, and may be changed there between
    two sessions.

    Args:
        module: The module as it was made, before anything is restored.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._values_at_start = _values_of(module)
        self._trainable_at_start = _trainable_in(module)

    def state_dict(self) -> dict[str, Any]:
        """Returns the changed attributes by module, and the parameters frozen or unfrozen."""
        missing = object()
        values = {}
        for path, now in _values_of(self._module).items():
            then = self._values_at_start.get(path, {})
            changed = {n: v for n, v in now.items() if not _same(then.get(n, missing), v)}
            if changed:
                values[path] = changed
        trainable = {
            name: is_trainable
            for name, is_trainable in _trainable_in(self._module).items()
            if self._trainable_at_start.get(name) is not is_trainable
        }
        return {"values": values, "trainable": trainable}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts them back."""
        modules = dict(self._module.named_modules())
        for path, values in state["values"].items():
            for name, value in values.items():
                module = modules.get(path)
                # Not where the name belongs to a tensor or a module now.
                if module is not None and (name in vars(module) or not hasattr(module, name)):
                    setattr(module, name, value)
        parameters = dict(self._module.named_parameters())
        for name, is_trainable in state["trainable"].items():
            if name in parameters:
                parameters[name].requires_grad_(is_trainable)


def _values_of(module: nn.Module) -> dict[str, dict[str, Any]]:
    return {
        path: {name: value for name, value in vars(inner).items() if type(value) in _PLAIN}
        for path, inner in module.named_modules()
    }


def _trainable_in(module: nn.Module) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in module.named_parameters()}


def _same(then: object, now: object) -> bool:
    # NaN is not equal to itself; 1 and True are equal, and not the same.
    return then is now or (type(then) is type(now) and then == now)
