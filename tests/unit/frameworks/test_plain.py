"""Runs without a framework: items and arrays where PyTorch is not installed, trees of NumPy."""

from __future__ import annotations

import random
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import colabkit
from colabkit.errors import ArgumentError, MissingPackageError
from colabkit.frameworks.base import Start
from colabkit.frameworks.plain import feed_of

_WITHOUT_TORCH = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in {"torch", "keras", "tensorflow", "jax"}:
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)
sys.meta_path.insert(0, Blocked())
import numpy as np
import colabkit
from colabkit.errors import MissingPackageError
run = colabkit.Run(sys.argv[1] + "/items", progress=False)
assert list(run.items("ab")) == ["a", "b"]
run = colabkit.Run(sys.argv[1] + "/arrays", progress=False)
kept = run.state(total=0.0)
for _ in run.epochs(2):
    for x, y in run.batches((np.arange(5), np.arange(5) * 2), batch_size=2):
        assert type(x) is np.ndarray and (y == 2 * x).all()
        kept.total += float(x.sum())
        run.log(total=kept.total)
assert kept.total == 20 and run.step == 6
assert str(run.verdict).startswith("Resume is exact")
try:
    colabkit.Run(sys.argv[1] + "/object", thing=object())
except MissingPackageError as error:
    assert "PyTorch" in str(error)
else:
    raise SystemExit("nothing was said of an object that nobody can save")
