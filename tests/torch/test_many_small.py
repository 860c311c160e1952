"""Thousands of small tensors are stored as a few, and come back each as it was."""

from __future__ import annotations

import collections
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import safetensors.torch
import torch

from colabkit.checkpoint import RunFolder, SaveFacts, Section
from colabkit.frameworks.torch import TorchAdapter, TorchBackend
from tests.torch.test_trial import loop

COUNT = 700


def memory() -> collections.deque[Any]:
    """Transitions of several kinds, among them views, scalars, arrays and a larger one."""
    torch.manual_seed(3)
    wide = torch.arange(12.0).reshape(3, 4)
    kept: collections.deque[Any] = collections.deque(maxlen=3 * COUNT)
    for step in range(COUNT):
        kept.append((torch.randn(1, 4), torch.tensor([[step]]), torch.tensor(float(step))))
        kept.append((np.full(3, step, np.float32), step, 0.5, torch.rand(2).bfloat16(), True))
        kept.append(
            {"view": wide[:, step % 4], "none": torch.empty(0, 2), "bit": torch.tensor(True)}
        )
    kept[1] = (torch.zeros(1100, 1), torch.rand(2, dtype=torch.complex64).conj())
    return kept


def saved(folder: Path, states: list[Any]) -> list[Any]:
    backend = TorchBackend(torch.device("cpu"))
    run_folder = RunFolder(folder)
    saver = run_folder.open_saver(backend)
    back = []
    for step, state in enumerate(states):
        section = Section("objects", {"kept": state}, weights=False)
        assert saver.offer([section], SaveFacts(step=step), is_guarded=lambda _: False)
        saver.flush()
        back.append(RunFolder(folder).newest_valid(backend).sections["objects"]["kept"])
    saver.close()
    return back


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert torch.equal(one, other)
    elif isinstance(one, np.ndarray):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other, strict=True)
    elif isinstance(one, dict):
        assert list(one) == list(other)
        for key, value in one.items():
            assert_same(value, other[key])
    elif isinstance(one, tuple | collections.deque):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    else:
        assert one == other


def test_each_comes_back_as_it_was_and_from_few_entries(tmp_path):
    first, second = memory(), memory()
    second.rotate(5)
    for back, kept in zip(saved(tmp_path, [first, second]), (first, second), strict=True):
        assert back.maxlen == kept.maxlen
        assert_same(kept, back)
    assert back[5][0].untyped_storage().nbytes() == back[5][0].nbytes
    (manifest, _) = RunFolder(tmp_path).store.names()
    assert len(RunFolder(tmp_path).store.manifest(manifest).tensors) < 20


def test_a_large_one_among_them_has_an_entry_of_its_own(tmp_path):
    kept = memory()
    (back,) = saved(tmp_path, [kept])
    assert_same(kept, back)
    (name,) = RunFolder(tmp_path).store.names()
    entries = RunFolder(tmp_path).store.manifest(name).tensors
    alone = [entry.key for entry in entries if not entry.key.startswith("packed")]
    assert alone == ["kept.1.0"]


@pytest.mark.parametrize("new", [torch.zeros(1, 5), torch.zeros(4), torch.zeros(1, 4).double()])
def test_one_that_was_given_another_form_in_place_is_seen(new, tmp_path):
    kept = memory()
    state = [kept]

    class Changing(list):
        def __iter__(self) -> Any:
            yield kept
            kept[0][0].data = new
            yield kept

    back = saved(tmp_path, Changing(state))
    assert_same(kept[0], back[1][0])


def weights() -> dict[str, torch.Tensor]:
    """Those of many layers, among them views, empty, tied, lone, large and narrow ones."""
    torch.manual_seed(4)
    found = {f"layers.{n}.{k}": torch.randn(*shape) for n in range(COUNT) for k, shape in FORMS}
    wide = torch.arange(24.0).reshape(4, 6)
    found |= {"view": wide[:, 1:5], "large": torch.randn(70, 70), "none": torch.empty(0, 4)}
    found |= {"half": torch.randn(3).half(), "lone": torch.randn(2, 3), "one": torch.tensor(2.0)}
    return found


