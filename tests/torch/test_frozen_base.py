"""Frozen quantized weights and the base under adapters: noted by hash, and needed to go on."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import nn

import colabkit
from colabkit.errors import CheckpointMismatchError
from tests.torch.cases import arrays

QUIET: dict[str, Any] = {"progress": False, "device": "cpu", "batch_size": 8}
WIDTH = arrays()[0].shape[1]


class Codes(nn.Module):
    """A frozen matrix of 8-bit codes, whose scale stands beside it in the state alone."""

    def __init__(self, seed: int) -> None:
        super().__init__()
        generator = torch.Generator().manual_seed(seed)
        codes = torch.randint(-99, 99, (WIDTH, WIDTH), generator=generator, dtype=torch.int8)
        self.weight = nn.Parameter(codes, requires_grad=False)
        self.scale = torch.tensor(0.01 * seed)

    def _save_to_state_dict(self, destination: Any, prefix: str, keep_vars: bool) -> None:
        super()._save_to_state_dict(destination, prefix, keep_vars)
        destination[f"{prefix}weight.scale"] = self.scale.clone()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return x @ (self.weight * self.scale)


class Quantized(nn.Module):
    def __init__(self, base: int = 1) -> None:
        super().__init__()
        torch.manual_seed(7)
        self.base = Codes(base)
        self.adapter = nn.Linear(WIDTH, WIDTH, bias=False)
        self.head = nn.Linear(WIDTH, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.base(x) + self.adapter(x))


BaseTunerLayer = type(
    "BaseTunerLayer",
    (nn.Module,),
    {
        "__module__": "peft.tuners.tuners_utils",
        "adapter_layer_names": ("lora_A", "lora_B"),
        "other_param_names": ("r",),
    },
)


class Lora(BaseTunerLayer):  # type: ignore[misc, valid-type]
    def __init__(self, base_layer: nn.Linear) -> None:
        super().__init__()
        self.base_layer = base_layer
        self.lora_A = nn.ModuleDict({"default": nn.Linear(WIDTH, 2, bias=False)})
        self.lora_B = nn.ModuleDict({"default": nn.Linear(2, 3, bias=False)})

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.base_layer(x) + self.lora_B["default"](self.lora_A["default"](x))


class Adapted(nn.Module):
    """As PEFT makes it of a model: adapters beside frozen layers."""

    def __init__(self, base: int = 1) -> None:
        super().__init__()
        self.peft_config = {"default": object()}
        torch.manual_seed(base)
        self.layer = Lora(nn.Linear(WIDTH, 3))
        torch.manual_seed(9)
        nn.init.normal_(self.layer.lora_A["default"].weight)
        nn.init.zeros_(self.layer.lora_B["default"].weight)
        self.layer.base_layer.requires_grad_(False)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layer(x)


def saved(folder: Path) -> dict[str, torch.Tensor]:
    found = {}
    for file in colabkit.checkpoints(folder)[0].weights_files:
        found |= load_file(file)
    return found


def trained(model: nn.Module, folder: Path, epochs: int, **more: Any) -> dict[str, torch.Tensor]:
    colabkit.fit(model, arrays(), folder, epochs=epochs, **QUIET, **more)
    return {key: value.clone() for key, value in model.state_dict().items()}


def same(one: dict[str, torch.Tensor], other: dict[str, torch.Tensor]) -> bool:
    return one.keys() == other.keys() and all(torch.equal(one[key], other[key]) for key in one)


@pytest.mark.parametrize(
    ("make", "base"),
    [
        (Quantized, {"base.weight", "base.weight.scale"}),
        (Adapted, {"layer.base_layer.weight", "layer.base_layer.bias"}),
    ],
)
class TestABaseFromElsewhere:
    def test_is_not_written_and_the_run_goes_on_as_if_it_were(self, make, base, tmp_path):
        alone = trained(make(), tmp_path / "alone", 2, save_base=True)
        assert base <= saved(tmp_path / "alone").keys()
        trained(make(), tmp_path / "run", 1)
        assert same(trained(make(), tmp_path / "run", 2), alone)
        assert saved(tmp_path / "run").keys() == alone.keys() - base

    def test_must_be_the_same_where_the_run_goes_on(self, make, base, tmp_path):
        trained(make(), tmp_path, 1)
        with pytest.raises(CheckpointMismatchError) as caught:
            trained(make(base=2), tmp_path, 2)
        assert caught.value.differences.keys() == {f"model.{key}" for key in base}
        with pytest.raises(CheckpointMismatchError):
            colabkit.load(make(base=2), tmp_path)

    def test_is_part_of_what_load_gives(self, make, base, tmp_path):
        after = trained(make(), tmp_path, 1)
        model = make()
        colabkit.load(model, tmp_path)
        assert same(dict(model.state_dict()), after)

    def test_is_compared_when_the_weights_alone_are_taken(self, make, base, tmp_path, capsys):
        after = trained(make(), tmp_path, 1)
        options = {**QUIET, "progress": True, "resume": "weights"}
        colabkit.fit(make(), arrays(), tmp_path, epochs=1, **options)
        assert f"Took {len(after)} of {len(after)} tensors" in capsys.readouterr().out
        colabkit.fit(make(base=2), arrays(), tmp_path, epochs=1, **options)
        assert f"Took {len(after) - len(base)} of" in capsys.readouterr().out

    def test_is_said_beforehand(self, make, base, tmp_path, capsys):
        colabkit.fit(make(), arrays(), tmp_path, epochs=1, **{**QUIET, "progress": True})
        assert "frozen base weights are not saved" in capsys.readouterr().out

    def test_that_changes_in_training_is_written(self, make, base, tmp_path):
        class Merging(colabkit.Callback):
            def on_epoch_end(self, run: Any, epoch: int, logs: Any) -> None:
                changed = model.get_parameter(min(base, key=len))
                with torch.no_grad():
                    changed.copy_(changed.flip(0))

        def merging(make_it: Any, folder: Path, epochs: int) -> dict[str, torch.Tensor]:
            nonlocal model
            model = make_it()
            return trained(model, folder, epochs, callbacks=[Merging()])

        model = make()
        alone = merging(make, tmp_path / "alone", 3)
        merging(make, tmp_path / "run", 1)
        merging(make, tmp_path / "run", 2)
        assert same(merging(make, tmp_path / "run", 3), alone)


def test_trained_weights_that_are_frozen_later_are_written(tmp_path):
    model = Quantized()
    trained(model, tmp_path / "first", 1)
    model.adapter.requires_grad_(False)
    trained(model, tmp_path / "second", 1)
    assert "adapter.weight" in saved(tmp_path / "second")
    adapted = Adapted()
    trained(adapted, tmp_path / "third", 1)
    adapted.layer.lora_A.requires_grad_(False)
    trained(adapted, tmp_path / "fourth", 1)
    assert "layer.lora_A.default.weight" in saved(tmp_path / "fourth")


def test_a_base_that_a_checkpoint_has_given_is_written(tmp_path):
    trained(Adapted(), tmp_path, 1, save_base=True)
    # The notebook makes another base now, and what was trained comes from the checkpoint.
    again = trained(Adapted(base=2), tmp_path, 2)
    assert torch.equal(again["layer.base_layer.weight"], Adapted().layer.base_layer.weight)
    assert same(trained(Adapted(base=3), tmp_path, 2), again)


def test_a_base_moved_in_training_is_still_noted(tmp_path):
    class Moving(colabkit.Callback):
        def on_epoch_end(self, run: Any, epoch: int, logs: Any) -> None:
            weight = model.layer.base_layer.weight
            weight.data = weight.data.clone()

    model = Adapted()
    trained(model, tmp_path, 3, callbacks=[Moving()])
    assert "layer.base_layer.weight" not in saved(tmp_path)


def test_a_frozen_layer_of_a_plain_model_is_written(tmp_path):
    model = nn.Sequential(nn.Linear(WIDTH, WIDTH), nn.Linear(WIDTH, 3))
    model[0].requires_grad_(False)
    trained(model, tmp_path, 1)
    assert saved(tmp_path).keys() == model.state_dict().keys()
