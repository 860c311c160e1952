"""What modules keep in plain Python: counters, switches, modes, and which weights are frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from colabkit.training.torch_side.attributes import Attributes

_OF_ANY_MODULE = frozenset(vars(nn.Module()))
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
        self._held = {
            path: Attributes(inner, leave_out=_not_plain_in(inner), scalars=False)
            for path, inner in module.named_modules()
        }

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
        held = {path: each.state_dict() for path, each in self._held.items()}
        held = {path: changed for path, changed in held.items() if changed}
        return {"values": values, "trainable": trainable, "held": held}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts them back."""
        modules = dict(self._module.named_modules())
        for path, values in state["values"].items():
            for name, value in values.items():
                module = modules.get(path)
                # Not where the name belongs to a tensor or a module now.
                if module is not None and (name in vars(module) or not hasattr(module, name)):
                    setattr(module, name, value)
        for path, held in state.get("held", {}).items():
            if path in self._held:
                self._held[path].load_state_dict(held)
        parameters = dict(self._module.named_parameters())
        for name, is_trainable in state["trainable"].items():
            if name in parameters:
                parameters[name].requires_grad_(is_trainable)


def _values_of(module: nn.Module) -> dict[str, dict[str, Any]]:
    return {
        path: {name: value for name, value in vars(inner).items() if type(value) in _PLAIN}
        for path, inner in module.named_modules()
    }


def _not_plain_in(module: nn.Module) -> frozenset[str]:
    """Returns PyTorch's own attributes, and the weights that hooks make of others anew."""
    made = (name.rpartition("_")[0] for name in module._parameters)
    return _OF_ANY_MODULE | frozenset(name for name in made if name in vars(module))


def _trainable_in(module: nn.Module) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in module.named_parameters()}


def _same(then: object, now: object) -> bool:
    # NaN is not equal to itself; 1 and True are equal, and not the same.
    return then is now or (type(then) is type(now) and then == now)
