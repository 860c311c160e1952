"""What modules keep in plain Python: counters, switches, modes, and which weights are frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from colabkit.frameworks.attributes import Attributes
from colabkit.frameworks.torch.tensor_values import TensorValues

_OF_ANY_MODULE = frozenset(vars(nn.Module())) - {"training"}


class PythonAttributes:
    """The plain attributes of a module and all within it that training has changed.

    What it has left alone is the notebook's own business, and may be changed there between
    two sessions.

    Args:
        module: The module as it was made, before anything is restored.
    """

    def __init__(self, module: nn.Module) -> None:
        self._module = module
        self._trainable_at_start = _trainable_in(module)
        self.memories = {path: _memory_of(each) for path, each in module.named_modules()}
        self.made: list[str] = []

    def state_dict(self) -> dict[str, Any]:
        """Returns the changed attributes by module, and the parameters frozen or unfrozen."""
        values = {}
        for path, module in self._module.named_modules():
            if path not in self.memories:
                self.made.append(path)
                self.memories[path] = _memory_of(module, is_new=True)
            if changed := self.memories[path].state_dict():
                values[path] = changed
        trainable = {
            name: is_trainable
            for name, is_trainable in _trainable_in(self._module).items()
            if self._trainable_at_start.get(name) is not is_trainable
        }
        return {"values": values, "trainable": trainable}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts them back."""
        near = TensorValues().place_of(self._module)
        for part in ("values", "held"):
            for path, changed in state.get(part, {}).items():
                if path in self.memories:
                    self.memories[path].load_state_dict(changed, near)
        parameters = dict(self._module.named_parameters())
        for name, is_trainable in state["trainable"].items():
            if name in parameters:
                parameters[name].requires_grad_(is_trainable)


def _memory_of(module: nn.Module, *, is_new: bool = False) -> Attributes:
    """Leaves out what PyTorch looks after, and the weights that hooks make of others anew."""
    made = (name.rpartition("_")[0] for name in module._parameters)
    leave_out = _OF_ANY_MODULE | {name for name in made if name in vars(module)}
    return Attributes(module, TensorValues(), leave_out=leave_out, is_new=is_new)


def _trainable_in(module: nn.Module) -> dict[str, bool]:
    return {name: parameter.requires_grad for name, parameter in module.named_parameters()}