"""


def test_items_and_arrays_need_no_framework(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", _WITHOUT_TORCH, str(tmp_path)],
        cwd=Path(__file__).parents[3],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr


def _trained(folder: Path, last: int = -1) -> Any:
    state = {"w": np.zeros(3), "moments": [np.ones((2, 2), "float32"), 0], "name": "a"}
    x = np.random.default_rng(0).normal(size=(10, 3))
    run = colabkit.Run(folder, state=state, save_every=1, progress=False)
    for _ in run.epochs(3):
        for batch in run.batches(x, batch_size=4):
            noise = np.random.normal(size=3)
            moment, count = run.state["moments"]
            moments = [moment * np.float32(0.9), count + len(batch)]
            run.state = {**run.state, "w": run.state["w"] * 0.9 + batch.sum(0) + noise}
            run.state["moments"] = moments
            if run.step == last:
                raise KeyboardInterrupt
    return run


@pytest.mark.parametrize("last", [1, 4, 6])
def test_a_tree_of_arrays_goes_on_with_the_same_bits(tmp_path: Path, last: int) -> None:
    with pytest.raises(KeyboardInterrupt):
        _trained(tmp_path / "two", last)
    alone, resumed = _trained(tmp_path / "one"), _trained(tmp_path / "two")
    assert alone.state["w"].tobytes() == resumed.state["w"].tobytes()
    assert alone.state["moments"][0].tobytes() == resumed.state["moments"][0].tobytes()
    assert alone.state["moments"][1] == resumed.state["moments"][1] == 30
    assert resumed.state["name"] == "a"
    assert alone.verdict.reasons == ()


def _laid(name: str) -> np.ndarray:
    rows = np.arange(24.0).reshape(2, 3, 4)
    return {"rows": rows, "columns": np.asfortranarray(rows), "moved": rows.transpose(1, 2, 0)}[
        name
    ]


@pytest.mark.parametrize("name", ["rows", "columns", "moved"])
def test_an_array_lies_in_memory_as_it_lay(tmp_path: Path, name: str) -> None:
    def made() -> tuple[colabkit.Run, Any]:
        run = colabkit.Run(tmp_path, weights={"w": _laid(name)}, save_every=1, progress=False)
        return run, run.state(own=_laid(name), replaced=np.zeros((2, 3, 4)))

    run, kept = made()
    for _ in run.items(range(1)):
        run.weights["w"] += 1.0
        kept.own += 1.0
        kept.replaced = _laid(name)
    run, kept = made()
    wanted = _laid(name)
    for found, more in ((run.weights["w"], 1.0), (kept.own, 1.0), (kept.replaced, 0.0)):
        assert found.strides == wanted.strides
        np.testing.assert_array_equal(found, wanted + more)
    gapped = np.asfortranarray(np.ones((3, 2)))[::2]  # strided in columns: its axes stay
    assert _resaved(tmp_path / "gapped", gapped).flags.f_contiguous


def _resaved(folder: Path, array: np.ndarray) -> np.ndarray:
    def train() -> np.ndarray:
        run = colabkit.Run(folder, weights={"w": array}, save_every=1, progress=False)
        for _ in run.items(range(1)):
            run.weights = {"w": run.weights["w"]}
        return run.weights["w"]

    train()
    return train()


def test_an_object_of_one_s_own_beside_a_tree_is_saved_by_its_state(tmp_path: Path) -> None:
    class Counter:
        count = 0

        def state_dict(self) -> dict[str, Any]:
            return {"count": self.count}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            self.count = state["count"]

    counter = Counter()
    run = colabkit.Run(tmp_path, tree=[np.zeros(2)], counter=counter, progress=False)
    for _ in run.items(range(3)):
        counter.count += 1
        run.tree[0] += 1
    again = Counter()
    run = colabkit.Run(tmp_path, tree=[np.zeros(2)], counter=again, progress=False)
    assert again.count == 3
    assert run.tree[0].tolist() == [3, 3]


@pytest.mark.parametrize(
    ("make", "draw"),
    [
        (np.random.default_rng, lambda rng: rng.integers(1 << 60)),
        (np.random.RandomState, lambda rng: rng.randint(1 << 30)),
        (random.Random, lambda rng: rng.getrandbits(60)),
    ],
)
def test_a_generator_beside_a_tree_draws_on(make: Any, draw: Any, tmp_path: Path) -> None:
    by_hand, drawn = make(4), []
    for most in (3, None):
        tree = [np.zeros(2)]
        run = colabkit.Run(tmp_path, tree=tree, rng=make(4), progress=False, max_steps=most)
        for _ in run.items(range(5)):
            drawn.append(draw(run.rng))
            run.tree[0] += 1
    assert drawn == [draw(by_hand) for _ in range(5)]


def test_arrays_changed_in_place_are_seen_to_change(tmp_path: Path) -> None:
    run = colabkit.Run(tmp_path, tree=[np.zeros(2)], progress=False, save_every=1)
    for _ in run.items(range(3)):
        run.tree[0] += 1
    assert not run.verdict.reasons


def _batches(feed: Any, **options: Any) -> list[Any]:
    return list(feed.batches(Start(key=7, epoch=0, **options)))


@pytest.mark.parametrize(
    "data",
    [
        np.arange(10).reshape(5, 2),
        {"x": np.arange(5), "y": (np.arange(5), np.ones((5, 2)))},
        [np.arange(2), np.arange(3), np.arange(4)],
    ],
    ids=["array", "nested", "batches"],
)
def test_a_pass_that_is_entered_late_gives_the_batches_that_are_left(data: Any) -> None:
    feed = feed_of(data, batch_size=2, shuffle=True)
    whole, rest = _batches(feed), _batches(feed, skip=1)
    assert len(whole) == 3 == feed.length
    assert repr(whole[1:]) == repr(rest)


def test_samples_are_drawn_alike_wherever_a_pass_is_entered() -> None:
    class Noisy:
        def __len__(self) -> int:
            return 7

        def __getitem__(self, index: int) -> Any:
            return {"x": np.full(2, index) + np.random.normal(size=2), "y": index}

    feed = feed_of(Noisy(), batch_size=3, shuffle=True)
    whole, rest = _batches(feed), _batches(feed, skip=2)
    assert [batch["x"].shape for batch in whole] == [(3, 2), (3, 2), (1, 2)]
    assert sorted(n for batch in whole for n in batch["y"]) == list(range(7))
    assert rest[0]["x"].tobytes() == whole[2]["x"].tobytes()


def test_generators_that_samples_make_are_drawn_from_alike_wherever_a_pass_is_entered() -> None:
    class Noise:
        def __call__(self, row: Any) -> Any:
            if not hasattr(self, "own"):
                self.own = np.random.default_rng(1)
            return row + self.own.normal()

    class Noisy:
        def __init__(self) -> None:
            self.transforms = [Noise(), Noise(), Noise()]

        def __len__(self) -> int:
            return 6

        def __getitem__(self, index: int) -> Any:
            return self.transforms[2 - index // 2](np.full(2, index))

    whole = _batches(feed_of(Noisy(), batch_size=2, shuffle=False))
    for skip in (1, 2):
        rest = _batches(feed_of(Noisy(), batch_size=2, shuffle=False), skip=skip)
        assert repr(rest) == repr(whole[skip:])


def test_what_gives_other_batches_when_read_again_is_named() -> None:
    counts = iter(range(100))
    feed = feed_of(lambda: iter([np.array(next(counts))]), batch_size=1, shuffle=False)
    _batches(feed)
    assert "another first batch" in feed.reasons()[0]


def test_data_that_is_none_is_refused() -> None:
    for data in (3, "folder", {"train": [1]}):
        with pytest.raises(ArgumentError, match="no batches can be read"):
            feed_of(data, batch_size=1, shuffle=False)
    with pytest.raises(ArgumentError, match="different lengths"):
        feed_of((np.zeros(2), np.zeros(3)), batch_size=1, shuffle=False)
    assert issubclass(MissingPackageError, Exception)


def test_what_steps_of_a_loop_without_a_framework_go_by_is_named(tmp_path: Path) -> None:
    run = colabkit.Run(tmp_path, tree={"w": np.zeros(2)}, progress=False)
    bank, counts, speed, best, shown = np.ones((3, 2)), {0: 0, 1: 0}, np.zeros(2), None, 0
    labels = np.sign(run.tree["w"].sum() + np.arange(3.0))
    for row in run.items(range(3)):
        counts[row % 2] += 1
        bank[row] = run.tree["w"]
        speed = 0.9 * speed + bank.mean(0) / (1 + counts[0]) + labels[row]
        best = speed if best is None else np.maximum(best, speed)
        run.tree["w"] += np.minimum(best, speed)
        shown += 1  # noqa: SIM113
        print(shown)
    told = [re.split(" begins anew| is made", each)[0].split()[-1] for each in run.verdict.reasons]
    assert told == ["counts", "bank", "speed", "best", "labels"]
