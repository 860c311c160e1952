"""Numbers of complex128, as FFTs give them, in what models and loops keep."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

from tests.torch.test_many_small import saved
from tests.torch.test_restored import assert_resumes_exactly


def drawn(*shape: int) -> torch.Tensor:
    generator = torch.Generator().manual_seed(3)
    return torch.randn(shape, generator=generator, dtype=torch.complex128)


TENSORS: dict[str, Callable[[], torch.Tensor]] = {
    "plain": lambda: drawn(5, 3),
    "one number": lambda: drawn(),
    "none": lambda: drawn(0, 3),
    "conjugate": lambda: drawn(5, 3).conj(),
    "transposed": lambda: drawn(5, 3).T,
    "with gaps": lambda: drawn(5, 6)[:, ::2],
    "odd numbers": lambda: drawn(2).fill_(complex(float("nan"), -0.0)),
}


def bits(values: Any) -> bytes:
    found = values.resolve_conj().numpy() if isinstance(values, torch.Tensor) else values
    return bytes(np.ascontiguousarray(found).tobytes())


@pytest.mark.parametrize("form", TENSORS)
@pytest.mark.parametrize("is_array", [False, True], ids=["tensor", "array"])
def test_they_come_back_with_all_their_bits_and_lie_as_they_lay(form, is_array, tmp_path):
    tensor = TENSORS[form]()
    given: Any = tensor.resolve_conj().numpy() if is_array else tensor
    # Behind an odd number of bytes, and many of one form.
    state = {"before": torch.zeros(3, dtype=torch.uint8), "one": given, "many": [given] * 70}
    (back,) = saved(tmp_path, [state])
    for each in (back["one"], back["many"][69]):
        assert (type(each), each.dtype, each.shape) == (type(given), given.dtype, given.shape)
        assert bits(each) == bits(given)
    again = torch.as_tensor(back["one"]) + 1  # PyTorch may read many at once
    assert bits(again) == bits(tensor.resolve_conj() + 1)


class Waves(nn.Module):
    """A layer of a Fourier neural operator in double precision."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.weight = nn.Parameter(drawn(4, 4))
        self.tied = self.weight
        self.head = nn.Linear(6, 3)
        self.register_buffer("mean", torch.zeros(4, dtype=torch.complex128))
        self.last = np.zeros(4, np.complex128)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        waves = torch.fft.rfft(x.double())
        self.mean = self.mean * 0.9 + waves.detach().mean(0)
        self.last = self.last * 0.5 + self.mean.numpy()
        waves = waves @ self.weight @ self.tied + self.mean + torch.as_tensor(self.last)
        return self.head(torch.fft.irfft(waves, n=6).float())


def test_a_model_of_such_weights_goes_on(tmp_path):
    def make() -> dict[str, Any]:
        model = Waves()
        return {"model": model, "optimizer": torch.optim.Adam(model.parameters(), 1e-2)}

    assert_resumes_exactly(make, tmp_path)
