"""Sparse tensors that models and optimizers keep: a graph's edges, rows that were touched."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import nn

import colabkit
from colabkit.checkpoint import decode, encode
from colabkit.errors import StateError
from tests import format_reader
from tests.torch.cases import arrays
from tests.torch.test_restored import QUIET, assert_resumes_exactly, network

LAYOUTS: dict[str, Callable[[torch.Tensor], torch.Tensor]] = {
    "coo": lambda dense: dense.to_sparse(),
    "not summed up": lambda dense: torch.cat([dense.to_sparse(), dense.to_sparse()]),
    "csr": lambda dense: dense.to_sparse_csr(),
    "csc": lambda dense: dense.to_sparse_csc(),
    "bsr": lambda dense: dense.to_sparse_bsr((2, 2)),
    "bsc": lambda dense: dense.to_sparse_bsc((2, 2)),
}


def edges(seed: int = 3) -> torch.Tensor:
    drawn = torch.rand(6, 6, generator=torch.Generator().manual_seed(seed))
    return torch.where(drawn > 0.6, drawn, 0.0)


@pytest.mark.filterwarnings("ignore:Sparse (CSR|CSC|BSR|BSC) tensor support:UserWarning")
@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_sparse_tensor_comes_back_in_its_layout_with_all_its_bits(layout):
    given = LAYOUTS[layout](edges())
    skeleton, leaves = encode({"kept": given}, torch.is_tensor)
    assert all(leaf.layout is torch.strided for leaf in leaves.values())
    back = decode(skeleton, lambda _, key: leaves[key].clone())["kept"]
    assert (back.layout, back.shape, back.dtype) == (given.layout, given.shape, given.dtype)
    assert torch.equal(back.to_dense(), given.to_dense())
    if layout == "not summed up":
        assert not back.is_coalesced()
        assert torch.equal(back._indices(), given._indices())


class Graph(nn.Module):
    """Passes messages along edges, which each forward pass of training weighs anew.

    Args:
        layout: How the edges are kept.
        is_buffer: Whether in a buffer; else in an attribute, of which training makes another.
    """

    def __init__(self, layout: str, *, is_buffer: bool) -> None:
        super().__init__()
        self.body = network()
        self.make = LAYOUTS[layout]
        if is_buffer:
            self.register_buffer("edges", self.make(edges()))
        else:
            self.edges = self.make(edges())

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            dense = self.edges.to_dense()
            kept = torch.where(torch.rand(6, 6) < 0.9, dense, dense.t() * 0.7)
            self.edges = self.make(kept * 0.9 + edges(4) * 0.1)
        return self.body(x + (self.edges @ x.t()).t() / 6)


@pytest.mark.filterwarnings("ignore:Sparse CSR tensor support:UserWarning")
@pytest.mark.parametrize("is_buffer", [True, False])
@pytest.mark.parametrize("layout", ["coo", "csr"])
def test_edges_of_a_graph_that_training_changes_go_on(layout, is_buffer, tmp_path):
    made: list[Graph] = []

    def make() -> dict[str, Any]:
        made.append(Graph(layout, is_buffer=is_buffer))
        return {"model": made[-1]}

    assert_resumes_exactly(make, tmp_path)
    assert torch.equal(made[0].edges.to_dense(), made[2].edges.to_dense())
    assert made[2].edges.layout is made[0].edges.layout
    model = Graph(layout, is_buffer=is_buffer)
    colabkit.load(model, tmp_path / "broken")
    if is_buffer:
        assert torch.equal(model.edges.to_dense(), made[0].edges.to_dense())
    (name, *_) = format_reader.names(tmp_path / "alone")
    assert format_reader.read(tmp_path / "alone", name)


class Touched(torch.optim.SGD):
    """Remembers the last gradient as a sparse one."""

    def step(self, closure: Any = None) -> None:
        super().step()
        for group in self.param_groups:
            for parameter in group["params"]:
                last = self.state[parameter].get("last")
                if last is not None:
                    parameter.data.sub_(last.to_dense(), alpha=0.01)
                self.state[parameter]["last"] = parameter.grad.to_sparse()


def test_sparse_moments_go_on(tmp_path):
    def make() -> dict[str, Any]:
        model = network()
        return {"model": model, "optimizer": Touched(model.parameters(), lr=0.1)}

    assert_resumes_exactly(make, tmp_path)


class Odd(nn.Module):
    """Keeps a buffer of a type that no file of tensors knows."""

    def __init__(self) -> None:
        super().__init__()
        self.body = network()
        self.register_buffer("phases", torch.zeros(6).to(torch.float8_e4m3fnuz))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.body(x + self.phases.float())


def test_a_tensor_of_a_type_that_no_file_knows_is_refused_by_its_name(tmp_path):
    with pytest.raises(
        StateError, match=r"model\.phases: A tensor of torch\.float8_e4m3fnuz"
    ) as raised:
        colabkit.fit(Odd(), arrays(), tmp_path, **QUIET)
    assert raised.value.where == "model.phases"
    assert "another type" in raised.value.hint
