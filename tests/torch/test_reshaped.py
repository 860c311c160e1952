"""Objects that training gives another form, or whose state_dict is not all they are, go on."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.ao import quantization
from torch.nn.utils import parametrize, prune

import colabkit
from colabkit.errors import StateError
from tests.torch.cases import arrays
from tests.torch.test_restored import (
    MID_EPOCH,
    Interrupting,
    assert_resumes_exactly,
    hashes,
    network,
    trained,
)


class Partial(nn.Module):
    """Leaves its backbone out of its state_dict, to keep checkpoints small."""

    def __init__(self, *, trains: bool) -> None:
        super().__init__()
        torch.manual_seed(11)
        self.backbone = nn.Linear(6, 8).requires_grad_(trains)
        self.head = nn.Linear(8, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.backbone(x).relu())

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:
        whole = super().state_dict(*args, **options)
        return {name: each for name, each in whole.items() if "backbone" not in name}


@pytest.mark.parametrize("trains", [False, True])
def test_what_a_state_dict_leaves_out_goes_on(trains, tmp_path):
    assert_resumes_exactly(lambda: {"model": Partial(trains=trains)}, tmp_path)


def test_other_frozen_weights_than_were_trained_with_are_named(tmp_path):
    trained(tmp_path, {"model": Partial(trains=False), "epochs": 1})
    other = Partial(trains=False)
    nn.init.ones_(other.backbone.weight)
    with pytest.raises(StateError, match=r"model\.backbone\.weight is left out"):
        trained(tmp_path, {"model": other})


def quantized() -> dict[str, Any]:
    torch.manual_seed(11)
    model = nn.Sequential(
        quantization.QuantStub(), nn.Linear(6, 12), nn.ReLU(), nn.Linear(12, 3),
        quantization.DeQuantStub(),
    ).train()  # fmt: skip
    model.qconfig = quantization.get_default_qat_qconfig("fbgemm")
    quantization.prepare_qat(model, inplace=True)
    return {"model": model, "optimizer": torch.optim.SGD(model.parameters(), lr=0.05)}


@pytest.mark.filterwarnings("ignore")
def test_training_aware_of_quantization_goes_on(tmp_path):
    assert_resumes_exactly(quantized, tmp_path)


class Growing(nn.Module):
    """Enlarges a buffer in each step, in place, and holds one whose elements are one place."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.register_buffer("seen", torch.zeros(0))
        self.register_buffer("scale", torch.ones(1).expand(6))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        count = self.seen.numel()
        self.seen.resize_(count + len(x))
        self.seen[count:] = x.detach().sum(1)
        return self.body(x * self.scale) + self.seen.mean()


def test_buffers_that_grow_and_buffers_that_are_expanded_come_back(tmp_path):
    assert_resumes_exactly(lambda: {"model": Growing()}, tmp_path)


class AtEpoch:
    """Does something to a model when its second epoch begins."""

    def __init__(self, change: Any) -> None:
        self.change = change

    def on_epoch_begin(self, run: Any, epoch: int) -> None:
        if epoch == 1:
            self.change()


def test_layers_unfrozen_into_a_new_group_go_on(tmp_path):
    def make() -> dict[str, Any]:
        model = network()
        model[0].requires_grad_(False)
        optimizer = torch.optim.Adam(model[3].parameters(), 1e-2)

        def unfreeze() -> None:
            model[0].requires_grad_(True)
            optimizer.add_param_group({"params": list(model[0].parameters()), "lr": 1e-3})

        return {"model": model, "optimizer": optimizer, "callbacks": [AtEpoch(unfreeze)]}

    assert_resumes_exactly(make, tmp_path)


def test_weights_pruned_in_mid_run_stay_pruned(tmp_path):
    def make() -> dict[str, Any]:
        model = network()
        pruning = AtEpoch(lambda: prune.l1_unstructured(model[0], "weight", 0.3))
        optimizer = torch.optim.Adam(model.parameters())
        return {"model": model, "optimizer": optimizer, "callbacks": [pruning]}

    assert_resumes_exactly(make, tmp_path)


