"""Several calls on one run folder: each is a phase, and none is trained twice or lost."""

from __future__ import annotations

import json
import shutil
import signal
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import colabkit
from colabkit.errors import ArgumentError, CheckpointMismatchError
from colabkit.notebook import note_stopped
from tests.torch.cases import arrays, network
from tests.torch.dying import SystemCalls
from tests.torch.killing import in_child, kill_self

STEPS = 6  # in an epoch of 44 samples by 8


class Notebook:
    """All cells of a notebook, run from the first; dies at a step or a place when it is told to."""

    def __init__(self, folder: Path, *, kill_at: int | str | None = None) -> None:
        self.folder = folder
        self.kill_at = kill_at
        self.seen: list[Any] = []
        self.on_place: Callable[[str], object] = lambda place: None

    def on_event(self, event: Any) -> None:
        if event.name != "batch_end":
            return
        if isinstance(self.kill_at, int) and self.kill_at % 2:
            event.run.flush()
        if event.step == self.kill_at:
            kill_self()

    def fit(self, model: nn.Module, epochs: int, **more: Any) -> colabkit.History:
        data = more.pop("data", None) or arrays()
        given = {"batch_size": 8, "device": "cpu", "progress": False, "save_every": 1, **more}
        given["callbacks"] = [self.on_event, *given.pop("callbacks", [])]
        history = colabkit.fit(model, data, self.folder, epochs=epochs, **given)
        self.look(model, history)
        return history

    def look(self, model: nn.Module, history: colabkit.History) -> None:
        """Takes down what the cells between two calls can see."""
        weights = [t.double().sum().item().hex() for t in model.state_dict().values()]
        rows = [{k: v.hex() for k, v in map_of(row).items()} for row in history.numbers()["epochs"]]
        self.seen.append([weights, rows, torch.rand(1).item()])

    def at(self, place: str) -> None:
        self.on_place(place)
        if place == self.kill_at:
            kill_self()


def map_of(row: dict[str, float]) -> dict[str, float]:
    return {name: float(value) for name, value in row.items()}


def freeze(model: nn.Module, *, first: int) -> None:
    """Trains the layers from one on alone."""
    for number, layer in enumerate(model):
        layer.requires_grad_(number >= first)


def trainable(model: nn.Module) -> list[nn.Parameter]:
    return [p for p in model.parameters() if p.requires_grad]


def head_then_all(book: Notebook) -> nn.Module:
    model = network(norm=True)
    freeze(model, first=4)
    book.fit(model, 2, optimizer=torch.optim.Adam(trainable(model), lr=0.05))
    book.at("between")
    freeze(model, first=0)
    book.fit(model, 4, optimizer=torch.optim.Adam(trainable(model), lr=0.005))
    return model


def group_added(book: Notebook) -> nn.Module:
    model = network()
    freeze(model, first=3)
    optimizer = torch.optim.SGD(trainable(model), lr=0.1, momentum=0.9)
    book.fit(model, 2, optimizer=optimizer)
    book.at("between")
    freeze(model, first=0)
    optimizer.param_groups[0]["lr"] = 0.03
    optimizer.add_param_group({"params": list(model[0].parameters()), "lr": 0.01})
    book.fit(model, 4, optimizer=optimizer)
    return model


def three_rates_with_the_best_between(book: Notebook) -> nn.Module:
    model = network()
    for number, rate in enumerate((0.3, 0.03, 0.3)):
        book.at(f"between {number}")
        given = {"optimizer": torch.optim.AdamW(model.parameters(), lr=rate)}
        stopping = colabkit.EarlyStopping("val_loss", patience=1, min_delta=0.4)
        book.fit(model, 2 * number + 2, validation_data=arrays(), callbacks=[stopping], **given)
        colabkit.load(model, book.folder, "best")
    return model


def one_epoch_a_call(book: Notebook) -> nn.Module:
    model = network()
    for epoch in range(4):
        book.fit(model, epoch + 1, optimizer="adamw", scheduler="cosine")
        book.at(f"between {epoch}")
    book.seen = book.seen[-1:]  # a call finds the newest state, which may be a later one
    return model


def pruned_after_each_call(book: Notebook) -> nn.Module:
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    for epoch in range(4):
        book.fit(model, epoch + 1, optimizer=optimizer)
        with torch.no_grad():
            model[0].weight[model[0].weight.abs() < 0.05] = 0.0
        book.at(f"between {epoch}")
    book.seen = book.seen[-1:]  # of phases that are alike, only the newest ends are kept
    return model


