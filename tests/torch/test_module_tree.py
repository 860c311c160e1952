"""What is remembered of a module from save to save is never what the module is no more."""

from __future__ import annotations

import itertools
import random
from typing import Any

import pytest
import torch
from torch import nn

import colabkit
from colabkit.frameworks.torch.module_tree import ModuleTree
from colabkit.frameworks.torch.python_attributes import PythonAttributes
from colabkit.frameworks.torch.randomness import generators_in

LAYERS = 500


class Scaled(nn.Linear):
    """Saves its weight under another name."""

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}scaled"] = destination.pop(f"{prefix}weight")


class Layer(nn.Linear):
    """A layer with a buffer, a switch, a counter, a list and a tuple."""

    def __init__(self) -> None:
        super().__init__(1, 1)
        self.register_buffer("sum", torch.zeros(1))
        self.is_open, self.calls = True, 1
        self.rates, self.stride = [0.5, 1], (1, (2, "same"))


def model() -> nn.Sequential:
    return nn.Sequential(*[Layer() for _ in range(LAYERS)])


def renamed(layer: nn.Module) -> None:
    del layer.calls
    layer.is_shut = True


def regrouped(layer: nn.Module) -> None:
    layer._parameters = {"bias": layer.bias, "weight": layer.weight}


def without_bias(_module: nn.Module, state: dict[str, Any], prefix: str, _: Any) -> None:
    del state[f"{prefix}bias"]


CHANGES = {
    "nothing": lambda _: None,
    "another parameter": lambda layer: setattr(layer, "weight", nn.Parameter(torch.ones(1, 1))),
    "a parameter of another form": lambda layer: setattr(layer.weight, "data", torch.ones(2)),
    "other memory": lambda layer: setattr(layer.weight, "data", torch.full((1, 1), 7.0)),
    "tied": lambda layer: setattr(layer, "bias", layer.weight),
    "a parameter less": lambda layer: setattr(layer, "bias", None),
    "a parameter more": lambda layer: layer.register_parameter("more", nn.Parameter(torch.ones(1))),
    "another buffer": lambda layer: setattr(layer, "sum", torch.ones(1)),
    "a buffer saved no more": lambda layer: layer._non_persistent_buffers_set.add("sum"),
    "a module more": lambda layer: layer.add_module("more", Layer()),
    "parameters in another dict": regrouped,
    "a hook": lambda layer: layer._register_state_dict_hook(without_bias),
    "another class": lambda layer: setattr(layer, "__class__", Scaled),
    "a method of its own": lambda layer: setattr(layer, "get_extra_state", lambda: {"a": 1}),
    "frozen": lambda layer: layer.requires_grad_(requires_grad=False),
    "evaluated": lambda layer: layer.eval(),
    "counted": lambda layer: setattr(layer, "calls", 2),
    "equal and of another type": lambda layer: setattr(layer, "calls", True),
    "a new attribute": lambda layer: setattr(layer, "seen", 3),
    "a list": lambda layer: setattr(layer, "seen", [3]),
    "an item of a list": lambda layer: layer.rates.__setitem__(0, 0.25),
    "an equal item of another type": lambda layer: layer.rates.__setitem__(1, True),
    "an item more": lambda layer: layer.rates.append(2),
    "an item less": lambda layer: layer.rates.pop(),
    "many items": lambda layer: layer.rates.extend(range(100)),
    "an item that can change": lambda layer: layer.rates.append([1]),
    "a list no more": lambda layer: setattr(layer, "rates", 3),
    "an iterator for a list": lambda layer: setattr(layer, "rates", iter([1])),
    "one without an end": lambda layer: setattr(layer, "rates", itertools.count()),
    "letters for a list": lambda layer: setattr(layer, "rates", "ab"),
    "another tuple": lambda layer: setattr(layer, "stride", (1, (3, "same"))),
    "a tuple that can change": lambda layer: setattr(layer, "stride", (1, [2])),
    "an attribute under another name": renamed,
}


