"""What a run needs of a framework, and of a source of batches, whatever framework it comes from."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from typing import Any, Protocol

from colabkit.checkpoint import Section, TensorBackend, TensorSpec
from colabkit.frameworks.batch_watches import Watch
from colabkit.frameworks.second_names import SecondNames
from colabkit.storage import Bytes


@dataclasses.dataclass(frozen=True, slots=True)
class Owned:
    """The user's objects that tell one call from another by which they are, not by what.

    Attributes:
        models: Modules and models that have weights.
        optimizers: Those that the user has made.
    """

    models: tuple[Any, ...]
    optimizers: tuple[Any, ...] = ()


@dataclasses.dataclass(frozen=True, slots=True)
class Start:
    """Where and how one pass over the data begins.

    Attributes:
        key: Seed of this pass; the same key gives the same batches.
        epoch: Epoch of the pass, for samplers that have ``set_epoch``.
        skip: Batches already trained, not to be given again.
        state: What ``Feed.state`` gave at the checkpoint, or None.
        passed: Told the number of each batch that is read only to be thrown away.
    """

    key: int
    epoch: int
    skip: int = 0
    state: object = None
    passed: Callable[[int], None] = lambda _: None


class Feed(Protocol):
    """A source of batches that can begin a pass at any batch."""

    length: int | None
    """Batches in a pass, or None where the source does not say."""

    def batches(self, start: Start) -> Iterator[Any]:
        """Yields the batches of one pass from ``start.skip`` on."""
        ...

    def state(self) -> object:
        """Returns what ``Start.state`` needs besides the count of batches, or None."""
        ...

    def describe(self) -> Mapping[str, Any]:
        """Returns what must be the same after a resume: length, batch size."""
        ...

    def reasons(self) -> tuple[str, ...]:
        """Returns why a pass cannot be repeated bitwise, as far as is known by now."""
        ...

    def notices(self) -> tuple[str, ...]:
        """Returns under which condition, or at which cost, it can."""
        ...


class FrameworkAdapter(Protocol):
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

    def evaluation_mark(self, *, at_end: bool = False) -> object | None:
        """Returns what is equal while a loop that only evaluates goes on, None of any other.

        One with a method ``over`` is equal too where little has changed that it holds, and puts it
        into the sections of a save; one that ``holds_all`` has them all in it, so that kept values
        are held whole beside it. ``at_end`` says that a pass has just ended.
        """
        ...

    def weights_mark(self) -> object | None:
        """Returns what is equal while all weights are the same; None where nobody changes them.

        Or where what a place has held of them is held with it.
        """
        ...

    def sections(self) -> list[Section]:
        """Returns all that a checkpoint holds of the user's objects."""
        ...

    def restore(self, sections: Mapping[str, Any]) -> None:
        """Puts it back."""
        ...

    def restore_again(self, *, all_of_it: bool = False) -> None:
        """Puts back what a loop has reset on its way to the place where it goes on.

        Args:
            all_of_it: Whether the program has just come to that place, in a loop of the user's.
        """
        ...

    def small_state(self, *, with_weights: bool = False) -> Mapping[str, Any]:
        """Returns copies of what a loop may read between two passes and change in any.

        Args:
            with_weights: Whether the weights are wanted, too, as ``weights`` where they are few.
        """
        ...

    def put_small(self, state: Mapping[str, Any], /) -> None:
        """Puts what ``small_state`` gave into the objects, until ``restore_again`` does with all.

        Where a step has been taken since a restore, they are what they are.
        """
        ...

    def begin_epoch(self) -> tuple[str, ...]:
        """Returns what was set since a restore and comes back to the checkpoint's, a phrase each.

        Called before the head of an epoch is run, which may change objects that have it already.
        """
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

    def told(self) -> dict[str, Any]:
        """Returns what no tensor shows and is as it is now: code, names of metrics."""
        ...

    def environment(self) -> dict[str, Any]:
        """Returns what must be the same for the same bits."""
        ...

    def reasons(self) -> tuple[str, ...]:
        """Returns what of the objects and settings stands against exactness."""
        ...

    def carried(
        self, variables: Mapping[str, Any], decisive: Mapping[str, Any], taken: Collection[str]
    ) -> tuple[str, ...]:
        """Returns which of the variables that steps hand on, or go by, begin anew, in words.

        Args:
            variables: What steps hand on, by name.
            decisive: What they go by, by path.
            taken: Names that the run keeps others by.
        """
        ...

    def watch_beside(self, reached: Mapping[str, Any], kept: Sequence[Any]) -> None:
        """Takes down what of the objects by their paths is neither the run's nor kept by it."""
        ...

    def trained_apart(self, values: Mapping[str, Any]) -> tuple[str, ...]:
        """Returns the names of those that are not made of the run's own weights alone."""
        ...

    def second_names(self) -> SecondNames:
        """Returns what keeps second names for the run's objects, and for what shares memory."""
        ...

    def unsaved(self) -> tuple[str, ...]:
        """Returns what training was seen to change and no checkpoint can hold."""
        ...
