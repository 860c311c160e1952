"""What code keeps in variables: that of models and their hooks, and of what ``fit`` is given."""

from __future__ import annotations

import contextlib
from collections.abc import Collection, Iterable, Iterator
from typing import Any

import torch
from torch import nn
from torch.optim.lr_scheduler import LRScheduler

from colabkit.frameworks.attributes import Attributes
from colabkit.frameworks.code_variables import CodeVariables
from colabkit.frameworks.torch.tensor_values import TensorValues
from colabkit.frameworks.torch.users_hooks import hooks_of, hooks_of_steps


def memory_of_code(objects: Collection[Any], hooks: Collection[Any] = ()) -> dict[str, Attributes]:
    """Returns what remembers the variables of a run's code, by its name.

    That of its modules' classes, of their functions and hooks, of its optimizers and schedules.

    Args:
        objects: All objects of the run.
        hooks: Functions upon them beside those that are found in them.
    """
    modules = [each for each in objects if isinstance(each, nn.Module)]
    every = [each for module in modules for each in module.modules()]
    roots = [*hooks, *(hook for module in every for hook in _functions_in(module))]
    roots += [each for value in objects for each in rates_of(value)]
    stepping = [each for each in objects if isinstance(each, torch.optim.Optimizer | LRScheduler)]
    optimizers = [each for each in stepping if isinstance(each, torch.optim.Optimizer)]
    roots += [h for each in optimizers for hooks in hooks_of_steps(each) for h in hooks.values()]
    kinds = dict.fromkeys(map(type, [*every, *stepping]))
    return _named("models' code", CodeVariables(roots, kinds, [*objects, *every]))


def rates_of(value: Any) -> Iterator[Any]:
    """Yields the functions by which a schedule, or one within it, gives the rate of a place."""
    if isinstance(value, LRScheduler):
        yield from getattr(value, "lr_lambdas", ())
        for each in getattr(value, "_schedulers", ()):
            yield from rates_of(each)


def memory_of_given(
    functions: Collection[Any], classes: Iterable[type], *, but: Iterable[object]
) -> dict[str, Attributes]:
    """Returns the same for a loss, metrics and callbacks.

    Args:
        functions: Those of them that are called.
        classes: Of those that are objects with hooks.
        but: Objects that others look after.
    """
    return _named("given code", CodeVariables(functions, classes, but))


@contextlib.contextmanager
def variables_kept(objects: Collection[Any], functions: Collection[Any]) -> Iterator[None]:
    """Puts the variables of code back behind a try, in which losses count and hooks sum up.

    Args:
        objects: Models and schedules.
        functions: Losses and metrics.
    """
    memories = memory_of_code(objects) | memory_of_given(functions, (), but=objects)
    put_back = [memory.as_now() for memory in memories.values()]
    try:
        yield
    finally:
        for each in put_back:
            each()


def _named(name: str, variables: CodeVariables) -> dict[str, Attributes]:
    memory = Attributes(variables, TensorValues(), names_lost=False)
    return {f"attributes of {name}": memory} if variables else {}


def _functions_in(module: nn.Module) -> Iterator[Any]:
    for _, hooks in hooks_of(module):
        yield from hooks.values()
    own = vars(module).items() if type(module).__module__ != nn.Linear.__module__ else ()
    yield from (value for _, value in own if callable(value) and not isinstance(value, nn.Module))
