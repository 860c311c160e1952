"""Many values of one kind are stored by columns, and each comes back as it was."""

from __future__ import annotations

import collections
import dataclasses
import enum
import math
from typing import Any

import numpy as np
import pytest
import torch

from colabkit.checkpoint import Forms, Pack, RunFolder, Section, encode
from colabkit.checkpoint.snapshot import LeafFinder
from colabkit.errors import StateError
from colabkit.frameworks.torch import TorchBackend
from tests import format_reader
from tests.torch.test_format_page import assert_same as assert_alike
from tests.torch.test_format_page import plain
from tests.torch.test_many_small import saved

COUNT = 1100
Transition = collections.namedtuple("Transition", "state action next_state reward")


@dataclasses.dataclass
class Step:
    state: torch.Tensor
    reward: float
    after: torch.Tensor | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Frozen:
    state: torch.Tensor


class Marked:
    __slots__ = ("mark",)


@dataclasses.dataclass
class Based(Marked):
    state: torch.Tensor


class Further(Based):
    __slots__ = ("other",)


def of_base(kind: type[Based], number: int) -> Based:
    made = kind(of(number))
    made.mark = (number, of(number))
    if kind is Further and not ended(number):
        made.other = number  # type: ignore[attr-defined]
    return made


class Words(enum.StrEnum):
    A = "a"


def of(number: int) -> torch.Tensor:
    return torch.full((1, 3), float(number))


def ended(number: int) -> bool:
    return number % 7 == 3


ROWS = {
    "tuples": lambda n: (of(n), torch.tensor([[n]])),
    "named tuples": lambda n: Transition(of(n), n, of(n + 1), float(n)),
    "named tuples of ended games": lambda n: Transition(of(n), n, None if ended(n) else of(n), 0.5),
    "tuples of ended games": lambda n: (of(n), None if ended(n) else n, np.float32(n)),
    "lists": lambda n: [of(n), n],
    "dicts": lambda n: {"obs": of(n), "done": ended(n), "$": n},
    "dicts of dicts": lambda n: {"obs": {"a": of(n), "b": (n, of(-n))}, "r": np.float32(n)},
    "objects": lambda n: Step(of(n), n / 3, None if ended(n) else of(n)),
    "objects with slots": lambda n: Frozen(of(n)),
    "objects with slots of a base": lambda n: of_base(Based, n),
    "objects with some slots of their class": lambda n: of_base(Further, n),
    "masked arrays": lambda n: np.ma.array([n, 2.0], mask=[n % 2, 0], fill_value=n),
    "masked arrays without a mask": lambda n: (np.ma.array([[n, 2, 3]] * 2).T, of(n)),
    "arrays": lambda n: (np.full(4, n, np.float32), n, math.inf if ended(n) else 0.1, True),
    "arrays that lie by columns": lambda n: (np.full((2, 3), n).T, of(n)),
    "scalars of several kinds": lambda n: (of(n), np.int64(n) if ended(n) else np.int32(n)),
    "rows of two lengths": lambda n: (of(n),) if ended(n) else (of(n), of(n)),
    "rows of two kinds": lambda n: (of(n), n) if ended(n) else [of(n), n],
    "dicts of two orders": lambda n: dict(sorted({"a": of(n), "b": n}.items(), reverse=ended(n))),
    "keys that are equal": lambda n: {(Words.A if ended(n) else "a"): of(n)},
    "keys that are numbers": lambda n: {(True if ended(n) else 1): of(n)},
    "empty tuples between": lambda n: (of(n), (), []),
    "large ones between": lambda n: (torch.full((1100 if n == 5 else 1,), float(n)), n),
    "tensors of several forms": lambda n: (torch.full((n % 3, 2), float(n)), of(n).double()),
    "nothing but None": lambda n: (of(n), None),
    "many in a row": lambda n: tuple(range(70)) if n % 100 else (of(n), *range(69)),
    "alone": of,
    "numbers alone": lambda n: n / 3 if n else math.nan,
    "counts alone": lambda n: n - 9,
    "counts beyond 64 bits": lambda n: n << 60,
    "numbers of two kinds": lambda n: n / 3 if n % 2 else n,
}