FORMS = (("weight", (4, 4)), ("bias", (4,)))


def change_in_place(state: dict[str, torch.Tensor]) -> None:
    for each in state.values():
        each.add_(1)


def turn(state: dict[str, torch.Tensor]) -> None:
    state["lone"].t_()


def read_as_integers(state: dict[str, torch.Tensor]) -> None:
    state["layers.3.bias"].data = state["layers.3.bias"].view(torch.int32)


def give_another_memory(state: dict[str, torch.Tensor]) -> None:
    state["layers.5.weight"].data = torch.rand(4, 4)
    state["layers.6.weight"].data = torch.rand(4, 5)


def take_one_out(state: dict[str, torch.Tensor]) -> None:
    del state["layers.0.bias"]
    state["more"] = torch.rand(4)


def tie(state: dict[str, torch.Tensor]) -> None:
    state["layers.9.weight"] = state["layers.8.weight"]
    state["turned"] = state["layers.8.weight"].t()


@pytest.mark.parametrize(
    "change",
    [change_in_place, turn, read_as_integers, give_another_memory, take_one_out, tie],
)
def test_many_weights_have_names_of_their_own_and_are_what_they_were_at_each_save(change, tmp_path):
    backend, state = TorchBackend(torch.device("cpu")), weights()
    saver = RunFolder(tmp_path).open_saver(backend)
    for step, done in enumerate([lambda _: None, change, change_in_place]):
        done(state)
        section = Section("model", state, weights=True)
        assert saver.offer([section], SaveFacts(step=step), is_guarded=lambda _: False)
        then = {name: each.clone() for name, each in state.items()}
        change_in_place(state)
        saver.flush()
        loaded = RunFolder(tmp_path).newest_valid(backend)
        assert_same(then, loaded.sections["model"])
    saver.close()
    files = sorted(tmp_path.rglob("model*.safetensors"))
    read = {name for each in files for name in safetensors.torch.load_file(each)}
    assert {"layers.1.weight", "lone", "large"} <= read


def test_not_one_of_many_weights_that_is_infinite_goes_unseen(tmp_path):
    backend, state = TorchBackend(torch.device("cpu")), weights()
    saver = RunFolder(tmp_path).open_saver(backend)
    addresses = {each.data_ptr() for each in state.values()}
    for step, number in enumerate([0.0, float("inf"), 0.0]):
        state["layers.7.bias"][2] = number
        section = Section("model", state, weights=True)
        saver.offer(
            [section], SaveFacts(step=step), is_guarded=lambda spec: spec.address in addresses
        )
        saver.flush()
        assert saver.status().is_finite is (number == 0.0)
    saver.close()


@pytest.mark.parametrize("key", [int, str, lambda n: (n, "a")])
def test_a_dict_of_many_comes_back_under_its_keys(key, tmp_path):
    kept = {key(n): torch.full((2,), float(n)) for n in range(2 * COUNT)}
    for back in saved(tmp_path, [kept, kept]):
        assert_same(kept, back)


def test_the_same_tensors_under_other_keys_come_back_under_these(tmp_path):
    kept = [torch.full((2,), float(n)) for n in range(2 * COUNT)]
    keys: list[Any] = list(range(2 * COUNT))
    without = dict(enumerate(kept))
    del without[3]
    states = [
        dict(zip(keys, kept, strict=True)),
        dict(zip([0, True, *keys[2:]], kept, strict=True)),
        dict(zip(keys, kept, strict=True)),
        without,
        dict(zip(map(str, keys), kept, strict=True)),
        collections.OrderedDict(zip(map(str, keys), kept, strict=True)),
        {"before": kept[0].clone(), **dict(zip(keys, kept, strict=True))},
    ]
    for back, state in zip(saved(tmp_path, states), states, strict=True):
        assert type(back) is type(state)
        assert list(map(repr, back)) == list(map(repr, state))
        assert all(torch.equal(back[key], state[key]) for key in state)