def one_layer_more_each_time(book: Notebook) -> nn.Module:
    model = network(norm=True)
    for number, first in enumerate((4, 3, 1, 0)):
        freeze(model, first=first)
        optimizer = torch.optim.Adam(trainable(model), lr=0.01)
        book.fit(model, number + 1, optimizer=optimizer, phase=f"from layer {first}")
        book.at(f"between {number}")
    return model


def other_data_afterwards(book: Notebook) -> nn.Module:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    x, y = arrays()
    book.fit(model, 2, optimizer=optimizer)
    book.at("between")
    book.fit(model, 4, optimizer=optimizer, data=(x.flip(0), y.flip(0)))
    return model


def new_head_afterwards(book: Notebook) -> nn.Module:
    model = network()
    book.fit(model, 2, optimizer=torch.optim.Adam(model.parameters(), lr=0.01))
    book.at("between")
    model[4 if len(model) > 4 else 3] = nn.Linear(12, 3)
    model.append(nn.Linear(3, 3))
    book.fit(model, 4, optimizer=torch.optim.Adam(model.parameters(), lr=0.01))
    return model


def cut_short(book: Notebook) -> nn.Module:
    model = network()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.01)
    book.fit(model, 4, optimizer=optimizer, max_steps=8)
    book.at("between")
    book.fit(model, 3, optimizer=torch.optim.SGD(model.parameters(), lr=0.1))
    return model


def loops_of_its_own(book: Notebook) -> nn.Module:
    model = network()
    x, y = arrays()
    for epochs, first, rate in ((2, 3, 0.1), (4, 0, 0.01)):
        freeze(model, first=first)
        optimizer = torch.optim.Adam(trainable(model), lr=rate)
        run = colabkit.Run(
            book.folder, model=model, optimizer=optimizer, save_every=1, progress=False
        )
        for _ in run.epochs(epochs):
            for inputs, targets in run.batches((x, y), batch_size=8):
                loss = nn.functional.cross_entropy(model(inputs), targets)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
                run.log(loss=loss)
                run.flush()
                if run.step + 1 == book.kill_at:
                    kill_self()
        book.look(model, run.history)
        book.at(f"after {epochs}")
    return model


NOTEBOOKS: dict[str, tuple[Callable[[Notebook], nn.Module], list[int | str]]] = {
    "head_then_all": (head_then_all, [3, 13, "between", 14, 17, 18]),
    "group_added": (group_added, [7, "between", 13, 20]),
    "three_rates_with_the_best_between": (
        three_rates_with_the_best_between,
        [5, "between 1", 15, "between 2", 25],
    ),
    "one_epoch_a_call": (one_epoch_a_call, [5, "between 0", 9, 15, "between 2", 21]),
    "one_layer_more_each_time": (
        one_layer_more_each_time,
        [5, "between 0", 9, "between 1", 15, "between 2", 21],
    ),
    "pruned_after_each_call": (pruned_after_each_call, [5, "between 0", 9, 15, "between 2", 21]),
    "other_data_afterwards": (other_data_afterwards, [5, "between", 13, 17]),
    "cut_short": (cut_short, [3, "between", 9, 13]),
    "loops_of_its_own": (loops_of_its_own, [5, "after 2", 13, 19]),
    "new_head_afterwards": (new_head_afterwards, [5, "between", 13, 17]),
}


def ended(folder: Path, model: nn.Module, book: Notebook) -> dict[str, Any]:
    newest = colabkit.checkpoints(folder)[0]
    return {
        "hashes": {k: v for k, v in newest.hashes.items() if not k.startswith("run.")},
        "step": newest.step,
        "seen": book.seen,
        "weights": [t.double().sum().item().hex() for t in model.state_dict().values()],
    }


def live(name: str, folder: Path, run: str, kill_at: int | str | None = None) -> bool:
    def work() -> None:
        book = Notebook(folder / run, kill_at=kill_at)
        model = NOTEBOOKS[name][0](book)
        (folder / f"{run}.json").write_text(json.dumps(ended(folder / run, model, book)))

    return in_child(work, report=folder / "report.txt")


def told(folder: Path, run: str) -> dict[str, Any]:
    return json.loads((folder / f"{run}.json").read_text())


