"""Hooks of the user's, which do as they please and which no checkpoint can hold."""

from __future__ import annotations

import functools
import types
from collections.abc import Iterator, Mapping
from typing import Any

import torch
from torch import nn
from torch.utils.hooks import RemovableHandle

from colabkit.frameworks.torch.module_tree import ModuleTree
from colabkit.frameworks.users_own import is_of_users_class, is_users_module

_OF_MODULES = (
    "_forward_hooks", "_forward_pre_hooks", "_backward_hooks", "_backward_pre_hooks",
)  # fmt: skip
_OF_TENSORS = ("_backward_hooks", "_post_accumulate_grad_hooks")
_OF_OPTIMIZERS = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")


def hooks_of(module: nn.Module) -> Iterator[tuple[str, Mapping[int, Any]]]:
    """Yields the hooks of a module and of its own weights, by the name of the weight or ""."""
    for kind in _OF_MODULES:
        if hooks := getattr(module, kind, None):
            yield "", hooks
    for name, tensor in module._parameters.items():
        for kind in _OF_TENSORS:
            if hooks := getattr(tensor, kind, None):
                yield name, hooks


def hooks_of_steps(optimizer: torch.optim.Optimizer) -> Iterator[Mapping[int, Any]]:
    """Yields the hooks upon an optimizer's steps."""
    for kind in _OF_OPTIMIZERS:
        yield getattr(optimizer, kind, {})


class UsersHooks:
    """Which of the user's hooks a loop puts on or takes off: a resume finds them as at its begin.

    Args:
        trees: The modules, by name.
        optimizers: The optimizers, by name.
    """

    def __init__(
        self, trees: Mapping[str, ModuleTree], optimizers: Mapping[str, torch.optim.Optimizer]
    ) -> None:
        self._trees, self._optimizers = trees, optimizers
        self._at_begin: dict[str, list[str]] | None = None
        # What the last full look found; a hook that is put on draws another number.
        self._known: list[tuple[Mapping[int, Any], list[int]]] = []
        self._next_number = -1
        self.moved: dict[str, None] = {}
        """Where hooks were put on or taken off."""

    def begin(self) -> None:
        """Called where a loop begins, before its first step."""
        if self._at_begin is None:
            self._at_begin = self._look()

    def look(self) -> None:
        """Compares with what was there when the first loop began."""
        is_known = self._next_number == _next_number()
        if self._at_begin is None or (is_known and all(list(d) == keys for d, keys in self._known)):
            return
        now = self._look()
        places = dict.fromkeys((*self._at_begin, *now))
        self.moved |= {p: None for p in places if self._at_begin.get(p) != now.get(p)}

    def _look(self) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        self._known, self._next_number = [], _next_number()
        for place, hooks in self._every():
            self._known.append((hooks, list(hooks)))
            if names := [name for hook in hooks.values() if (name := _users_name(hook))]:
                found.setdefault(place, []).extend(names)
        return found

    def _every(self) -> Iterator[tuple[str, Mapping[int, Any]]]:
        for root, tree in self._trees.items():
            for path, module in tree.modules.items():
                for name, hooks in hooks_of(module):
                    yield ".".join(filter(None, (root, path, name))), hooks
        for root, optimizer in self._optimizers.items():
            for hooks in hooks_of_steps(optimizer):
                yield root, hooks


def _next_number() -> int:
    return RemovableHandle.next_id


def _users_name(hook: Any) -> str:
    """Returns what a hook of the user's is called, "" for one of a library."""
    while isinstance(hook, functools.partial | types.MethodType):
        hook = hook.func if isinstance(hook, functools.partial) else hook.__func__
    if isinstance(hook, types.FunctionType):
        return hook.__qualname__ if is_users_module(hook.__module__ or "") else ""
    return type(hook).__qualname__ if is_of_users_class(type(hook)) else ""
