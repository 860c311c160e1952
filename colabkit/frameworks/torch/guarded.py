"""The tensors that only an optimizer's step changes, so that a save may copy them meanwhile."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Mapping, Sequence

import torch

from colabkit.checkpoint import AT_ONCE_BYTES
from colabkit.frameworks.torch.backend import address_of
from colabkit.frameworks.torch.module_tree import PLAIN, Trees
from colabkit.frameworks.torch.pieces import local
from colabkit.frameworks.torch.structure import parameters_of
from colabkit.frameworks.torch.unseen_writes import Watch

# Of fewer weights the states are all looked at.
_MANY = 1000


@dataclasses.dataclass(frozen=True, slots=True)
class _Weights:
    """What optimizers train.

    Attributes:
        addresses: Where each tensor lies.
        large: Those that may be copied meanwhile.
    """

    addresses: frozenset[int]
    large: list[torch.Tensor]


class Guarded:
    """What optimizers train and keep; of many weights, as it was found while they are the same.

    Args:
        optimizers: By name.
        trees: What lies in the modules of the run.
        in_pieces: Whether this process holds but pieces of them.
    """

    def __init__(
        self,
        optimizers: Mapping[str, torch.optim.Optimizer],
        trees: Trees,
        *,
        in_pieces: bool,
    ) -> None:
        self._optimizers = optimizers
        self._trees = trees
        self._in_pieces = in_pieces
        self._known: tuple[Hashable | None, _Weights] | None = None

    def addresses(self) -> frozenset[int]:
        """Returns where they lie: all weights, and of other tensors the large ones.

        Nobody asks for others: what is small is copied at once.
        """
        weights, found = self._weights(), _addresses_of(self._large_states(), self._in_pieces)
        return weights.addresses | found if found else weights.addresses

    def weights(self) -> frozenset[int]:
        """Returns where the weights lie that optimizers train."""
        return self._weights().addresses

    def watch(self, copies: Sequence[torch.Tensor] = (), *, in_pieces: bool = False) -> Watch:
        """Returns those that may be copied meanwhile, as they are now.

        Args:
            copies: Those that were put together of the pieces of several processes.
            in_pieces: Whether the others' pieces are copied as they are.
        """
        here = local if in_pieces else list
        return Watch([*here(self._large_states()), *copies], here(self._weights().large))

    def _weights(self) -> _Weights:
        trained = self._trees.trained(self._optimizers)
        if self._known is None or trained is None or self._known[0] != trained:
            weights = [p for o in self._optimizers.values() for p in parameters_of(o)]
            found = _addresses_of(weights, self._in_pieces)
            self._known = (trained, _Weights(found, _large(weights)))
        return self._known[1]

    def _large_states(self) -> list[torch.Tensor]:
        found: list[torch.Tensor] = []
        large = set(map(id, self._weights().large))
        for optimizer in self._optimizers.values():
            # What belongs to a small weight is small; where it is not, it is copied at once.
            is_many = len(optimizer.state) >= _MANY
            for weight, state in optimizer.state.items():
                if not is_many or id(weight) in large:
                    # Some keep a number of their own there, under a name.
                    own = state.values() if isinstance(state, dict) else (state,)
                    found += (t for t in own if isinstance(t, torch.Tensor))
        return _large(found)


def _addresses_of(tensors: list[torch.Tensor], in_pieces: bool) -> frozenset[int]:
    here = local(tensors) if in_pieces else tensors
    # Tensors made of others have no memory of their own, nor have empty ones.
    return frozenset(map(address_of, here)) - {0}


def _large(tensors: Sequence[torch.Tensor]) -> list[torch.Tensor]:
    # One made of others, or in pieces, is looked at by whoever takes it apart; the parts of a
    # sparse one are copied at once.
    dense = [t for t in tensors if t.layout is torch.strided]
    return [t for t in dense if type(t) not in PLAIN or t.nbytes >= AT_ONCE_BYTES]