@pytest.mark.parametrize("name", NOTEBOOKS)
def test_a_notebook_of_several_phases_killed_anywhere_ends_with_the_same_bits(name, tmp_path):
    assert live(name, tmp_path, "alone")
    for kill_at in NOTEBOOKS[name][1]:
        assert not live(name, tmp_path, "killed", kill_at)
    assert live(name, tmp_path, "killed")
    alone, killed = (told(tmp_path, run) for run in ("alone", "killed"))
    # What the cells between the calls saw is the same as well.
    assert killed == alone


def test_a_kill_within_the_first_save_of_a_phase_is_as_good_as_any(tmp_path):
    assert live("head_then_all", tmp_path, "alone")

    def life(run: str, *, deadly: int | None) -> Callable[[], None]:
        def work() -> None:
            book, calls = Notebook(tmp_path / run), SystemCalls(None)

            def begin(place: str) -> None:
                # Counts, and dies, from here on.
                calls.count, calls.deadly = 0, deadly

            book.on_place = begin
            with calls.watching():
                head_then_all(book)

        return work

    for deadly in (2, 5, 8, 11):
        run = f"killed {deadly}"
        report = tmp_path / "report.txt"
        assert not in_child(life(run, deadly=deadly), report=report)
        assert live("head_then_all", tmp_path, run)
        # Not as text: in which order tensors are named follows from the files they lie in.
        assert told(tmp_path, run) == told(tmp_path, "alone")


def trained(folder: Path, epochs: int = 2, **more: Any) -> tuple[nn.Module, colabkit.History]:
    model = more.pop("model", None) or network()
    book = Notebook(folder)
    optimizer = torch.optim.SGD(trainable(model), lr=more.pop("lr", 0.1))
    return model, book.fit(model, epochs, optimizer=optimizer, **more)


def test_the_new_rate_is_used_and_the_weights_just_loaded_are_not_overwritten(tmp_path):
    model, _ = trained(tmp_path, 3, validation_data=arrays(), lr=1.5)
    assert colabkit.load(model, tmp_path, "best").is_best
    held = [t.clone() for t in model.state_dict().values()]
    began: list[bool] = []

    def look(event: Any) -> None:
        if event.name == "train_begin":
            began.append(all(map(torch.equal, held, model.state_dict().values())))

    _, history = trained(tmp_path, 5, model=model, lr=0.25, callbacks=[look])
    assert began == [True]
    assert [row["lr"] for row in history.epochs] == [1.5, 1.5, 1.5, 0.25, 0.25]
    assert [(each.name, each.epoch) for each in history.phases] == [("phase 1", 0), ("phase 2", 3)]
    assert "2 phases" in repr(history)
    assert "Phases: phase 1 from epoch 1, phase 2 from epoch 4." in history._repr_html_()


def test_an_early_end_of_one_phase_does_not_end_the_next(tmp_path):
    stopping = colabkit.EarlyStopping("loss", patience=1, min_delta=9.0)
    model, history = trained(tmp_path, 9, callbacks=[stopping])
    assert len(history.epochs) == 2
    _, history = trained(tmp_path, 9, model=model, lr=0.01, callbacks=[stopping], phase="slow")
    assert len(history.epochs) == 4


def test_a_schedule_by_name_is_as_long_as_its_phase(tmp_path):
    model, _ = trained(tmp_path, 2)
    _, history = trained(tmp_path, 6, model=model, scheduler="cosine")
    _, alone = trained(tmp_path / "alone", 4, scheduler="cosine")
    assert [row["lr"] for row in history.epochs[2:]] == [row["lr"] for row in alone.epochs]


def test_the_end_of_a_phase_is_kept_as_long_as_another_goes_on_from_it(tmp_path):
    model, _ = trained(tmp_path, 1, phase="head")
    end = colabkit.checkpoints(tmp_path)[0]
    trained(tmp_path, 4, model=model, lr=0.01, phase="all")
    found = colabkit.checkpoints(tmp_path, verify=True)
    assert not any(info.problem for info in found)
    assert end.name in {info.name for info in found}
    assert len(found) == 3
    assert "phase" in repr(found)
    _, history = trained(tmp_path, 1, phase="head")
    assert [each.name for each in history.phases] == ["head"]
    assert len(history.epochs) == 1


