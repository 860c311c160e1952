"""NumPy's masked arrays, stored as the arrays that they are made of."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np


def parts_of(array: np.ma.MaskedArray[Any, Any]) -> dict[str, Any]:
    """Returns what a masked array is made of; no mask where it has none."""
    mask: Any = array.mask
    return {
        "data": np.asarray(array.data),
        "mask": None if mask is np.ma.nomask else np.asarray(mask),
        "fill_value": array.fill_value,
    }


def made_of(node: Mapping[str, Any], many: Callable[[Any], Iterator[Any]]) -> Any:
    """Returns a masked array from its node.

    Args:
        node: It.
        many: Returns the values of others.
    """
    parts = dict(zip(node["parts"], many(node["parts"].values()), strict=True))
    mask = np.ma.nomask if parts["mask"] is None else parts["mask"]
    make: Any = np.ma.MaskedArray
    return make(parts["data"], mask, fill_value=parts["fill_value"], hard_mask=node["is_hard"])
