"""A tensor made of two others, as quantized weights and moments are."""

from __future__ import annotations

from typing import Any

import torch
from torch.utils import _pytree

_MADE_ANEW = {"aten.detach.default", "aten.clone.default", "aten._to_copy.default"}


class TwoPart(torch.Tensor):
    """Keeps codes and a scale, and shows itself as their product."""

    @staticmethod
    def __new__(cls, codes: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> TwoPart:
        return torch.Tensor._make_wrapper_subclass(cls, codes.shape, dtype=dtype)

    def __init__(self, codes: torch.Tensor, scale: torch.Tensor, dtype: torch.dtype) -> None:
        self.codes, self.scale = codes, scale

    def __tensor_flatten__(self) -> tuple[list[str], Any]:
        return ["codes", "scale"], (self.dtype, self.codes.device)

    @classmethod
    def __tensor_unflatten__(cls, parts: Any, context: Any, size: Any, stride: Any) -> TwoPart:
        dtype, device = context
        assert isinstance(device, torch.device)
        return cls(parts["codes"], parts["scale"], dtype)

    @classmethod
    def of(cls, values: torch.Tensor) -> TwoPart:
        scale = values.abs().amax().clamp(min=1e-12) / 127
        return cls((values / scale).round().to(torch.int8), scale, values.dtype)

    def whole(self) -> torch.Tensor:
        return self.codes.to(self.dtype) * self.scale

    def __repr__(self) -> str:
        return f"TwoPart({self.whole()})"

    @classmethod
    def __torch_dispatch__(cls, function: Any, _: Any, args: Any = (), kwargs: Any = None) -> Any:
        if str(function) in _MADE_ANEW:
            old = args[0]
            return cls(old.codes.clone(), old.scale.clone(), (kwargs or {}).get("dtype", old.dtype))
        if str(function) == "aten.copy_.default" and isinstance(args[0], TwoPart):
            new = args[1] if isinstance(args[1], TwoPart) else cls.of(args[1])
            args[0].codes.copy_(new.codes)
            args[0].scale.copy_(new.scale)
            return args[0]
        plain = _pytree.tree_map_only(TwoPart, TwoPart.whole, (args, kwargs or {}))
        return function(*plain[0], **plain[1])
