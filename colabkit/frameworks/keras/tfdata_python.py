"""Python generators within a tf.data pipeline: found, and what they draw keyed to the element."""

from __future__ import annotations

import contextlib
import inspect
import itertools
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from types import FunctionType, MethodType
from typing import Any

from tensorflow.python.ops import script_ops  # the one place that knows a graph's Python

from colabkit.frameworks.generators import find_generators, reseed
from colabkit.frameworks.keras.compare import same_batch
from colabkit.frameworks.keras.graphs import nodes_of
from colabkit.frameworks.keras.memory import Memory, said_of
from colabkit.frameworks.keras.randomness import KeyedDraws
from colabkit.frameworks.keras.thread_streams import own_streams, streams_by_thread
from colabkit.frameworks.seeding import derive

_ANOTHER = "the generator in the tf.data pipeline gave another first element when read twice"
_EAGER = script_ops.EagerFunc
_PYTHON = ("PyFunc", "EagerPyFunc", "PyFuncStateless")


class KeyedGenerator:
    """What ``from_generator`` calls for each reading: its draws follow from pass and element.

    Args:
        make: The user's function.
        seed: The run's seed.
    """

    def __init__(self, make: Callable[..., Iterable[Any]], seed: int) -> None:
        self.make = make
        self._seed = seed
        self._own = find_generators(make, ())
        self._lock = threading.RLock()
        self._turn = self._calls = 0
        self._memory = Memory({getattr(make, "__name__", type(make).__name__): make})
        self._repeats = True
        self._changed: dict[str, None] = {}

    def begin(self, turn: int) -> None:
        """Says which pass calls it next."""
        self._turn, self._calls = turn, 0

    def __call__(self, *given: Any) -> Iterator[Any]:
        """Returns the elements, as the user's function does."""
        call, self._calls = self._calls, self._calls + 1
        return self._elements((self._turn, call), given)

    def _elements(self, place: tuple[int, int], given: tuple[Any, ...]) -> Iterator[Any]:
        with self._keyed(self._own, "turn", *place):
            made = self.make(*given)
            elements = iter(made)
        own = [*self._own, *find_generators(made, ())]
        for number in itertools.count():
            with self._keyed(own, "element", *place, number):
                found = list(itertools.islice(elements, 1))
            if not found:
                return
            yield found[0]

    @contextlib.contextmanager
    def _keyed(self, own: Sequence[object], *place: str | int) -> Iterator[None]:
        """Keys every draw of this thread, and nobody else's: callbacks may read meanwhile."""
        seed = derive(self._seed, *place)
        with self._lock, own_streams(seed):
            for number, generator in enumerate(own):
                reseed(generator, derive(seed, number))
            yield

    def try_out(self) -> None:
        """Reads the first element twice, and puts back what the function has changed by that."""
        if _wants_arguments(self.make):
            return
        with streams_by_thread():
            one, other = (list(itertools.islice(self._elements((0, 0), ()), 1)) for _ in range(2))
        self._repeats = len(one) == len(other) and all(map(same_batch, one, other))
        self._changed = dict.fromkeys(self._memory.changes())
        self._memory.put_back()

    def reasons(self) -> tuple[str, ...]:
        """Returns why another session would not give the same elements."""
        reasons = KeyedDraws(self.make).reasons()
        if not self._repeats:
            reasons += (_ANOTHER,)
        self._changed |= dict.fromkeys(self._memory.changes())
        if self._changed:
            reasons += (said_of(self._changed),)
        return reasons


class Generators:
    """The generators of a pipeline.

    Args:
        graphs: The graphs of all functions that the pipeline calls.
        seed: The run's seed.
    """

    def __init__(self, graphs: Iterable[Any], seed: int) -> None:
        states = {id(s): s for graph in graphs for f in _python_of(graph) if (s := _state_of(f))}
        self._states = list(states.values())
        self._keyed = [_keyed(state, seed) for state in self._states]
        self._open = contextlib.ExitStack()
        self._is_open = False

    @property
    def are_any(self) -> bool:
        """Whether the pipeline has some."""
        return bool(self._states)

    def try_out(self) -> None:
        """Reads the first element of each twice."""
        for keyed in self._keyed:
            keyed.try_out()

    def begin(self, turn: int) -> None:
        """Keys what is drawn from now on to a pass."""
        if self._states and not self._is_open:
            self._is_open = True
            self._open.enter_context(streams_by_thread())
        for state, keyed in zip(self._states, self._keyed, strict=True):
            keyed.begin(turn)
            state._generator = keyed

    def close(self) -> None:
        """Gives the user's pipeline back as it was."""
        for state, keyed in zip(self._states, self._keyed, strict=True):
            state._generator = keyed.make
        self._open.close()
        self._is_open = False

    def reasons(self) -> tuple[str, ...]:
        """Returns why another session would not give the same elements."""
        return tuple(reason for keyed in self._keyed for reason in keyed.reasons())


def calls_python(graph: Any) -> bool:
    """Whether a graph calls Python that is no generator."""
    return any(_state_of(function) is None for function in _python_of(graph))


def _python_of(graph: Any) -> Iterator[Any]:
    for node in nodes_of(graph):
        if node.op in _PYTHON:
            yield script_ops._py_funcs.get(node.attr["token"].s.decode())


def _state_of(function: Any, depth: int = 3) -> Any:
    """Returns what ``from_generator`` keeps, None for any other function."""
    if type(function).__name__ == "_GeneratorState" and hasattr(function, "_generator"):
        return function
    if depth == 0 or type(function) not in {FunctionType, MethodType, _EAGER}:
        return None
    # TensorFlow wraps the functions that it is given.
    inner = [getattr(function, "__self__", None), getattr(function, "_func", None)]
    inner += [cell.cell_contents for cell in getattr(function, "__closure__", None) or ()]
    found = (_state_of(each, depth - 1) for each in inner)
    return next((state for state in found if state is not None), None)


def _keyed(state: Any, seed: int) -> KeyedGenerator:
    now = state._generator
    return now if isinstance(now, KeyedGenerator) else KeyedGenerator(now, seed)


def _wants_arguments(function: Any) -> bool:
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return False
    positional = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)
    return any(p.kind in positional and p.default is p.empty for p in parameters)