def assert_same(one: Any, other: Any) -> None:
    assert type(one) is type(other)
    if isinstance(one, torch.Tensor):
        assert (one.dtype, one.shape) == (other.dtype, other.shape)
        assert torch.equal(one, other)
    elif isinstance(one, np.ma.MaskedArray):
        assert repr(one) == repr(other)
        assert_same(np.asarray(one.data), np.asarray(other.data))
    elif isinstance(one, np.ndarray | np.generic):
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other, strict=True)
        assert getattr(one, "strides", None) == getattr(other, "strides", None)
    elif isinstance(one, dict):
        assert list(map(repr, one)) == list(map(repr, other))
        assert_same(list(one.values()), list(other.values()))
    elif isinstance(one, list | tuple | collections.deque):
        assert len(one) == len(other)
        for pair in zip(one, other, strict=True):
            assert_same(*pair)
    elif dataclasses.is_dataclass(one):
        names = [*(f.name for f in dataclasses.fields(one)), "mark", "other"]
        assert_same(*({n: getattr(o, n, None) for n in names} for o in (one, other)))
    else:
        assert repr(one) == repr(other)


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_rows_come_back_as_they_were_from_save_to_save(row, tmp_path):
    kept: collections.deque[Any] = collections.deque(map(row, range(COUNT)), maxlen=COUNT)
    states = [{"deque": collections.deque(kept, COUNT), "keys": dict(enumerate(kept))}]
    kept.extend(map(row, range(COUNT, COUNT + 40)))
    states.append({"deque": kept, "keys": {(n, str(n)): each for n, each in enumerate(kept)}})
    for back, state in zip(saved(tmp_path, states), states, strict=True):
        assert back["deque"].maxlen == COUNT
        assert_same(state, back)


FEW = [
    "tuples",
    "named tuples",
    "named tuples of ended games",
    "lists",
    "dicts",
    "objects",
    "arrays",
]


@pytest.mark.parametrize("kind", FEW)
def test_a_memory_takes_few_entries_and_few_words(kind, tmp_path):
    saved(tmp_path, [list(map(ROWS[kind], range(COUNT)))])
    (name,) = RunFolder(tmp_path).store.names()
    manifest = RunFolder(tmp_path).store.manifest(name)
    assert len(manifest.tensors) <= 4  # a column of numbers is one
    assert len(str(manifest.skeletons)) < 40 * COUNT


@pytest.mark.parametrize("kind", ["dicts of dicts", "tuples of ended games", "arrays"])
def test_the_page_tells_of_columns(kind, tmp_path):
    state = list(map(ROWS[kind], range(COUNT)))
    saved(tmp_path, [state])
    (name,) = format_reader.names(tmp_path)
    text = (tmp_path / f"checkpoints/{name}.json").read_text()
    assert '"$":"rows"' in text
    assert "Infinity" not in text
    assert_alike(format_reader.read(tmp_path, name)["objects"]["kept"], plain(state))


def taken(state: Any) -> Any:
    backend = TorchBackend(torch.device("cpu"))
    return encode({"kept": state}, backend.is_tensor, Pack(backend, Forms()))


@pytest.mark.parametrize("other", [0, None])
def test_what_cannot_be_stored_is_named_by_its_place(other):
    kept = [(of(number), other) for number in range(COUNT)]
    kept[70] = (of(70), object())
    with pytest.raises(StateError, match=r"kept\.70\.1 is a object"):
        taken(kept)


def test_an_object_with_more_than_its_fields_is_refused_among_many():
    kept = [Step(of(number), 0.5) for number in range(COUNT)]
    kept[70].beside = 3  # type: ignore[attr-defined]
    with pytest.raises(StateError, match=r"kept\.70 is a Step"):
        taken(kept)


@pytest.mark.parametrize("count", [1, COUNT])
@pytest.mark.parametrize(
    "odd", [torch.zeros(2).to(torch.float8_e4m3fnuz), torch.zeros(2, 2).to_mkldnn()]
)
def test_a_tensor_among_them_that_no_file_knows_is_refused_by_name(count, odd, tmp_path):
    kept = [(of(number), number) for number in range(count)]
    kept[-1] = (odd, 0)
    section = Section("objects", {"kept": kept}, weights=False)
    with pytest.raises(StateError, match=r"objects\.kept\.\d+\.0: A tensor of .* cannot be stored"):
        LeafFinder(TorchBackend(torch.device("cpu"))).find([section])


def test_what_holds_itself_is_refused():
    ring: list[Any] = []
    ring.append(ring)
    with pytest.raises(StateError, match="holds itself"):
        taken([ring] * 20)
