"""What others may share of a run: its objects, and the memory of tensors."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import torch
from torch import nn

from colabkit.frameworks.second_names import Arrays
from colabkit.frameworks.torch.module_tree import ModuleTree


def shareable(trees: Mapping[str, ModuleTree], others: Mapping[str, Any]) -> dict[str, Any]:
    """Returns by name what others may keep a second name for.

    Args:
        trees: Those of a run's modules, of which also what lies in them is.
        others: Its optimizers, schedules and the like.

    Example:
        >>> model = ModuleTree(nn.Sequential(nn.Linear(2, 1, bias=False)))
        >>> [*shareable({"model": model}, {})]
        ['model', 'model.0', 'model.0.weight']
    """
    found = dict(others)
    for name, each in others.items():
        if isinstance(each, torch.optim.Optimizer):
            found |= {f"{name}.{key}": value for key, value in _within(each)}
    for name, tree in trees.items():
        for parts in (tree.modules, tree.parameters, tree.buffers):
            found |= {f"{name}.{path}" if path else name: each for path, each in parts.items()}
    return found


def _within(optimizer: torch.optim.Optimizer) -> Iterator[tuple[str, Any]]:
    """Yields the groups of an optimizer, and what it keeps for each weight."""
    number = 0
    for place, group in enumerate(optimizer.param_groups):
        yield f"group {place}", group
        for parameter in group["params"]:
            for name, value in optimizer.state.get(parameter, {}).items():
                yield f"weight {number}.{name}", value
            number += 1


class Tensors(Arrays):
    """What is known of tensors that share memory, and of arrays."""

    generators = (*Arrays.generators, torch.Generator)

    def memory_of(self, value: Any) -> Any:
        """Returns what is the same for all tensors in one memory; None for what is none."""
        if not isinstance(value, torch.Tensor):
            return super().memory_of(value)
        if not _is_plain(value) or not value.numel():
            return None
        return str(value.device), value.untyped_storage().data_ptr()

    def bounds_of(self, value: Any) -> tuple[int, int]:
        """Returns the addresses of its first byte and of the one behind its last."""
        if not isinstance(value, torch.Tensor):
            return super().bounds_of(value)
        pairs = zip(value.shape, value.stride(), strict=True)
        span = 1 + sum((size - 1) * stride for size, stride in pairs)
        begin = value.data_ptr()
        return begin, begin + span * value.itemsize

    def form_of(self, value: Any, within: Any) -> list[Any] | None:
        """Returns, as plain values, how a tensor lies in another; None where that is not to be."""
        if not isinstance(value, torch.Tensor):
            return super().form_of(value, _as_array(within))
        if not isinstance(within, torch.Tensor) or value.dtype is not within.dtype:
            return None
        offset = value.storage_offset() - within.storage_offset()
        return [offset, [*value.shape], [*value.stride()], _form(within)]

    def made(self, form: Sequence[Any], within: Any) -> Any:
        """Returns a tensor that lies in another so; None where that is not as it was."""
        if not isinstance(form[-1], str):  # of an array
            return super().made(form, _as_array(within))
        *where, whole = form
        if not isinstance(within, torch.Tensor) or _form(within) != whole:
            return None
        offset, shape, strides = where
        return within.detach().as_strided(shape, strides, within.storage_offset() + offset)

    def copy_of(self, value: Any) -> Any:
        """Returns a tensor of its own."""
        is_tensor = isinstance(value, torch.Tensor)
        return value.detach().clone() if is_tensor else super().copy_of(value)


def _form(tensor: torch.Tensor) -> str:
    return f"{tensor.dtype} {[*tensor.shape]} {tensor.stride()}"


def _as_array(value: Any) -> Any:
    """Returns a tensor in host memory as an array over the same memory, else the value itself."""
    is_one = isinstance(value, torch.Tensor) and _is_plain(value) and value.device.type == "cpu"
    return value.detach().numpy() if is_one and value.dtype is not torch.bfloat16 else value


def _is_plain(tensor: torch.Tensor) -> bool:
    is_known = type(tensor) in {torch.Tensor, nn.Parameter} and tensor.layout is torch.strided
    return is_known and not (tensor.is_meta or tensor.is_quantized or tensor.is_inference())
