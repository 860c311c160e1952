"""What modules keep in plain Python: counters, switches, modes, and which weights are frozen."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from torch import nn

from colabkit.frameworks.attributes import Attributes
from colabkit.frameworks.paths import UNCHANGING
from colabkit.frameworks.torch.metrics import is_row_of_metrics
from colabkit.frameworks.torch.module_tree import OF_ANY_MODULE, ModuleTree
from colabkit.frameworks.torch.tensor_values import TensorValues

_NOTHING = object()


class PythonAttributes:
    """The plain attributes of a module and all within it that training has changed.

    What it has left alone is the notebook's own business, and may be changed there between
    two sessions. What the notebook sets before its loop begins, ``model.train()`` say, it sets
    again at a resume; where training has changed that since, a resume puts it back once more.

    Args:
        module: The module as it was made, before anything is restored.
        tree: What lies in it.
    """

    def __init__(self, module: nn.Module, tree: ModuleTree) -> None:
        self._module = module
        self._tree = tree
        self._trainable_at_start = tree.trainable()
        self._flags_at_start = (tree.version, tree.flags())
        self.memories = {path: _memory_of(each) for path, each in tree.modules.items()}
        self.moved: dict[str, None] = {}
        """The modules that were put in or taken out since."""
        self._more: dict[str, Attributes] | None = None
        # By module what has changed, as of a version of the tree; None where that is not known.
        self._changed: dict[str, Any] = {}
        self._version: int | None = None
        # What had been set when the first loop began, and what loops have changed since.
        self._before: dict[str, Any] | None = None
        self._by_training: dict[str, Any] = {"values": {}, "trainable": {}}

    def begin(self) -> None:
        """Called where a loop begins, before its first step."""
        if self._before is None:
            self.restore_again()
            self._before = self._simple()

    def restore_again(self) -> None:
        """Puts back once more what training had changed, after the notebook has set it anew."""
        self.put(self._by_training["values"])
        self._set_trainable(self._by_training["trainable"])

    def put(self, values: Mapping[str, Mapping[str, Any]]) -> None:
        """Puts attributes back, by the path of their module and their name."""
        for path, changed in values.items():
            if path in self.memories:
                self.memories[path].load_state_dict(changed)
        self._version = None

    def state_dict(self) -> dict[str, Any]:
        """Returns the changed attributes by module, and the parameters frozen or unfrozen."""
        tree, touched = self._tree, self._tree.take_touched()
        if self._version != tree.version:
            self._changed, touched = {}, list(tree.modules)
            self._note_gone()
        self._version = None
        if touched:
            self._more = None
        for path in touched:
            if not self._is_known(path, tree.modules[path]):
                self.memories[path] = _memory_of(tree.modules[path], is_new=True)
            self._changed[path] = self.memories[path].state_dict()
            if not self._changed[path]:
                del self._changed[path]
        self._version = tree.version
        state = {
            "values": dict(self._changed),
            "trainable": self._trainable(),
        }
        return {**state, "by_training": self._noted(state)}

    def _is_known(self, path: str, module: nn.Module) -> bool:
        """Whether a module is the one that was there; notes one of another kind."""
        memory = self.memories.get(path)
        if memory is not None and memory.owner is module:
            return True
        is_of_its_kind = memory is not None and type(memory.owner) is type(module)
        if not is_of_its_kind and not self._is_in_row(path):
            self.moved[path] = None
        return False

    def _note_gone(self) -> None:
        """Notes the modules that were there and are no more."""
        for path in [each for each in self.memories if each not in self._tree.modules]:
            del self.memories[path]
            if not self._is_in_row(path):
                self.moved[path] = None

    def _is_in_row(self, path: str) -> bool:
        """Whether a module is in a list of metrics, which a resume makes as long as it was."""
        parts = path.split(".")
        above = (".".join(parts[:depth]) for depth in range(len(parts)))
        return any(is_row_of_metrics(self._tree.modules.get(each)) for each in above)

    def _simple(self) -> dict[str, Any]:
        state = self.state_dict()
        return {"values": _simple_in(state["values"]), "trainable": state["trainable"]}

    def _noted(self, state: Mapping[str, Any]) -> dict[str, Any]:
        """Returns what loops have changed, once one has begun."""
        if self._before is None:
            return self._by_training
        before, known, modules = self._before, self._by_training, self._tree.modules
        values = {}
        now = _simple_in(state["values"])
        for path in now.keys() | before["values"].keys():
            was, there = before["values"].get(path, {}), dict(now.get(path, {}))
            for name in was.keys() - there.keys():  # again as it was when the module was made
                if (module := modules.get(path)) is None or hasattr(module, name):
                    there[name] = getattr(module, name, None)
            kept = known["values"].get(path, {})
            if own := {n: v for n, v in there.items() if n in kept or was.get(n, _NOTHING) != v}:
                values[path] = own
        at_start, kept_flags = self._trainable_at_start, known["trainable"]
        now_flags = {n: at_start[n] for n in (*before["trainable"], *kept_flags) if n in at_start}
        now_flags |= state["trainable"]
        flags = {
            name: each
            for name, each in now_flags.items()
            if name in kept_flags or before["trainable"].get(name, at_start.get(name)) is not each
        }
        self._by_training = {"values": values, "trainable": flags}
        return self._by_training

    def _trainable(self) -> dict[str, bool]:
        if (self._tree.version, self._tree.flags()) == self._flags_at_start:
            return {}
        now, at_start = self._tree.trainable(), self._trainable_at_start
        return {name: each for name, each in now.items() if at_start.get(name) is not each}

    def with_more(self) -> dict[str, Attributes]:
        """Returns what is known of modules that hold other objects, or what nobody can save."""
        if self._more is None:
            every = self.memories.items()
            self._more = {
                path: each for path, each in every if each.with_state or each.lost or each.may_share
            }
        return self._more

    def every(self) -> dict[str, Attributes]:
        """Returns what is known of each module, for those who may ask it to look again."""
        self._more = None
        return self.memories

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Puts them back."""
        self._version = None
        self._by_training = dict(state.get("by_training", self._by_training))
        near = TensorValues().place_of(self._module)
        modules = dict(self._module.named_modules())
        for path in state.get("values", {}):
            if path in modules and path not in self.memories:
                self.memories[path] = _memory_of(modules[path], is_new=True)
        for part in ("values", "held"):
            for path, changed in state.get(part, {}).items():
                if path in self.memories:
                    self.memories[path].load_state_dict(changed, near)
        self._set_trainable(state["trainable"])

    def _set_trainable(self, flags: Mapping[str, bool]) -> None:
        parameters = dict(self._module.named_parameters()) if flags else {}
        for name, is_trainable in flags.items():
            if name in parameters:
                parameters[name].requires_grad_(is_trainable)


def _simple_in(values: Mapping[str, Mapping[str, Any]]) -> dict[str, dict[str, Any]]:
    return {
        path: {name: value for name, value in changed.items() if type(value) in UNCHANGING}
        for path, changed in values.items()
    }


def _memory_of(module: nn.Module, *, is_new: bool = False) -> Attributes:
    """Leaves out what PyTorch looks after, and the weights that hooks make of others anew."""
    # A scripted module's say only what their keys are.
    made = (name.rpartition("_")[0] for name in list(module._parameters.keys()))
    leave_out = OF_ANY_MODULE | {name for name in made if name in vars(module)}
    return Attributes(module, TensorValues(), leave_out=leave_out, is_new=is_new)
