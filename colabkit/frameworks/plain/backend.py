"""How the checkpoint side sees a run without tensors: its arrays are NumPy's."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from colabkit.checkpoint import TensorSpec
from colabkit.storage import Bytes


class PlainBackend:
    """No tensors: arrays of NumPy are stored as such."""

    overlaps = False

    def is_tensor(self, value: object) -> bool:  # noqa: ARG002  # there are none
        return False

    def describe(self, tensor: Any) -> TensorSpec:
        """Nothing is ever described."""
        raise NotImplementedError(type(tensor).__name__)

    def allocate(self, nbytes: int) -> Bytes:
        """Returns host memory."""
        return np.empty(nbytes, np.uint8)

    def copy(
        self,
        tensors: Sequence[Any],  # noqa: ARG002  # there are none
        into: Sequence[Bytes],  # noqa: ARG002
    ) -> Callable[[], None]:
        """Copies nothing."""
        return lambda: None

    def rebuild(self, spec: TensorSpec, data: Bytes) -> Any:
        """Returns an array over memory of its own: another framework saved it as a tensor."""
        kinds = {"F": "f", "I": "i", "U": "u", "C": "c", "B": "b"}
        kind = kinds[spec.dtype[0]] + str(spec.nbytes // max(1, int(np.prod(spec.shape))))
        return data.copy().view(kind).reshape(spec.shape)
