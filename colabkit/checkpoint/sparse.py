"""Sparse tensors of PyTorch, stored as the dense ones that they are made of."""

from __future__ import annotations

import collections
import copy
import functools
from collections.abc import Mapping
from typing import Any

from colabkit.checkpoint import own_containers
from colabkit.checkpoint.named_classes import at_place

_BY_ROWS = {"crow_indices": "crow_indices", "col_indices": "col_indices", "values": "values"}
_BY_COLUMNS = {"ccol_indices": "ccol_indices", "row_indices": "row_indices", "values": "values"}
_MEMBERS: Mapping[str, Mapping[str, str]] = {
    # Those that have not been summed up by place are kept so: their order decides the sum's bits.
    "torch.sparse_coo": {"indices": "_indices", "values": "_values"},
    "torch.sparse_csr": _BY_ROWS,
    "torch.sparse_bsr": _BY_ROWS,
    "torch.sparse_csc": _BY_COLUMNS,
    "torch.sparse_bsc": _BY_COLUMNS,
}


def members_of(tensor: Any) -> dict[str, Any]:
    """Returns the dense tensors that a sparse one is made of, by name; none of another value."""
    kind: Any = type(tensor)
    if not _has_layout(kind) or not (getters := _getters_of(tensor.layout)):
        return {}
    return {name: getattr(tensor, get)() for name, get in getters.items()}


@functools.cache
def _has_layout(kind: type) -> bool:
    # Others than PyTorch's tensors have something by the name of layout as well.
    return hasattr(kind, "is_sparse_csr")


@functools.cache
def _getters_of(layout: Any) -> Mapping[str, str]:
    return _MEMBERS.get(str(layout), {})


def deep_copy(
    state: Any, memo: dict[int, Any] | None = None, within: frozenset[int] = frozenset()
) -> Any:
    """Returns what ``copy.deepcopy`` does, which PyTorch refuses some sparse tensors.

    Of containers of the user's classes it leaves out what their bases do not know of.

    Args:
        state: What is copied.
        memo: As for ``copy.deepcopy``.
        within: Containers that are being copied, by id: they may hold themselves.
    """
    copies: dict[int, Any] = {} if memo is None else memo
    waiting = [state]
    while waiting:
        each = waiting.pop()
        kind: Any = type(each)
        if own_containers.copies_as_its_base(kind):
            around = within | {id(each)}
            if id(each) not in copies and around != within:
                copy_part = functools.partial(deep_copy, memo=copies, within=around)
                copies[id(each)] = own_containers.copied(each, copy_part)
        elif isinstance(each, Mapping):
            waiting += each.values()
        elif isinstance(each, list | tuple | collections.deque):
            waiting += each
        elif members_of(each):
            copies[id(each)] = each.detach().clone()
    return copy.deepcopy(state, copies)


def facts_of(tensor: Any) -> dict[str, Any]:
    """Returns, as JSON can hold it, what a sparse tensor is beside its members."""
    layout = str(tensor.layout).removeprefix("torch.")
    facts = {"layout": layout, "shape": list(tensor.shape)}
    return {**facts, "is_coalesced": tensor.is_coalesced()} if layout == "sparse_coo" else facts


def made_of(members: Mapping[str, Any], facts: Mapping[str, Any]) -> Any:
    """Returns the sparse tensor that ``members_of`` and ``facts_of`` were asked of."""
    layout, shape = facts["layout"], tuple(facts["shape"])
    ordered = [members[name] for name in _MEMBERS[f"torch.{layout}"]]
    if layout == "sparse_coo":
        make = at_place(["torch", "sparse_coo_tensor"])
        is_coalesced = bool(facts["is_coalesced"])
        return make(*ordered, shape, is_coalesced=is_coalesced, check_invariants=True)
    make, kind = at_place(["torch", "sparse_compressed_tensor"]), at_place(["torch", layout])
    return make(*ordered, shape, layout=kind, check_invariants=True)