def test_gradients_that_wait_in_many_layers_are_those_of_each_save(tmp_path):
    model = torch.nn.Sequential(*[torch.nn.Linear(1, 1) for _ in range(COUNT)])
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    for number, parameter in enumerate(model.parameters()):
        parameter.grad = torch.full_like(parameter, float(number))
    backend = TorchBackend(torch.device("cpu"))
    adapter = TorchAdapter({"model": model, "optimizer": optimizer})
    adapter.open(lambda: None)
    saver = RunFolder(tmp_path).open_saver(backend)
    changes = (
        lambda: None,
        lambda: model[3].weight.grad.add_(7),
        lambda: setattr(model[4].bias, "grad", None),
        lambda: setattr(model[4].bias, "grad", torch.full((1,), -1.0)),
        lambda: setattr(model[5].bias, "grad", torch.full((1,), -2.0)),
        lambda: setattr(model[6], "weight", torch.nn.Parameter(torch.full((1, 1), 5.0))),
        lambda: model.append(torch.nn.Linear(1, 1)),
        lambda: setattr(model[8].weight, "data", torch.full((1, 1), 9.0)),
    )
    for step, change in enumerate(changes):
        change()
        assert saver.offer(
            adapter.sections(),
            SaveFacts(step=step),
            is_guarded=adapter.guard(),
            still_valid=adapter.unchanged(),
        )
        saver.flush()
        back = RunFolder(tmp_path).newest_valid(backend).sections
        trained = [p for group in optimizer.param_groups for p in group["params"]]
        there = {n: p.grad for n, p in enumerate(trained) if p.grad is not None}
        assert_same(there, back["gradients"]["optimizer"])
        assert_same(dict(model.state_dict()), dict(back["model"]))
    adapter.close()
    saver.close()


class Memory:
    """A replay memory, drawn from by its place."""

    def __init__(self) -> None:
        self.kept: collections.deque[Any] = collections.deque(memory(), maxlen=3 * COUNT)

    def state_dict(self) -> dict[str, Any]:
        return {"kept": self.kept}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.kept = state["kept"]


CHANGED = {
    "nothing": lambda _: None,
    "written in place": lambda kept: kept[3][0].add_(1),
    "an array written in place": lambda kept: kept[3][1].fill(7),
    "a number": lambda kept: kept.__setitem__(3, (*kept[3][:2], -1)),
    "an equal tensor": lambda kept: kept.__setitem__(3, (kept[3][0].clone(), *kept[3][1:])),
    "one more": lambda kept: kept.append(kept[0]),
    "one of another kind": lambda kept: kept.__setitem__(3, list(kept[3])),
}


@pytest.mark.parametrize("change", CHANGED.values(), ids=CHANGED)
def test_an_evaluation_sees_what_changes_in_a_memory(change):
    kept = Memory()
    rows = [(torch.zeros(3), np.zeros(3), number) for number in range(2 * COUNT)]
    kept.kept = collections.deque(rows)
    model = torch.nn.Linear(1, 1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    adapter = TorchAdapter({"model": model, "optimizer": optimizer, "memory": kept})
    mark = adapter.evaluation_mark()
    assert mark == adapter.evaluation_mark()
    change(kept.kept)
    assert (mark == adapter.evaluation_mark()) is (change is CHANGED["nothing"])


def test_a_replay_memory_goes_on_in_a_run(tmp_path):
    first = Memory()
    loop(tmp_path, memory=first)
    again = Memory()
    again.kept.clear()
    loop(tmp_path, memory=again)
    assert_same(first.kept, again.kept)
