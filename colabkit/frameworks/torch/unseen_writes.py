"""Changes that PyTorch does not count, found by a sample of each tensor copied meanwhile."""

from __future__ import annotations

import operator
import random
from collections.abc import Mapping, Sequence

import numpy as np
import torch

from colabkit.checkpoint import AT_ONCE_BYTES
from colabkit.frameworks.torch.module_tree import PLAIN
from colabkit.storage import Bytes

# Training waits for the sample. Elements far from each other are slow to read.
_TENSORS_MAX = 64
_NEAR, _NEAR_MAX, _FAR_MAX = 1 << 22, 1 << 15, 1 << 13
# Between two passes there is time for more of the weights, small ones as a whole.
_SAMPLED_MAX, _OF_EACH = 1024, 1024
_version_of = operator.attrgetter("_version")
# The places differ from save to save: a change of few elements is met sooner or later.
_places = random.Random()  # noqa: S311  # chooses places, guards nothing


class Watch:
    """Tensors as they are now: their counters, their memory, and a sample of their values.

    What is written through ``.data`` or a detached view of another counter bumps no counter.

    Args:
        tensors: What a snapshot may copy while training goes on.
        parameters: Those of them that a loop writes to by itself.
    """

    def __init__(self, tensors: Sequence[torch.Tensor], parameters: Sequence[torch.Tensor]) -> None:
        self._tensors = [*tensors, *parameters]
        self._versions = list(map(_version_of, self._tensors))
        # One made of others has no memory of its own, and its parts are copied at once.
        large = [p for p in parameters if p.nbytes >= AT_ONCE_BYTES]
        large = [p for p in large if not hasattr(p, "__tensor_flatten__")]
        if len(large) > _TENSORS_MAX:
            large = _places.sample(large, _TENSORS_MAX)
        elements = sum(t.numel() for t in large)
        step = max(1, elements // (_NEAR_MAX if elements <= _NEAR else _FAR_MAX)) | 1
        first = _places.randrange(step)
        self._cuts = {
            t.data_ptr(): (step, first, _cut(t.detach(), step, first))
            for t in large
            if first < t.numel()
        }

    def is_unchanged(self, copies: Mapping[int, Bytes]) -> bool:
        """Returns whether no tensor has changed, and the copies by address hold the sample."""
        if list(map(_version_of, self._tensors)) != self._versions:
            return False
        if not copies.keys() <= {t.data_ptr() for t in self._tensors}:
            return False  # .data was given another tensor
        return all(
            _is_same(copies[at], step, first, cut)
            for at, (step, first, cut) in self._cuts.items()
            if at in copies
        )


class Sample:
    """Some values of tensors, equal to a later sample while none of these were written.

    Args:
        tensors: Those of a checkpoint; of many, and of large ones, not all is looked at.
    """

    def __init__(self, tensors: Sequence[torch.Tensor]) -> None:
        seen = tensors[:: len(tensors) // _SAMPLED_MAX + 1]
        cuts: dict[torch.device, list[torch.Tensor]] = {}
        for each in seen:
            if _can_be_cut(each):
                cut = _cut(each.detach(), each.numel() // _OF_EACH | 1, 0)
                cuts.setdefault(each.device, []).append(cut.view(-1).view(torch.uint8))
        self._bytes = {device: torch.cat(each) for device, each in cuts.items()}

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Sample):
            return NotImplemented
        now = other._bytes
        is_alike = self._bytes.keys() == now.keys()
        return is_alike and all(torch.equal(each, now[d]) for d, each in self._bytes.items())

    __hash__ = None  # type: ignore[assignment]


def _can_be_cut(tensor: torch.Tensor) -> bool:
    is_plain = type(tensor) in PLAIN and tensor.layout is torch.strided and tensor.numel() > 0
    is_held = tensor.device.type != "meta" and not tensor.is_quantized
    return is_plain and is_held and not (tensor.is_conj() or tensor.is_neg())


def _cut(tensor: torch.Tensor, step: int, first: int) -> torch.Tensor:
    if tensor.is_contiguous():
        return tensor.view(-1)[first::step].clone()
    places = torch.arange(first, tensor.numel(), step, device=tensor.device)
    return tensor[torch.unravel_index(places, tensor.shape)]


def _is_same(copy: Bytes, step: int, first: int, cut: torch.Tensor) -> bool:
    width = cut.element_size()
    if len(copy) % width:
        return False
    copied = copy.reshape(-1, width)[first::step]
    return np.array_equal(copied, cut.cpu().view(torch.uint8).numpy().reshape(-1, width))