def test_a_call_by_name_in_another_session_begins_with_the_weights_of_the_phase_before(tmp_path):
    first, _ = trained(tmp_path, 1)
    held = [t.clone() for t in first.state_dict().values()]
    began: list[bool] = []
    other = network()

    def look(event: Any) -> None:
        if event.name == "train_begin":
            began.append(all(map(torch.equal, held, other.state_dict().values())))

    trained(tmp_path, 2, model=other, lr=0.01, phase="slow", callbacks=[look])
    assert began == [True]


def test_what_is_no_phase_is_said_with_the_way_on(tmp_path):
    model, _ = trained(tmp_path, 2, phase="head")
    with pytest.raises(ArgumentError, match="epochs=4 to train 2 more") as caught:
        trained(tmp_path, 2, model=model, lr=0.01)
    assert caught.value.argument == "epochs"
    with pytest.raises(ArgumentError):
        trained(tmp_path, 3, phase=" ")
    x, y = arrays()
    with pytest.raises(CheckpointMismatchError, match="needs another folder"):
        trained(tmp_path, 2, data=(x.flip(0), y.flip(0)))
    other = network()
    freeze(other, first=3)
    with pytest.raises(CheckpointMismatchError, match="optimizer groups"):
        trained(tmp_path, 2, model=other)


def two_phases(folder: Path, *, interrupt_at: int = -1, **first: Any) -> nn.Module:
    """A cell, or a script, with two calls on one folder."""

    def interrupt(event: Any) -> None:
        if event.name == "batch_end" and event.step == interrupt_at:
            signal.raise_signal(signal.SIGINT)

    model, passed = network(), {"batch_size": 8, "device": "cpu", "progress": False}
    colabkit.fit(model, arrays(), folder, epochs=2, callbacks=[interrupt], **passed, **first)
    colabkit.fit(model, arrays(), folder, epochs=3, lr=0.01, **passed)
    return model


def test_a_phase_that_was_interrupted_comes_to_its_end_before_the_next_begins(tmp_path):
    with pytest.raises(KeyboardInterrupt, match="the next one does not begin"):
        two_phases(tmp_path / "run", interrupt_at=4)
    assert colabkit.checkpoints(tmp_path / "run")[0].step == 4
    resumed, alone = two_phases(tmp_path / "run"), two_phases(tmp_path / "alone")
    pairs = zip(resumed.state_dict().values(), alone.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_phase_whose_time_was_up_comes_to_its_end_before_the_next_begins(tmp_path):
    with pytest.raises(CheckpointMismatchError, match=r"time was up \(max_time is 1e-09\)"):
        two_phases(tmp_path / "run", max_time=1e-9)
    with pytest.raises(KeyboardInterrupt):
        two_phases(tmp_path / "run", interrupt_at=4)
    with pytest.raises(CheckpointMismatchError, match="pass max_steps=4 to it, to leave it"):
        two_phases(tmp_path / "run", max_time=1e-9)
    two_phases(shutil.copytree(tmp_path / "run", tmp_path / "left"), max_steps=4)
    assert [each.step for each in colabkit.checkpoints(tmp_path / "left")][-1] == 4
    resumed, alone = two_phases(tmp_path / "run"), two_phases(tmp_path / "alone")
    pairs = zip(resumed.state_dict().values(), alone.state_dict().values(), strict=True)
    assert all(torch.equal(one, other) for one, other in pairs)


def test_a_stop_ends_all_that_a_cell_would_train(tmp_path, monkeypatch):
    cells = [""] * 7003
    monkeypatch.setattr(sys.modules["__main__"], "In", cells, raising=False)
    with pytest.raises(KeyboardInterrupt, match="this call does not begin"):
        two_phases(tmp_path / "run", interrupt_at=4)
    two_phases(tmp_path / "run")  # called again by a widget's button, which runs no cell
    with pytest.raises(KeyboardInterrupt, match="this call does not begin"):
        two_phases(tmp_path / "again", interrupt_at=4)
    cells.append("")
    two_phases(tmp_path / "again")


def test_a_stop_of_fit_ends_a_loop_of_ones_own_behind_it(tmp_path, monkeypatch):
    monkeypatch.setattr(sys.modules["__main__"], "In", [""] * 7005, raising=False)
    note_stopped()
    with pytest.raises(KeyboardInterrupt, match="this run does not begin"):
        colabkit.Run(tmp_path / "own", model=network())
    assert [*tmp_path.iterdir()] == []
