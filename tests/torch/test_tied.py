"""A tensor with two names, such as a tied weight, is written once and comes back under both."""

from __future__ import annotations

from typing import Any

import torch
from safetensors.torch import load_file, load_model
from torch import nn

import colabkit
from colabkit.checkpoint import encode
from colabkit.frameworks.torch.backend import TorchBackend

WORDS, WIDTH = 500, 32


class Language(nn.Module):
    """Gives words by the very table that it reads them by."""

    def __init__(self) -> None:
        super().__init__()
        self.words = nn.Embedding(WORDS, WIDTH)
        self.middle = nn.Linear(WIDTH, WIDTH)
        self.head = nn.Linear(WIDTH, WORDS, bias=False)
        self.head.weight = self.words.weight

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.head(self.middle(self.words(x)))


def trained(folder: Any, **more: Any) -> tuple[Language, list[float]]:
    torch.manual_seed(0)
    model = Language()
    x = torch.randint(0, WORDS, (48,), generator=torch.Generator().manual_seed(1))
    history = colabkit.fit(
        model, (x, (x + 1) % WORDS), folder, epochs=2, batch_size=8, progress=False, **more
    )
    return model, history.steps["loss"].tolist()


def test_a_tied_weight_is_written_once(tmp_path):
    model, _ = trained(tmp_path)
    (file,) = colabkit.checkpoints(tmp_path)[0].weights_files
    written = load_file(file)
    assert written.keys() == {"words.weight", "middle.weight", "middle.bias"}
    assert sum(t.nbytes for t in written.values()) == sum(p.nbytes for p in model.parameters())
    other = Language()
    load_model(other, file)
    assert other.head.weight is other.words.weight
    assert torch.equal(other.head.weight, model.head.weight)


def test_it_is_loaded_under_both_names_and_stays_tied(tmp_path):
    alone, losses = trained(tmp_path / "alone")
    for max_steps in (3, 7, None):
        killed, again = trained(tmp_path / "killed", max_steps=max_steps)
    assert again == losses
    assert killed.head.weight is killed.words.weight
    assert all(map(torch.equal, killed.parameters(), alone.parameters()))
    tied, untied = Language(), Language()
    untied.head.weight = nn.Parameter(torch.zeros(WORDS, WIDTH))
    for model in (tied, untied):
        colabkit.load(model, tmp_path / "killed")
        assert torch.equal(model.head.weight, alone.head.weight)


def test_only_names_of_the_very_same_numbers_are_one():
    backend = TorchBackend(torch.device("cpu"))
    square = torch.arange(9.0).reshape(3, 3)
    state = {
        "given": square,
        "again": square.detach(),
        "as a parameter": nn.Parameter(square),
        "transposed": square.t(),
        "as whole numbers": square.view(torch.int32),
        "a part": square[:2],
        "equal": square.clone(),
        "empty": square[:0],
        "empty too": square[:0],
    }
    skeleton, leaves = encode(state, backend.is_tensor, tells=backend)
    keys = {name: node["key"] for name, node in skeleton.items()}
    assert keys["again"] == keys["as a parameter"] == "given"
    assert len(set(keys.values())) == len(leaves) == len(state) - 2