class Widening(nn.Module):
    """Takes what it is given in the precision of its weights."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x.to(next(self.parameters()).dtype))


def test_weights_made_wider_in_mid_run_stay_so(tmp_path):
    def make() -> dict[str, Any]:
        model = Widening()
        optimizer = torch.optim.SGD(model.parameters(), 0.05, momentum=0.9)
        return {"model": model, "optimizer": optimizer, "callbacks": [AtEpoch(model.double)]}

    assert_resumes_exactly(make, tmp_path)


class Doubled(nn.Module):
    def forward(self, weight: torch.Tensor) -> torch.Tensor:
        return 2 * weight


def test_a_layer_parametrized_in_mid_run_is_named_or_made_so_again(tmp_path):
    def make(*, already: bool) -> dict[str, Any]:
        model = network()

        def double() -> None:
            if not parametrize.is_parametrized(model[0]):
                parametrize.register_parametrization(model[0], "weight", Doubled())

        if already:
            double()
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return {"model": model, "optimizer": optimizer, "callbacks": [AtEpoch(double)]}

    trained(tmp_path / "alone", make(already=False))
    trained(tmp_path / "broken", make(already=False), Interrupting(MID_EPOCH))
    with pytest.raises(StateError, match="parametrizations"):
        trained(tmp_path / "broken", make(already=False))
    trained(tmp_path / "broken", make(already=True))
    assert hashes(tmp_path / "broken") == hashes(tmp_path / "alone")


class Rotating(torch.optim.Optimizer):
    """Keeps matrices that lie by columns, alone and in a list, and a number under a name."""

    def __init__(self, parameters: Any) -> None:
        super().__init__(parameters, {"lr": 0.1})
        self.state["steps"] = torch.tensor([0])

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        self.state["steps"] += 1
        for weight in self.param_groups[0]["params"]:
            gradient, kept = weight.grad, self.state[weight]
            if gradient.ndim == 2:
                kept["moment"] = gradient.T.contiguous().T
                kept["bases"] = [torch.linalg.qr(gradient.T @ gradient)[0].T]
                gradient = gradient @ kept["bases"][0]
            weight.sub_(gradient, alpha=0.1 / self.state["steps"].item())


class Around(Rotating):
    """Shows the groups of the optimizer within it."""

    def __init__(self, inner: torch.optim.Optimizer) -> None:
        self.inner = inner
        self._optimizer_step_pre_hooks = collections.OrderedDict()
        self._optimizer_step_post_hooks = collections.OrderedDict()
        self._optimizer_state_dict_pre_hooks = collections.OrderedDict()
        self._optimizer_state_dict_post_hooks = collections.OrderedDict()
        self._optimizer_load_state_dict_pre_hooks = collections.OrderedDict()
        self._optimizer_load_state_dict_post_hooks = collections.OrderedDict()
        self.defaults: dict[str, Any] = {}
        self._patch_step_function()

    @property
    def param_groups(self) -> list[dict[str, Any]]:  # type: ignore[override]
        return self.inner.param_groups

    @property
    def state(self) -> Any:  # type: ignore[override]
        return self.inner.state

    def step(self, closure: Any = None) -> None:
        self.inner.step()

    def state_dict(self) -> dict[str, Any]:
        return {"inner": self.inner.state_dict()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.inner.load_state_dict(state["inner"])


@pytest.mark.parametrize("around", [lambda inner: inner, Around])
def test_an_optimizers_matrices_lie_after_a_resume_as_they_lay(around, tmp_path):
    made = []

    def make() -> dict[str, Any]:
        model = network()
        made.append(Rotating(model.parameters()))
        return {"model": model, "optimizer": around(made[-1])}

    assert_resumes_exactly(make, tmp_path)

    colabkit.fit(**make(), data=arrays(), ckpt_dir=tmp_path / "alone", epochs=3, progress=False)
    alone, *_, again = made
    then, now = ([s for s in each.state.values() if isinstance(s, dict)] for each in (alone, again))
    for mine, other in zip(now, then, strict=True):
        assert {name: each.stride() for name, each in mine.items() if name != "bases"} == {
            name: each.stride() for name, each in other.items() if name != "bases"
        }
        assert [t.stride() for t in mine.get("bases", ())] == [
            t.stride() for t in other.get("bases", ())
        ]
    assert (1, 8) in [tuple(state["moment"].stride()) for state in now if "moment" in state]


def scripted() -> dict[str, Any]:
    return {"model": torch.jit.script(network())}


@pytest.mark.filterwarnings("ignore:.*torch.jit.script:DeprecationWarning")
def test_a_scripted_module_goes_on(tmp_path):
    assert_resumes_exactly(scripted, tmp_path)


def exchanged(model: nn.Sequential) -> None:
    model[1] = nn.GELU()


def taken_out(model: nn.Sequential) -> None:
    model[2] = nn.Identity()


def put_behind(model: nn.Sequential) -> None:
    model.append(nn.Softmax(1))


def unhooked(model: nn.Sequential) -> None:
    model[0]._forward_hooks.clear()


def hooked(model: nn.Sequential) -> None:
    model[3].weight.register_hook(lambda gradient: 0.5 * gradient)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        (exchanged, "model.1"), (taken_out, "model.2"), (put_behind, "model.4"),
        (unhooked, "a hook of model.0"), (hooked, "a hook of model.3.weight"),
        (lambda model: None, None),
    ],
)  # fmt: skip
def test_parts_without_weights_that_are_exchanged_in_mid_run_are_named(change, named, tmp_path):
    model = network()
    model[0].register_forward_hook(lambda module, inputs, output: 2 * output)
    history = colabkit.fit(
        model, arrays(), tmp_path, callbacks=[AtEpoch(lambda: change(model))], epochs=2,
        progress=False, save_every=1,
    )  # fmt: skip
    assert [each.partition(" was put")[0] for each in history.verdict.reasons] == (
        [] if named is None else [named]
    )


def test_a_part_that_is_exchanged_for_one_of_its_kind_goes_on_with_its_numbers(tmp_path):
    def make() -> dict[str, Any]:
        model = network()

        def more_dropout() -> None:
            model[2] = nn.Dropout(0.7)

        return {"model": model, "callbacks": [AtEpoch(more_dropout)]}

    assert_resumes_exactly(make, tmp_path)


Transition = collections.namedtuple("Transition", ["state", "reward"])
VALUES: list[Any] = [
    Transition(1, 2.0),
    collections.OrderedDict([("b", 1), ("a", 2)]),
    collections.defaultdict(int, {"a": 1}),
    collections.defaultdict(list, {"a": [1]}),
    frozenset({1, 2}),
    bytearray(b"ab"),
    np.array(3.0),
    np.arange(6).reshape(2, 3).T,
]


class Holding:
    def __init__(self, value: Any) -> None:
        self.value = value

    def state_dict(self) -> dict[str, Any]:
        return {"value": self.value}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.value = state["value"]


def carried(value: Any, folder: Path) -> Any:
    list(colabkit.Run(folder, held=Holding(value), progress=False).items(range(1)))
    again = Holding(None)
    colabkit.Run(folder, held=again, progress=False)
    return again.value


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_a_container_comes_back_as_what_it_was(value, tmp_path):
    got = carried(value, tmp_path)
    assert type(got) is type(value)
    if isinstance(value, np.ndarray):
        assert got.shape == value.shape
        assert np.array_equal(got, value)
    else:
        assert got == value
    if isinstance(value, collections.OrderedDict):
        assert list(got) == list(value)
    if isinstance(value, collections.defaultdict):
        assert got.default_factory is value.default_factory


def test_a_defaultdict_with_a_function_of_its_own_is_named(tmp_path):
    with pytest.raises(StateError, match=r"held\.value is a defaultdict"):
        carried(collections.defaultdict(lambda: 3), tmp_path)
