"""Frozen weights that come from elsewhere: a checkpoint notes their hashes and not their bytes.

Whoever trains adapters loads the base model anew in each session; written, it would fill Drive.
"""

from __future__ import annotations

import dataclasses
import weakref
from collections.abc import Callable, Collection, Hashable, Iterator, Mapping
from typing import Any

import torch
import xxhash
from torch import nn

from colabkit.checkpoint import members_of

_CHUNK_BYTES = 64 << 20
_CODE_BITS = 8
_MATRIX_NDIM = 2


@dataclasses.dataclass(frozen=True, slots=True)
class _Mark:
    """A tensor as it was: the object, its memory and its counter."""

    of: weakref.ref[torch.Tensor]
    token: Hashable | None


class FrozenBase:
    """The frozen quantized weights of a module, and those under adapters of PEFT.

    Only what nobody has touched since the run was made counts: loading the base model gives it
    again, which of weights that were ever trained or restored nobody can promise.

    Args:
        module: The module as it was made, before anything is restored.
        is_saved: Whether all of it is written like other weights.
    """

    def __init__(self, module: nn.Module, *, is_saved: bool) -> None:
        self._module = module
        self._made = {} if is_saved else {k: _mark(t) for k, t in _frozen_in(module).items()}
        self._digests: dict[str, tuple[Hashable, str]] = {}

    @property
    def nbytes(self) -> int:
        """Bytes of what is not written."""
        held = _held_by(self._module)
        return sum(p.nbytes for key in self._made if key in held for p in _parts_of(held[key]))

    def noted(self, state: Mapping[str, Any]) -> dict[str, Callable[[], str | None]]:
        """Returns which tensors of a ``state_dict`` are only noted, with what gives the hash.

        It is None where the tensor is no longer what it was when this was asked.
        """
        if not self._made:
            return {}
        held = _held_by(self._module)
        keys = [
            k for k in self._made if k in held and k in state and self._is_as_made(k, state, held)
        ]
        beside = _scales_beside([key for key in keys if _is_quantized(held[key])], state, held)
        return {key: self._digest_later(key, state[key]) for key in (*keys, *beside)}

    def changed(self, hashes: Mapping[str, str]) -> dict[str, tuple[object, object]]:
        """Returns what is another than a checkpoint has noted, as key: (then, now)."""
        if not hashes:
            return {}
        state = self._module.state_dict()
        now = {key: self._digest_later(key, state[key])() for key in hashes if key in state}
        return {
            key: (f"frozen weights of hash {then[:12]}", f"others, of hash {str(now[key])[:12]}")
            for key, then in hashes.items()
            if key in now and now[key] != then
        }

    def _is_as_made(
        self, key: str, state: Mapping[str, Any], held: Mapping[str, torch.Tensor]
    ) -> bool:
        if held[key].requires_grad:
            return False
        made, token = self._made[key], _token(state[key])
        if token is None or (made.of() is held[key] and made.token == token):
            return token is not None
        known = self._digests.get(key)
        # A model moved to another device holds the same numbers at another place.
        if known is None or digest_of(state[key]) != known[1]:
            return False
        self._made[key] = _Mark(weakref.ref(held[key]), token)
        self._digests[key] = (token, known[1])
        return True

    def _digest_later(self, key: str, tensor: torch.Tensor) -> Callable[[], str | None]:
        token = _token(tensor)

        def digest() -> str | None:
            known = self._digests.get(key)
            # Codes and scales beside a weight may be made anew, at an address used before.
            if known is not None and known[0] == token and key in self._made:
                return known[1]
            told = digest_of(tensor)
            if _token(tensor) != token:
                return None
            self._digests[key] = (token, told)
            return told

        return digest


def digest_of(tensor: torch.Tensor) -> str:
    """Returns the hash of a tensor's bytes, those of one made of others in all parts."""
    digest = xxhash.xxh3_128()
    with torch.no_grad():
        for part in _parts_of(tensor.detach()):
            plain = part.as_subclass(torch.Tensor)
            flat = plain.contiguous().reshape(-1).view(torch.uint8)
            for begin in range(0, len(flat), _CHUNK_BYTES):
                digest.update(flat[begin : begin + _CHUNK_BYTES].cpu().numpy().data)
    return digest.hexdigest()


