"""Writes that PyTorch does not count, through ``.data``, tear no checkpoint."""

from __future__ import annotations

import threading
from pathlib import Path

import pytest
import safetensors.torch
import torch
from torch import nn

import colabkit
from colabkit.frameworks.torch import TorchAdapter
from colabkit.frameworks.torch.unseen_writes import Watch


def copies(*tensors: torch.Tensor) -> dict[int, object]:
    return {
        t.data_ptr(): t.detach().contiguous().clone().view(-1).view(torch.uint8).numpy()
        for t in tensors
    }


def laid_out(kind: str) -> torch.Tensor:
    torch.manual_seed(3)
    if kind == "channels_last":
        return torch.randn(32, 64, 3, 3).to(memory_format=torch.channels_last)
    return torch.randn(300, 401, dtype=torch.bfloat16 if kind == "bfloat16" else None)


@pytest.mark.parametrize("kind", ["plain", "channels_last", "bfloat16"])
def test_a_copy_made_after_a_write_through_data_is_told_from_one_made_before(kind):
    tensor = laid_out(kind)
    watch = Watch([], [tensor])
    before = copies(tensor)
    assert watch.is_unchanged(before)
    tensor.data.mul_(1.5)
    assert not watch.is_unchanged(copies(tensor))
    assert watch.is_unchanged(before)


def test_one_row_written_through_data_is_found_sooner_or_later():
    table = torch.zeros(20000, 64)
    found = 0
    for row in range(200):
        watch = Watch([], [table])
        table.data[row] += 1
        found += not watch.is_unchanged(copies(table))
    assert found > 100


def test_memory_that_data_exchanges_is_seen():
    weight = nn.Parameter(torch.zeros(200, 200))
    watch, before = Watch([], [weight]), copies(weight)
    weight.data = weight.data.clone()
    assert not watch.is_unchanged(before)


def noisy(folder: Path, steps: int) -> dict[int, torch.Tensor]:
    """Adds noise before each step, as it does between a copy's beginning and its end."""
    model = nn.Linear(1500, 1500, bias=False)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.0)
    run = colabkit.Run(
        folder, model=model, optimizer=optimizer, progress=False, save_every=1, keep=20
    )
    expected = {}
    for _ in run.items(range(steps)):
        model.weight.data.add_(1.0)
        model(torch.ones(2, 1500)).sum().backward()
        optimizer.step()
        expected[run.step + 1] = model.weight.detach().clone()
    return expected


def test_weights_that_get_noise_before_each_step_are_saved_as_they_were(tmp_path):
    expected = noisy(tmp_path, 6)
    saved = [info for info in colabkit.checkpoints(tmp_path, verify=True) if info.step]
    assert saved[0].step == 6
    for info in saved:
        (file,) = info.weights_files
        assert torch.equal(safetensors.torch.load_file(file)["weight"], expected[info.step])


def test_a_loop_once_caught_is_copied_at_once_in_every_later_session():
    def side() -> tuple[TorchAdapter, nn.Linear]:
        model = nn.Linear(300, 300, bias=False)
        optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
        return TorchAdapter({"model": model, "optimizer": optimizer}), model

    first, model = side()
    spec = first.backend.describe(model.weight)
    check = first.unchanged()
    assert first.guard()(spec)
    model.weight.data.add_(1.0)
    caught = threading.Thread(target=lambda: check(copies(model.weight)))
    caught.start()
    caught.join()
    assert not first.guard()(spec)
    again, other = side()
    again.restore({section.name: section.state for section in first.sections()})
    assert not again.guard()(again.backend.describe(other.weight))


def among_many() -> tuple[TorchAdapter, nn.Linear, torch.optim.Optimizer]:
    """A large layer among so many small ones that what is known of them is kept."""
    layers = nn.ModuleList(nn.Linear(1, 1) for _ in range(600)).append(nn.Linear(300, 300))
    optimizer = torch.optim.Adam(layers.parameters(), lr=0.1)
    for each in layers.parameters():
        each.grad = torch.ones_like(each)
    optimizer.step()
    adapter = TorchAdapter({"model": layers, "optimizer": optimizer})
    adapter.sections()
    return adapter, layers[-1], optimizer


def moment(layer: nn.Linear, optimizer: torch.optim.Optimizer) -> torch.Tensor:
    found: torch.Tensor = optimizer.state[layer.weight]["exp_avg"]
    return found


@pytest.mark.parametrize("of", ["weight", "moment"])
def test_a_large_one_among_many_small_is_copied_meanwhile_and_watched(of):
    adapter, layer, optimizer = among_many()
    for _ in range(2):
        tensor = layer.weight if of == "weight" else moment(layer, optimizer)
        assert adapter.guard()(adapter.backend.describe(tensor))
        check = adapter.unchanged()
        assert check(copies(layer.weight, moment(layer, optimizer)))
        with torch.no_grad():
            tensor.add_(1.0)
        assert not check(copies(layer.weight, moment(layer, optimizer)))
        adapter, layer, optimizer = among_many()
        layer.weight.data = layer.weight.detach().clone()
        optimizer.state[layer.weight]["exp_avg"] = torch.zeros(300, 300)
        adapter.sections()


def test_what_takes_the_place_of_a_large_one_among_many_is_seen_at_the_next_save():
    adapter, layer, optimizer = among_many()
    optimizer.state.clear()
    for change in (
        lambda: setattr(layer, "weight", nn.Parameter(torch.ones(300, 300))),
        lambda: setattr(layer.weight, "data", torch.ones(301, 300)),
        lambda: optimizer.param_groups[0]["params"].append(nn.Parameter(torch.ones(200, 200))),
        # No module has it, whose look would show that it lies elsewhere.
        lambda: setattr(
            optimizer.param_groups[0]["params"][-1], "data", torch.ones(200, 200, dtype=torch.half)
        ),
    ):
        change()
        trained = optimizer.param_groups[0]["params"]
        trained[1200] = layer.weight
        adapter.sections()
        for each in (layer.weight, *trained[1202:]):
            assert adapter.guard()(adapter.backend.describe(each))
        check = adapter.unchanged()
        layer.weight.data.add_(1.0)
        assert not check(copies(layer.weight))
        adapter._writes_unseen = False
