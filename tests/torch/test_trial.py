"""What could not be resumed ends before the first step, and what could is not disturbed."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

import colabkit
from colabkit.errors import StateError
from tests.torch.cases import arrays
from tests.torch.test_restored import network


class Kept:
    """Counts, and refers to a model; each test breaks it in another way."""

    def __init__(self, model: nn.Module | None = None) -> None:
        self.model, self.count, self.loads = model, 0, 0
        self.sums = torch.zeros(3)

    def state_dict(self) -> dict[str, Any]:
        return {"count": self.count, "sums": self.sums}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.loads += 1
        self.count, self.sums = state["count"], state["sums"]


class Misspelt(Kept):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.sums = state["count"], state["sum"]


class Listing(Kept):
    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.sums = state["count"], state["sums"].tolist()


class Half(nn.Module):
    """Gives its weights in half precision, to keep checkpoints small."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x)

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:
        state = super().state_dict(*args, **options)
        return {name: each.half() for name, each in state.items()}


class Forgetful(Half):
    """Gives all, and takes all but one."""

    def state_dict(self, *args: Any, **options: Any) -> dict[str, Any]:
        return nn.Module.state_dict(self, *args, **options)

    def load_state_dict(self, state: Any, *args: Any, **options: Any) -> Any:
        taken = {name: each for name, each in state.items() if name != "body.3.bias"}
        return super().load_state_dict(taken, strict=False)


class Settings(dict):
    """A dict of one's own."""


def loop(folder: Any, **objects: Any) -> colabkit.Run:
    torch.manual_seed(0)
    model = objects.setdefault("model", network())
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    run = colabkit.Run(folder, optimizer=optimizer, progress=False, save_every=1, **objects)
    for x, y in run.batches(arrays(), batch_size=8):
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(x), y).backward()
        optimizer.step()
    return run


@pytest.mark.parametrize(
    ("objects", "said"),
    [
        ({"kept": Misspelt()}, "kept cannot load what its own state_dict gave.*KeyError: 'sum'"),
        (
            {"kept": Listing()},
            r"kept.sums is a tensor of torch.float32 \[3\], and comes back.*list",
        ),
        ({"model": Half()}, r"model\.body\.0\.weight does not come back bit for bit"),
        ({"model": Forgetful()}, r"model\.body\.3\.bias does not come back bit for bit"),
    ],
)
def test_what_cannot_be_loaded_ends_before_the_first_step(objects, said, tmp_path):
    with pytest.raises(StateError, match=said):
        loop(tmp_path, **objects)
    assert not colabkit.checkpoints(tmp_path)


def test_a_trial_touches_neither_the_objects_nor_the_random_streams(tmp_path, monkeypatch):
    model = network()
    kept = Kept(model)
    loop(tmp_path / "tried", model=model, kept=kept)
    assert kept.loads == 0
    monkeypatch.setattr("colabkit.frameworks.torch.adapter.try_restoring", lambda *_: ())
    other = network()
    loop(tmp_path / "untried", model=other, kept=Kept(other))
    assert all(map(torch.equal, model.parameters(), other.parameters()))


def test_what_comes_back_as_another_type_is_named(tmp_path):
    class Unfound(dict):
        """Of a function's, where no other process finds it."""

    class Holding(Kept):
        def __init__(self, settings: dict[str, float]) -> None:
            super().__init__()
            self.settings = settings

        def state_dict(self) -> dict[str, Any]:
            return {**super().state_dict(), "settings": self.settings}

    run = loop(tmp_path / "unfound", kept=Holding(Unfound(rate=0.1)))
    said = "others.kept.settings is a Unfound, which comes back as a dict"
    assert said in str(run.verdict)
    assert "others.kept" not in str(loop(tmp_path / "run", kept=Holding(Settings())).verdict)


def test_what_may_hold_more_than_memory_is_not_copied(tmp_path):
    class Open(Kept):
        def __init__(self) -> None:
            super().__init__()
            self.file = (tmp_path / "log.txt").open("w")

        def __deepcopy__(self, memo: dict[int, Any]) -> Any:
            raise AssertionError

    kept = Open()
    loop(tmp_path / "run", kept=kept)
    kept.file.close()