def _parts_of(tensor: torch.Tensor) -> Iterator[torch.Tensor]:
    """Yields the tensors that one is made of: codes and scales, say; else itself."""
    if not hasattr(tensor, "__tensor_flatten__"):
        yield from members_of(tensor).values() or (tensor,)
        return
    for name in tensor.__tensor_flatten__()[0]:
        yield from _parts_of(getattr(tensor, name))


def _token(tensor: torch.Tensor) -> Hashable | None:
    """Returns what is another where a tensor's memory or counter is; None where nobody counts."""
    try:
        return tuple(
            (part.data_ptr(), part._version, part.dtype, part.shape) for part in _parts_of(tensor)
        )
    except RuntimeError:  # made in inference mode
        return None


def _mark(tensor: torch.Tensor) -> _Mark:
    return _Mark(weakref.ref(tensor), _token(tensor))


def _held_by(module: nn.Module) -> dict[str, torch.Tensor]:
    parameters = module.named_parameters(remove_duplicate=False)
    return {**dict(module.named_buffers(remove_duplicate=False)), **dict(parameters)}


def _frozen_in(module: nn.Module) -> dict[str, torch.Tensor]:
    is_base = _base_under_adapters(module)
    found = {
        key: parameter
        for key, parameter in module.named_parameters(remove_duplicate=False)
        if not parameter.requires_grad and (_is_quantized(parameter) or is_base(key))
    }
    # Other kinds of quantization keep their codes in buffers.
    codes = {
        key: buffer
        for key, buffer in module.named_buffers(remove_duplicate=False)
        if is_base(key) and buffer.ndim >= _MATRIX_NDIM and not _is_wide(buffer.dtype)
    }
    return found | codes


def _is_quantized(tensor: torch.Tensor) -> bool:
    if getattr(tensor, "quant_state", None) is not None:
        return True  # codes may lie in memory of any type
    parts = _parts_of(tensor)
    return any(not _is_wide(p.dtype) and p.element_size() * 8 <= _CODE_BITS for p in parts)


def _is_wide(dtype: torch.dtype) -> bool:
    """Whether a type is one that models are trained in."""
    is_number = dtype.is_floating_point or dtype.is_complex
    return dtype is torch.bool or (is_number and dtype.itemsize > 1)


def _base_under_adapters(module: nn.Module) -> Callable[[str], bool]:
    """Returns whether a tensor of this name lies under PEFT's adapters and is none of them."""
    roots, adapters = [], []
    for path, each in module.named_modules(remove_duplicate=False):
        inside = f"{path}." if path else ""
        if isinstance(getattr(each, "peft_config", None), Mapping) and each.peft_config:
            roots.append(inside)
        kinds = {c.__name__ for c in type(each).__mro__ if c.__module__.startswith("peft.")}
        if "PeftModel" in kinds:
            adapters.append(f"{inside}prompt_encoder.")
        if "BaseTunerLayer" in kinds:
            names: Any = (*each.adapter_layer_names, *each.other_param_names)
            adapters += [f"{inside}{name}" for name in names]
        elif "AuxiliaryTrainingWrapper" in kinds:
            # The module it stands for is mostly a head, drawn at random in each session.
            adapters.append(inside)
    below, beside = tuple(roots), tuple(adapters)
    return lambda key: key.startswith(below) and not key.startswith(beside)


def _scales_beside(
    codes: Collection[str], state: Mapping[str, Any], held: Collection[str]
) -> list[str]:
    """Returns what quantized layers add to their state beside the codes."""
    layers = tuple(f"{path}." if (path := key.rpartition(".")[0]) else "" for key in codes)
    added = (key for key, value in state.items() if isinstance(value, torch.Tensor))
    return [key for key in added if key not in held and key.startswith(layers)]