def assert_known(tree: ModuleTree, module: nn.Module) -> None:
    state, known = module.state_dict(), tree.state_dict()
    assert list(known) == list(state)
    for key, value in state.items():
        if isinstance(value, torch.Tensor):
            assert (known[key].data_ptr(), known[key].shape) == (value.data_ptr(), value.shape)
    for mine, now in (
        (tree.modules, module.named_modules()),
        (tree.parameters, module.named_parameters()),
        (tree.buffers, module.named_buffers()),
    ):
        assert [(n, id(each)) for n, each in mine.items()] == [(n, id(each)) for n, each in now]
    assert tree.trainable() == {n: p.requires_grad for n, p in module.named_parameters()}


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_whatever_changes_between_two_saves_is_noticed(change):
    module = model()
    tree, never_asked = ModuleTree(module), PythonAttributes(module, ModuleTree(module))
    asked = PythonAttributes(module, tree)
    asked.state_dict()
    for layer in (module[3], module[LAYERS - 1]):
        change(layer)
        tree.look()
        assert_known(tree, module)
        asked.state_dict()
    never_asked._tree.look()
    assert asked.state_dict() == never_asked.state_dict()


@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_the_form_is_the_same_only_while_names_forms_and_memory_are(change):
    module = model()
    tree = ModuleTree(module)
    then, known = tree.form, tree.state_dict()
    before = [(k, t, t.data_ptr(), t.dtype, t.shape) for k, t in known.items()]
    change(module[3])
    tree.look()
    now = module.state_dict(keep_vars=True)
    after = [(k, t, t.data_ptr(), t.dtype, t.shape) for k, t in now.items() if k in known]
    is_same = list(map(str, now)) == list(known) and all(
        b[1] is a[1] and b[2:] == a[2:] for b, a in zip(before, after, strict=True)
    )
    assert then is not None
    assert is_same or tree.form != then
    assert ModuleTree(module).form != then
    if change is CHANGES["nothing"] or change is CHANGES["counted"]:
        assert tree.form == then


def test_a_list_that_grows_in_a_layer_is_saved_each_time():
    module = model()
    module[2].seen = [0]
    tree = ModuleTree(module)
    attributes = PythonAttributes(module, tree)
    for count in (1, 2):
        module[2].seen.append(count)
        tree.look()
        assert attributes.state_dict()["values"] == {"2": {"seen": [*range(count + 1)]}}
        assert tree.version == 1


def test_what_comes_to_lie_in_a_list_of_a_layer_is_searched_from_then_on():
    module = model()
    tree = ModuleTree(module)
    assert tree.searched()[1] == []
    module[2].rates.append(drawn := random.Random(0))
    tree.look()
    assert generators_in(*tree.searched()) == [drawn]


def test_what_was_restored_stays_in_later_checkpoints():
    module = model()
    tree = ModuleTree(module)
    attributes = PythonAttributes(module, tree)
    attributes.state_dict()
    attributes.load_state_dict({"values": {"4": {"calls": 9}}, "trainable": {"0.bias": False}})
    tree.look()
    given = attributes.state_dict()
    assert given["values"] == {"4": {"calls": 9}}
    assert given["trainable"] == {"0.bias": False}


class Counted:
    """Counts how often it is asked for its state."""

    asked = 0

    def state_dict(self) -> dict[str, Any]:
        self.asked += 1
        return {"a": 1}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        del state


@pytest.mark.parametrize("epochs", [1, 4])
def test_a_checkpoint_asks_an_object_once_for_its_state(epochs, tmp_path):
    layer, counted = nn.Linear(2, 1), Counted()
    optimizer = torch.optim.SGD(layer.parameters(), lr=0.1)
    objects = {"model": layer, "optimizer": optimizer, "counted": counted}
    run = colabkit.Run(tmp_path, **objects, progress=False, save_every=None)
    for _ in run.epochs(epochs):
        for x in run.items([torch.ones(1, 2)] * 2):
            optimizer.zero_grad()
            layer(x).sum().backward()
            optimizer.step()
    # Is there room; does it come back, and is that the same; the first weights; the end. And at the
    # head of each epoch and behind its pass what a loop may read on its way, and where an error
    # that comes next would have to go back to.
    assert counted.asked == 5 + 4 * epochs
    assert len(colabkit.checkpoints(tmp_path)) == 2
