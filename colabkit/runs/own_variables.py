"""Variables of a user's loop that no checkpoint holds, named before its first step."""

from __future__ import annotations

import contextlib
import logging
import weakref
from collections.abc import Iterator, Mapping
from typing import Any

from colabkit.frameworks.base import FrameworkAdapter
from colabkit.frameworks.begun_anew import begun_anew, made_again
from colabkit.runs.handed_on import handed_on
from colabkit.runs.kept_values import KeptValues
from colabkit.runs.leaving import carried_over, frames_over
from colabkit.runs.loop_values import Held
from colabkit.runs.made_with_model import fed_by, is_used_at_heads, made_before

_logger = logging.getLogger(__name__)
_WITH_WEIGHTS = ("parameters", "trainable_weights", "predict")


@contextlib.contextmanager
def _ending_no_training() -> Iterator[None]:
    """Lets a look at code that it cannot read, or at objects that raise for it, be no error."""
    try:
        yield
    except Exception:  # objects of the user's may raise anything
        _logger.debug("What a loop goes by could not be read.", exc_info=True)


class OwnVariables:
    """Looks at loops for what their steps go by, and a resume has not.

    Args:
        run: Whose loops they are.
        adapter: Knows its objects.
        objects: What it was given, by name.
        kept: What it keeps of the loops' variables.

    Attributes:
        reasons: Why a run whose loops go by such variables is not exact.
    """

    def __init__(
        self, run: Any, adapter: FrameworkAdapter, objects: Mapping[str, Any], kept: KeptValues
    ) -> None:
        self._run, self._adapter, self._kept = run, adapter, kept
        # What a loop puts others in the place of is an attribute of the run.
        self._lasting = [each for name, each in objects.items() if name not in vars(run)]
        self._replaced = [name for name in objects if name in vars(run)]
        self.reasons: tuple[str, ...] = ()
        self._of_data: tuple[str, ...] = ()
        self._looked_at: set[Any] = set()
        self._begun_anew: dict[str, None] = {}

    def note_epochs(self, loop: weakref.ref[Any]) -> bool:
        """Looks at a loop over epochs; returns whether their heads use the model."""
        found: list[bool] = []
        with _ending_no_training():
            held = self._held()
            self._note(loop, held, sees_on=True)
            self._note_made(made_before(loop, held, at_heads=False, is_epochs=True))
            found.append(is_used_at_heads(loop, held))
        return any(found)

    def note_pass(
        self, loop: weakref.ref[Any], *, is_first: bool, has_head: bool
    ) -> tuple[str, ...]:
        """Looks at a loop over data; returns why that may be another at a resume.

        Args:
            loop: The generator, at the head of its ``for`` statement.
            is_first: Whether it is the first of its epoch; others may only evaluate.
            has_head: Whether the head of the epoch is done with the weights of then.
        """
        with _ending_no_training():
            held = self._held()
            if self._note(loop, held, sees_on=is_first) and is_first:
                self._note_made(made_before(loop, held, at_heads=not has_head))
                for path in fed_by(loop, held, self._begun_anew):
                    self._of_data = (*self._of_data, *begun_anew([path]))
        return self._of_data

    def _note_made(self, made: Mapping[str, Any]) -> None:
        trained = self._adapter.trained_apart(made)
        self._of_data = tuple(dict.fromkeys((*self._of_data, *made_again(trained))))
        self.reasons = tuple(dict.fromkeys((*self.reasons, *self._of_data)))

    def _note(self, loop: weakref.ref[Any], held: Held, *, sees_on: bool) -> bool:
        """Notes what a loop hands on; returns whether it is looked at for the first time."""
        carried = {
            name: each
            for name, each in carried_over(loop).items()
            if each not in held and not held.has_part_of(each)
        }
        frames = list(frames_over(loop()))
        for each in frames:
            # Before Python 3.13 a frame that was looked at keeps what its variables held, a first
            # epoch's data say, until it is looked at again.
            _ = each.f_locals
        place = tuple((each.f_code, each.f_lasti) for each in frames)
        is_new, by_name = place not in self._looked_at, {*self._kept}
        own = handed_on(loop, held, sees_on=sees_on) if is_new else {}
        own = {name: each for name, each in own.items() if name not in by_name}
        self._looked_at.add(place)
        self._begun_anew |= dict.fromkeys(own)
        self.reasons = tuple(dict.fromkeys((*self.reasons, *self._adapter.carried(carried, own))))
        return is_new

    def _held(self) -> Held:
        """Returns what a checkpoint holds, as it is now."""
        replaced = [each for n in self._replaced if (each := vars(self._run)[n]) is not None]
        trained = [e for e in self._lasting if any(hasattr(type(e), n) for n in _WITH_WEIGHTS)]
        return Held(
            (self._run, self._kept, *self._lasting, *replaced),
            kept=[getattr(self._kept, name) for name in self._kept],
            weights=(*self._adapter.owned().models, *trained, *replaced),
            run=self._run,
        )
