"""Sources with a state of their own that take turns in one loop, beside the plain loop."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn
from torch.nn import functional
from torch.utils import data as torch_data

import colabkit
from colabkit.errors import CheckpointMismatchError
from colabkit.runs.between_passes import CANNOT_BE_TOLD_APART, TAKEN_FOR_NEW
from tests.torch.killing import in_child, kill_self
from tests.torch.test_between_passes import Reordered, reordered
from tests.torch.test_sources_with_state import SAMPLERS, of_nodes, pairs

Order = Callable[[int], str]
Place = int | str


def in_a_stateful_loader(turned: int) -> Any:
    from torchdata.stateful_dataloader import StatefulDataLoader

    return StatefulDataLoader(Reordered(1.0 + turned), batch_size=8)


def nodes(turned: int) -> Any:
    if turned:
        return of_nodes(torch_data.SequentialSampler(range(len(pairs()))), 0)
    return of_nodes(SAMPLERS["its own"](), 0)


MAKERS = {
    "loaders": lambda turned: torch_data.DataLoader(Reordered(1.0 + turned), batch_size=8),
    "stateful loaders": in_a_stateful_loader,
    "nodes": nodes,
}
ORDERS: dict[str, Order] = {
    "one an epoch": lambda epoch: "ab"[epoch % 2],
    "three, the last but seldom": lambda epoch: "aabcab"[epoch],
    "both, first one and then the other": lambda epoch: ("ab", "ba")[epoch % 2],
    "one for long, then another": lambda epoch: "aaabbb"[epoch],
}


def step_of(model: nn.Module, optimizer: torch.optim.Optimizer, batch: Any) -> None:
    x, y = batch
    optimizer.zero_grad()
    functional.cross_entropy(model(x), y).backward()
    optimizer.step()


def learner() -> tuple[nn.Module, torch.optim.Optimizer]:
    torch.manual_seed(0)
    model = nn.Linear(6, 2)
    return model, torch.optim.Adam(model.parameters(), lr=0.01)


def uninterrupted(folder: Path, order: Order, kind: str) -> list[torch.Tensor]:
    """By a plain loop; an order that the run draws under keys of its own, by a run."""
    if kind == "nodes":
        return trained(folder, order, MAKERS[kind], 6, None)[0]
    return by_hand(order, MAKERS[kind], 6)


def by_hand(order: Order, make: Callable[[int], Any], epochs: int) -> list[torch.Tensor]:
    model, optimizer = learner()
    sources = {name: make(turned) for turned, name in enumerate("abc")}
    for epoch in range(epochs):
        for name in order(epoch):
            for batch in sources[name]:
                step_of(model, optimizer, batch)
    return [value.detach() for value in model.parameters()]


def trained(
    folder: Path,
    order: Order,
    make: Callable[[int], Any],
    epochs: int,
    dies: Place | None,
    **more: Any,
) -> tuple[list[torch.Tensor], tuple[str, ...]]:
    """Dies at a step, or where an epoch begins: ``"epoch 3"``."""
    model, optimizer = learner()
    options = {"save_every": 1, "progress": False, **more}
    run = colabkit.Run(folder, model=model, optimizer=optimizer, **options)
    sources = {name: make(turned) for turned, name in enumerate("abc")}
    for epoch in run.epochs(epochs):
        if dies == f"epoch {epoch}":
            run.flush()
            kill_self()
        for name in order(epoch):
            for batch in run.batches(sources[name]):
                step_of(model, optimizer, batch)
                if isinstance(dies, int) and run.step >= dies - 1:
                    run.flush()  # the saver is free at the next boundary, and done at the last
                if run.step == dies:
                    kill_self()
        run.log_epoch(falling=-epoch)
    return [value.detach() for value in model.parameters()], run.verdict.reasons


def killed(
    folder: Path,
    order: Order,
    make: Callable[[int], Any],
    epochs: int,
    places: list[Place],
    **more: Any,
) -> tuple[list[torch.Tensor], tuple[str, ...]]:
    report, result = folder / "report.txt", folder / "result.pt"
    for place in places:

        def until(place: Place = place) -> None:
            trained(folder / "run", order, make, epochs, place, **more)

        assert not in_child(until, report=report)

    def to_the_end() -> None:
        torch.save(trained(folder / "run", order, make, epochs, None, **more), result)

    assert in_child(to_the_end, report=report)
    found: tuple[list[torch.Tensor], tuple[str, ...]] = torch.load(result, weights_only=True)
    return found


def same(one: list[torch.Tensor], other: list[torch.Tensor]) -> bool:
    return all(torch.equal(a, b) for a, b in zip(one, other, strict=True))


CASES = [
    *(("loaders", order) for order in ORDERS),
    ("stateful loaders", "one an epoch"),
    ("stateful loaders", "both, first one and then the other"),
    ("nodes", "one an epoch"),
]


@pytest.mark.parametrize(("kind", "order"), CASES)
def test_sources_that_take_turns_go_on_each_from_its_place(kind, order, tmp_path):
    make, chosen = MAKERS[kind], ORDERS[order]
    expected = uninterrupted(tmp_path / "alone", chosen, kind)
    weights, reasons = killed(tmp_path, chosen, make, 6, [8, 14, 32])
    assert same(weights, expected)
    # A third that comes late may be new, or one of the others with other data.
    assert not reasons or (order.startswith("three") and reasons == (TAKEN_FOR_NEW,))


def test_sources_that_give_the_same_first_are_named(tmp_path):
    _, reasons = trained(tmp_path, ORDERS["one an epoch"], lambda _: reordered(), 2, None)
    assert reasons == (CANNOT_BE_TOLD_APART,)


# Saves where an epoch ends, and nowhere else.
AT_THE_END = {"monitor": "falling", "save_every": None}


def test_they_do_where_a_session_ends_between_two_epochs(tmp_path):
    make, chosen = MAKERS["loaders"], ORDERS["one an epoch"]
    places: list[Place] = ["epoch 2", "epoch 5"]
    weights, reasons = killed(tmp_path, chosen, make, 6, places, **AT_THE_END)
    assert not reasons
    assert same(weights, by_hand(chosen, make, 6))


def test_what_a_loop_reads_first_after_passes_of_another_is_an_error_until_accepted(tmp_path):
    make, chosen, report = MAKERS["loaders"], ORDERS["one for long, then another"], tmp_path / "r"

    def until_the_other() -> None:
        trained(tmp_path / "run", chosen, make, 6, "epoch 3", **AT_THE_END)

    def again() -> None:
        with pytest.raises(CheckpointMismatchError, match="its first batch, of epoch 1, has"):
            trained(tmp_path / "run", chosen, make, 6, None, **AT_THE_END)

    assert not in_child(until_the_other, report=report)
    assert in_child(again, report=report)
    accepting = {**AT_THE_END, "data_changed": "accept"}
    weights, reasons = killed(tmp_path, chosen, make, 6, [], **accepting)
    assert reasons == (TAKEN_FOR_NEW,)
    assert same(weights, by_hand(chosen, make, 6))


def over_one_dataset(folder: Path, wrap: Callable[[Any], Any], dies: Place | None) -> colabkit.Run:
    model, optimizer = learner()
    run = colabkit.Run(folder, model=model, optimizer=optimizer, save_every=1, progress=False)
    data = Reordered()
    for epoch in run.epochs(5):
        if dies == f"epoch {epoch}":
            run.flush()
            kill_self()
        for x, y in run.batches(wrap(data)):
            step_of(model, optimizer, (x, y))
            run.log(first=x[0, 0])
            run.flush()  # the saver is free at each boundary: what is known depends on the last
            if run.step == dies:
                kill_self()
    return run


def in_a_loader(data: Any) -> Any:
    return torch_data.DataLoader(data, batch_size=8)


@pytest.mark.parametrize("places", [[8, 14], ["epoch 2", 20]])
def test_a_dataset_with_a_state_goes_on_in_loaders_made_anew(places, tmp_path):
    report, data = tmp_path / "report", Reordered()
    expected = [float(x[0, 0]) for _ in range(5) for x, _ in in_a_loader(data)]
    for place in places:
        assert not in_child(
            lambda place=place: over_one_dataset(tmp_path / "run", in_a_loader, place) and None,
            report=report,
        )

    def to_the_end() -> None:
        run = over_one_dataset(tmp_path / "run", in_a_loader, None)
        assert run.history.steps["first"].tolist() == expected
        assert not run.verdict.reasons

    assert in_child(to_the_end, report=report)


def test_loaders_with_a_state_made_anew_over_one_dataset_are_named(tmp_path):
    from torchdata.stateful_dataloader import StatefulDataLoader

    run = over_one_dataset(tmp_path, lambda data: StatefulDataLoader(data, batch_size=8), None)
    assert any("make the loader once" in each for each in run.verdict.reasons)
