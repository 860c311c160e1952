"""What kept values share, with each other and with the model, they share after a resume."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import colabkit
from tests.torch.killing import in_child, kill_self


@dataclasses.dataclass
class Count:
    n: float = 0.0


def rows(kept: Any, epoch: int, model: nn.Module) -> None:
    del epoch, model
    kept.row = []
    kept.rows.append(kept.row)


def many_rows(kept: Any, epoch: int, model: nn.Module) -> None:
    del model
    if epoch == 0:
        kept.rows.extend([] for _ in range(1000))
    kept.row = []
    kept.rows.append(kept.row)


def in_tuples(kept: Any, epoch: int, model: nn.Module) -> None:
    del model
    kept.row = []
    kept.rows = (*kept.rows, kept.row)


def views(kept: Any, epoch: int, model: nn.Module) -> None:
    del model
    kept.row = kept.rows[epoch]


def of_model(kept: Any, epoch: int, model: nn.Module) -> None:
    del epoch
    kept.row, kept.rows = model[0].weight.detach(), [model[3].bias.data]


def counts(kept: Any, epoch: int, model: nn.Module) -> None:
    del epoch, model
    kept.row = Count()
    kept.rows.append(kept.row)


def add(row: Any, loss: float) -> None:
    if isinstance(row, torch.Tensor):
        row += 0.01 * loss
    elif isinstance(row, Count):
        row.n += loss
    else:
        row.append(loss)


def heat(rows: Any) -> float:
    if isinstance(rows, torch.Tensor):
        return float(rows.sum())
    return sum(each.n if isinstance(each, Count) else float(sum(each)) for each in rows)


KINDS: dict[str, tuple[Any, Any]] = {
    "rows": (rows, list),
    "many rows": (many_rows, list),
    "tuples": (in_tuples, tuple),
    "views": (views, lambda: torch.zeros(3, 2)),
    "of the model": (of_model, list),
    "objects": (counts, list),
}


def train(folder: Path | None, kind: str, dies_at: int = -1) -> list[list[float]]:
    begin, made = KINDS[kind]
    torch.manual_seed(0)
    data = TensorDataset(x := torch.randn(40, 6), (x[:, 0] > 0).long())
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Dropout(0.0), nn.Linear(8, 2))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    run: Any = Plain()
    if folder is not None:
        run = colabkit.Run(folder, model=model, optimizer=optimizer, save_every=1, progress=False)
    kept = run.state(rows=made(), row=None)
    for epoch in run.epochs(3):
        begin(kept, epoch, model)
        for inputs, target in run.batches(DataLoader(data, 8)):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(inputs), target)
            loss.backward()
            optimizer.step()
            add(kept.row, loss.item())
            optimizer.param_groups[0]["lr"] = 0.1 / (1 + abs(heat(kept.rows)))
            if folder is not None:
                run.flush()
                if run.step == dies_at:
                    kill_self()
    assert folder is None or not run.verdict.reasons
    return [value.flatten().tolist() for value in model.parameters()]


class Plain:
    """The loop without a run."""

    def state(self, **values: Any) -> Any:
        return type("Kept", (), values)()

    def epochs(self, count: int) -> range:
        return range(count)

    def batches(self, loader: Any) -> Any:
        return loader


@pytest.mark.parametrize("kind", KINDS)
def test_kept_values_share_after_a_resume_what_they_shared(kind, tmp_path):
    report = tmp_path / "report"
    for step in (3, 8):
        assert not in_child(
            lambda step=step: train(tmp_path / "run", kind, step) and None, report=report
        )

    def to_the_end() -> None:
        assert train(tmp_path / "run", kind) == train(None, kind)

    assert in_child(to_the_end, report=report)
