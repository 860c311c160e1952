"""What the loop needs of a framework; each framework answers in its own modules."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any, Protocol

from colabkit.checkpoint import Section, TensorBackend, TensorSpec
from colabkit.errors import MissingPackageError
from colabkit.storage import Bytes
from colabkit.training.feed import Feed
from colabkit.training.frameworks import Framework, framework_of
from colabkit.training.passing import Owned
from colabkit.training.same_data import Watch


class Side(Protocol):
    """One framework's view of a run's objects, data, random streams and numbers."""

    backend: TensorBackend

    def open(self, before_optimizer_step: Callable[[], None]) -> None:
        """Watches the optimizers until ``close``."""
        ...

    def close(self) -> None:
        """Stops watching."""
        ...

    def begin_step(self) -> None:
        """Marks a step boundary."""
        ...

    def has_stepped(self) -> bool:
        """Whether an optimizer has stepped since the boundary, or nobody can tell."""
        ...

    def is_mid_group(self) -> bool:
        """Whether gradients are gathered by a count that a checkpoint cannot hold."""
        ...

    def sections(self) -> list[Section]:
        """Returns all that a checkpoint holds of the user's objects."""
        ...

    def restore(self, sections: Mapping[str, Any]) -> None:
        """Puts it back."""
        ...

    def restore_again(self) -> None:
        """Puts back what a loop has reset on its way to the place where it goes on."""
        ...

    def restore_weights(self, sections: Mapping[str, Any]) -> tuple[int, int]:
        """Takes what fits; returns how many tensors did, of how many."""
        ...

    def guard(self) -> Callable[[TensorSpec], bool]:
        """Returns which tensors only an optimizer's step changes."""
        ...

    def unchanged(self) -> Callable[[Mapping[int, Bytes]], bool]:
        """Returns a check that none of those changed since now, given their copies by address."""
        ...

    def feed(self, data: Any, *, batch_size: int = 32, shuffle: bool = True) -> Feed:
        """Returns the source of batches for whatever the user passed."""
        ...

    def watch(self, *, first: int = 0) -> Watch:
        """Returns what takes down the batches of one pass, from the number of the first on."""
        ...

    def seed(self, seed: int) -> None:
        """Puts every global random stream where a seed names."""
        ...

    def to_floats(self, values: Sequence[Any]) -> list[float]:
        """Reads scalars."""
        ...

    def fingerprint(self) -> dict[str, Any]:
        """Returns what must be the same for a checkpoint to fit."""
        ...

    def parts(self) -> dict[str, str]:
        """Returns what is trained, by whom: phrases that other parts do not share."""
        ...

    def owned(self) -> Owned:
        """Returns the objects that tell one call from another by which they are."""
        ...

    def unwritten_bytes(self) -> int:
        """Returns how much of the weights is only noted by hash."""
        ...

    def changed_base(self, sections: Mapping[str, Any], /) -> dict[str, tuple[object, object]]:
        """Returns, as name: (then, now), the weights that a checkpoint noted and are others."""
        ...

    def holds_weights(self, sections: Mapping[str, Any]) -> bool:
        """Whether the models hold the weights of a checkpoint, bit for bit."""
        ...

    def left(self) -> dict[str, Any]:
        """Returns the settings of ``passed`` as training has left them."""
        ...

    def passed(self) -> dict[str, Any]:
        """Returns the settings of the objects as the user made them: rates, schedules."""
        ...

    def take_changes(self, then: Mapping[str, Any]) -> tuple[str, ...]:
        """Takes what is passed otherwise than ``then`` into the restored objects; says it."""
        ...

    def environment(self) -> dict[str, Any]:
        """Returns what must be the same for the same bits."""
        ...

    def reasons(self) -> tuple[str, ...]:
        """Returns what of the objects and settings stands against exactness."""
        ...

    def unsaved(self) -> tuple[str, ...]:
        """Returns what training was seen to change and no checkpoint can hold."""
        ...


def side_for(objects: Mapping[str, Any], *, save_base: bool = False) -> Side:
    """Returns the side of the framework the objects come from.

    Args:
        objects: By name.
        save_base: Whether frozen weights are written that loading the base model gives again.

    Raises:
        ArgumentError: A model is of a framework that cannot be resumed.
        MissingPackageError: When no framework is installed.
    """
    if framework_of(objects.values()) is Framework.KERAS:
        from colabkit.training.keras_side import KerasSide  # imported on use

        return KerasSide(objects)
    try:
        from colabkit.training.torch_side import TorchSide  # imported on use
    except ImportError as error:
        if "torch" in sys.modules:
            raise
        raise no_framework_error() from error
    return TorchSide(objects, save_base=save_base)


def no_framework_error() -> MissingPackageError:
    """Returns the error that says what to install."""
    message = "Training needs PyTorch or a Keras model, and PyTorch is not installed here."
    hint = "Run: pip install torch (or tensorflow, and pass a keras.Model)"
    return MissingPackageError(message, package="torch", hint=hint)
