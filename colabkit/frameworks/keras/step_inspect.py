"""Looks at a model's step before it is taken, for what no checkpoint of the model would hold."""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from colabkit.frameworks.keras.build import traced
from colabkit.frameworks.keras.graphs import is_draw, nodes_of
from colabkit.frameworks.keras.memory import Memory
from colabkit.frameworks.keras.names import layers_of
from colabkit.frameworks.keras.randomness import restore_state, state_of, streams_at
from colabkit.frameworks.keras.reach import generators_within, has_foreign_code
from colabkit.frameworks.keras.thread_streams import global_states
from colabkit.frameworks.keras.variables import backend_name, is_compiled
from colabkit.frameworks.numbered import numbered

_UNSEEN = (
    "the model's step draws from tf.random, whose place nothing can save"
    " (draw with keras.random and a keras.random.SeedGenerator)"
)
_BAKED = (
    "the model's step draws from Python's or NumPy's random numbers while it is compiled, which a"
    " resume does anew (draw with keras.random and a keras.random.SeedGenerator)"
)
_STORES = (
    "the model's step writes to a lookup table or a queue, which no checkpoint can hold"
    " (keep it in variables)"
)
_PYTHON = (
    "where the Python that the model's step calls (tf.py_function, tf.numpy_function) keeps"
    " nothing from step to step"
)
_STORING = ("LookupTableInsert", "LookupTableImport", "QueueEnqueue", "StackPush", "Barrier")
_CALLING = ("PyFunc", "EagerPyFunc")


@dataclasses.dataclass(frozen=True, slots=True)
class StepFindings:
    """What was seen of a step.

    Attributes:
        reasons: Why a resume cannot be bitwise exact.
        notices: Under which condition it is.
        variables: What the compiled step reads and writes, in the order in which it does.
        calls_python: Whether Python runs within the compiled step.
    """

    reasons: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    variables: tuple[Any, ...] = ()
    calls_python: bool = False


def roots_of(model: Any, callbacks: Sequence[Any]) -> dict[str, Any]:
    """Returns by name all that may hold code of the user's own; of no model where it is None."""
    roots = numbered(callbacks)
    if model is None:
        return roots
    for name in ("loss", "_compile_loss", "_compile_metrics", "optimizer"):
        roots[name.strip("_")] = getattr(model, name, None)
    for number, layer in enumerate(layers_of(model)):
        roots[f"layer {number} {type(layer).__name__}"] = layer
    return roots


def inspect_step(model: Any, batch: Any, roots: Mapping[str, Any], graph: Any) -> StepFindings:
    """Looks at a step without taking it, if anything of it is not Keras' own.

    Args:
        model: The compiled model, built.
        batch: A batch, or the specs of one.
        roots: What takes part in it.
        graph: That of a step, where it was traced already and drew nothing meanwhile.
    """
    if not is_compiled(model) or not (graph is not None or has_foreign_code(roots)):
        return StepFindings()
    if backend_name() == "jax":
        from colabkit.frameworks.jax import trace  # imported where it is

        with _as_it_was(roots) as has_drawn:
            trace(model, batch)
            return StepFindings(reasons=(_BAKED,) if has_drawn() else ())
    draws_meanwhile = False
    if graph is None:
        with _as_it_was(roots) as has_drawn:
            graph = traced(model, batch)
            draws_meanwhile = has_drawn()
    nodes = list(nodes_of(graph))
    calls_python = any(node.op in _CALLING for node in nodes)
    found = {
        _UNSEEN: any(map(is_draw, nodes)),
        _STORES: any(part in node.op for node in nodes for part in _STORING),
        _BAKED: draws_meanwhile,
    }
    return StepFindings(
        reasons=tuple(reason for reason, is_so in found.items() if is_so),
        notices=(_PYTHON,) if calls_python else (),
        variables=tuple(graph.variables),
        calls_python=calls_python,
    )


def graph_of_step(model: Any, batch: Any, roots: Mapping[str, Any]) -> Any:
    """Traces a step on TensorFlow, and leaves everything as it was."""
    with _as_it_was(roots):
        return traced(model, batch)


@contextlib.contextmanager
def _as_it_was(roots: Mapping[str, Any]) -> Iterator[Callable[[], bool]]:
    """Puts back what a block draws and changes; yields what tells whether it has drawn."""
    generators = list(generators_within(roots).values())
    memory, states = Memory(roots), [state_of(each) for each in generators]
    with streams_at(0):
        before = global_states()

        def has_drawn() -> bool:
            moved = [state_of(each) for each in generators]
            return global_states() != before or repr(moved) != repr(states)

        try:
            yield has_drawn
        finally:
            for each, state in zip(generators, states, strict=True):
                restore_state(each, state)
            memory.put_back()
