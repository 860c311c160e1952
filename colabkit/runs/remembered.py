"""Functions that give again what they drew once, or made with the model: ``functools.cache``."""

from __future__ import annotations

import ast
import weakref
from collections.abc import Callable, Iterable
from types import BuiltinFunctionType, FunctionType, ModuleType
from typing import Any

from colabkit.frameworks.begun_anew import remembers
from colabkit.frameworks.users_own import attributes_of
from colabkit.runs.leaving import frames_over
from colabkit.runs.loop_events import Reader
from colabkit.runs.loop_paths import in_class, prefixes_of
from colabkit.runs.loop_rooms import Done, Room, done_by
from colabkit.runs.loop_source import loop_at
from colabkit.runs.loop_values import NEUTRAL, Held, Values, is_generator
from colabkit.runs.loop_writes import Event, Verb

_DRAWING = frozenset({
    "bernoulli", "dropout", "multinomial", "normal", "poisson", "rand", "rand_like", "randint",
    "randint_like", "randn", "randn_like", "randperm",
})  # fmt: skip
_DRAWING_INTO = frozenset({"bernoulli_", "exponential_", "normal_", "random_", "uniform_"})
_ALL_DRAWING = frozenset({"numpy.random", "random"})
_NO_DRAW = frozenset({
    "Generator", "Random", "RandomState", "SeedSequence", "default_rng", "get_state", "getstate",
})  # fmt: skip
_SEEDING = frozenset({"manual_seed", "seed", "set_state", "setstate"})
_WITH_GENERATOR = frozenset({"generator", "key", "rng"})
_OF_MODEL = NEUTRAL | {"buffers", "named_buffers", "named_parameters", "parameters"}


class Remembered:
    """Finds the functions whose answers a resume would draw or make anew, once they have some.

    What such a function was asked before the loop, a resume asks it there, too.
    """

    def __init__(self) -> None:
        self._known: dict[str, tuple[Callable[[], object], object]] = {}
        self._reasons: dict[str, None] = {}

    def note(self, loop: weakref.ref[Any], held: Held) -> None:
        """Looks at a loop; asked from within its generator, at the head of a ``for`` statement."""
        for frame in frames_over(loop()):
            if (source := loop_at(frame)) is not None:
                values = Values(frame, held)
                events = Reader(values, source.source).read([source.loop]).events
                for path in _remembering(events):
                    if path not in self._known and (count := _count_of(path, values)) is not None:
                        self._known[path] = (count, count())

    def reasons(self) -> tuple[str, ...]:
        """Returns what was found up to now."""
        asked = [path for path, (count, before) in self._known.items() if count() != before]
        self._reasons |= dict.fromkeys(remembers(asked))
        return tuple(self._reasons)


def _count_of(path: str, values: Values) -> Callable[[], object] | None:
    """Returns what counts the answers that a function remembers."""
    owner, _, name = path.rpartition(".")
    function = values.of(path) if values.has(path) else in_class(type(values.of(owner)), name)
    if hasattr(function, "cache_info"):
        return lambda: function.cache_info().misses
    own = attributes_of(values.of(owner))
    return (lambda: name in own) if isinstance(own, dict) else None


def _remembering(events: Iterable[Event]) -> set[str]:
    """Returns the paths of those that remember and whose answers depend on more than is given."""
    found, seeded = set(), set()
    for each in events:
        if (path := _remembered_in(each.room)) is None or each.verb is not Verb.READ:
            continue
        call = each.room.source.parents.get(each.node)
        is_called = isinstance(call, ast.Call) and call.func is each.node
        done = done_by(call, each.room) if is_called else None  # type: ignore[arg-type]
        if done is not None and done.verb in _SEEDING:
            seeded.add(path)
        elif _depends(each, done):
            found.add(path)
    return found - seeded


def _remembered_in(room: Room | None) -> str | None:
    while room is not None:
        if room.remembers is not None:
            return room.remembers
        room = room.outer
    return None


def _depends(event: Event, done: Done | None) -> bool:
    values = event.room.values
    if done is not None and _draws(done, values):
        return True
    owners = prefixes_of(event.path)
    if any(map(values.is_weights, owners)):
        return done is not None and done.verb not in _OF_MODEL
    return any(values.is_run(each) or values.of(each) in values.held for each in owners)


def _draws(done: Done, values: Values) -> bool:
    if any(each.keyword in _WITH_GENERATOR for each in done.given):
        return False
    if done.verb in _DRAWING_INTO:
        return True
    function = values.of(done.function or "")
    if isinstance(function, type):
        return hasattr(function, "parameters")  # a layer of its own draws its weights
    owner = values.of(done.path or "")
    if is_generator(owner) or is_generator(getattr(function, "__self__", None)):
        return done.verb not in _SEEDING
    module = owner if isinstance(owner, ModuleType) else None
    if module is None and isinstance(function, FunctionType | BuiltinFunctionType):
        module_name = str(function.__module__)
    else:
        module_name = getattr(module, "__name__", "")
    if module_name in _ALL_DRAWING:
        return done.verb not in _NO_DRAW
    return module_name.partition(".")[0] in {"numpy", "torch"} and done.verb in _DRAWING
