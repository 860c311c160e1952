"""Variables of a user's loop that no checkpoint holds, named before its first step."""

from __future__ import annotations

import contextlib
import logging
import time
import types
import weakref
from collections.abc import Iterator, Mapping
from dis import Instruction, get_instructions
from typing import Any

from colabkit.frameworks.base import FrameworkAdapter
from colabkit.frameworks.begun_anew import begun_anew, chosen_anew, made_again, read_on, replaced
from colabkit.runs.arrays_beside import ArraysBeside
from colabkit.runs.handed_on import (
    counts_for_eye,
    is_chosen,
    spelled,
    steps_of,
    trains,
    turns_by_itself,
)
from colabkit.runs.kept_values import KeptValues
from colabkit.runs.leaving import carried_over, frames_over
from colabkit.runs.loop_values import Held, is_iterator
from colabkit.runs.made_with_model import Used, fed_by, made_before, used_by
from colabkit.runs.reached import reached_by
from colabkit.runs.remembered import Remembered

_logger = logging.getLogger(__name__)
_TURNS = (
    "the loop that calls next() counts its turns from the first again after a resume: loop over"
    " run.batches() or run.items() itself"
)
# To walk through all that a loop reaches takes milliseconds: never more than a hundredth of a pass.
_EARLY_WALKS, _FREE_TIMES = 8, 100
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
    """

    def __init__(
        self, run: Any, adapter: FrameworkAdapter, objects: Mapping[str, Any], kept: KeptValues
    ) -> None:
        self._run, self._adapter, self._objects, self._kept = run, adapter, objects, kept
        # What a loop puts others in the place of is an attribute of the run.
        self._lasting = [each for name, each in objects.items() if name not in vars(run)]
        self._replaced = [name for name in objects if name in vars(run)]
        self._reasons: tuple[str, ...] = ()
        self._remembered = Remembered()
        self._arrays = ArraysBeside(self._all_held)
        self._of_data: tuple[str, ...] = ()
        # By their place: loops that were looked at, those that hand on, and those that train.
        self._looked_at: set[Any] = set()
        self._noted: set[Any] = set()
        self._trains: set[Any] = set()
        # The pass under way, where it is taken to evaluate.
        self._evaluates: weakref.ref[Any] | None = None
        # Loops that were looked at for what stands before them, and where the weights are not held.
        self._looked_back: set[Any] = set()
        self._used: dict[Any, Used] = {}
        self._counts_for_eye: dict[Any, bool] = {}
        self._begun_anew: dict[str, None] = {}
        self._walks, self._next_walk_s = 0, 0.0

    @property
    def reasons(self) -> tuple[str, ...]:
        """Why a run whose loops go by such variables is not exact."""
        return (*self._reasons, *self._remembered.reasons(), *self._arrays.reasons())

    def note_epochs(self, loop: weakref.ref[Any]) -> Used:
        """Looks at a loop over epochs; returns where they use the model around their passes."""
        found = [Used()]
        with _ending_no_training():
            held = self._held()
            self._note(loop, held)
            self._note_made(made_before(loop, held, where=Used(), is_epochs=True))
            found.append(used_by(loop, held, is_epochs=True))
        return found[-1]

    def counts_for_eye(self, loop: weakref.ref[Any]) -> bool:
        """Whether a loop's numbers by ``enumerate`` are only shown."""
        place = _place_of(loop)
        if place not in self._counts_for_eye:
            self._counts_for_eye[place] = False
            with _ending_no_training():
                self._counts_for_eye[place] = counts_for_eye(loop, self._held())
        return self._counts_for_eye[place]

    def used_around(self, loop: weakref.ref[Any]) -> Used:
        """Returns where the model is used around loops over data that have no epochs.

        Nobody holds the weights that it had before the first of them.
        """
        place = _place_of(loop)
        if place not in self._used:
            self._used[place] = Used(at_heads=True)
            with _ending_no_training():
                self._used[place] |= used_by(loop, self._held(), is_epochs=False)
        return self._used[place]

    def note_pass(
        self, loop: weakref.ref[Any], is_first: bool, *, begins_anew: bool, lacks: Used
    ) -> tuple[str, ...]:
        """Looks at a loop over data; returns why that may be another at a resume.

        Args:
            loop: The generator, at the head of its ``for`` statement.
            is_first: Whether it is the first of its epoch.
            begins_anew: Whether it does so at a resume, if it only evaluates.
            lacks: Where a resume has not the weights of then.
        """
        with _ending_no_training():
            held = self._held()
            place = _place_of(loop)
            is_new = place not in self._looked_at
            if begins_anew and not (place in self._trains or trains(loop, held)):
                self._evaluates = loop
                self._looked_at.add(place)
            else:
                self._evaluates = None
                self._trains.add(place)
                self._note(loop, held)
            if is_new and turns_by_itself(loop):
                self._reasons = tuple(dict.fromkeys((*self._reasons, _TURNS)))
            if is_new or (place, lacks) not in self._looked_back:
                self._looked_back.add((place, lacks))
                self._note_made(made_before(loop, held, where=lacks))
            if is_new and is_first:
                for path in fed_by(loop, held, self._begun_anew):
                    self._of_data = (*self._of_data, *begun_anew([path]))
        return self._of_data

    def note_goes_on(self) -> None:
        """Looks at a pass that was taken to evaluate, and cannot begin anew at a resume."""
        loop, self._evaluates = self._evaluates, None
        if loop is not None:
            with _ending_no_training():
                self._trains.add(_place_of(loop))
                self._note(loop, self._held())

    def _note_made(self, made: Mapping[str, Any]) -> None:
        trained = self._adapter.trained_apart(made)
        of_pieces = bool(getattr(self._adapter, "is_sharded", False))  # PyTorch's
        again = made_again({name: made[name] for name in trained}, of_pieces=of_pieces)
        self._of_data = tuple(dict.fromkeys((*self._of_data, *again)))
        self._reasons = tuple(dict.fromkeys((*self._reasons, *self._of_data)))

    def _note(self, loop: weakref.ref[Any], held: Held) -> None:
        """Notes what the steps of a loop hand on, and what goes by that."""
        self._watch_beside(loop)
        carried = {
            name: each
            for name, each in carried_over(loop).items()
            if each not in held and not held.has_part_of(each)
        }
        for each in frames_over(loop()):
            # Before Python 3.13 a frame that was looked at keeps what its variables held, a first
            # epoch's data say, until it is looked at again.
            _ = each.f_locals
        place = _place_of(loop)
        is_new, kept = place not in self._noted, {*self._kept}
        own: dict[str, Any] = {}
        if is_new:
            own, read = steps_of(loop, held)
            named = {spelled(loop, held, path): each for path, each in read.items()}
            self._arrays.watch(named, but=own.values())
            self._remembered.note(loop, held)
        own = {n: each for n, each in own.items() if not (n in kept and _takes_up(loop, n))}
        self._noted.add(place)
        self._looked_at.add(place)
        self._begun_anew |= dict.fromkeys(own)
        others_in_place = [name for name, each in own.items() if each in held]
        own = {n: e for n, e in own.items() if not (e in held or self._arrays.are_held(e))}
        iterators = [name for name, each in own.items() if is_iterator(each)]
        chosen = [name for name, each in own.items() if is_chosen(each)]
        others = {name: own[name] for name in own if name not in {*iterators, *chosen}}
        others = {spelled(loop, held, name): each for name, each in others.items()}
        by_choice = (*read_on(iterators), *chosen_anew(chosen), *replaced(others_in_place))
        found = (*by_choice, *self._adapter.carried(carried, others, kept))
        self._reasons = tuple(dict.fromkeys((*self._reasons, *found)))

    def _watch_beside(self, loop: weakref.ref[Any]) -> None:
        """Has what the loop reaches watched; of many short passes, before some."""
        begun_s = time.monotonic()
        self._walks += 1
        if self._walks > _EARLY_WALKS and begun_s < self._next_walk_s:
            return
        with _ending_no_training():
            kept = [getattr(self._kept, name) for name in self._kept]
            self._adapter.watch_beside(reached_by(loop), kept)
        self._next_walk_s = begun_s + _FREE_TIMES * (time.monotonic() - begun_s)

    def _all_held(self) -> list[Any]:
        return [*self._objects.values(), *(getattr(self._kept, name) for name in self._kept)]

    def _held(self) -> Held:
        """Returns what a checkpoint holds, as it is now."""
        replaced = [each for n in self._replaced if (each := vars(self._run)[n]) is not None]
        trained = [e for e in self._lasting if any(hasattr(type(e), n) for n in _WITH_WEIGHTS)]
        models = self._adapter.owned().models  # a model is another object than its wrapper
        return Held(
            (self._run, self._kept, *self._lasting, *models, *replaced),
            lasting=(*self._lasting, *models),
            kept=[getattr(self._kept, name) for name in self._kept],
            weights=(*models, *trained, *replaced),
            run=self._run,
        )


def _takes_up(loop: weakref.ref[Any], name: str) -> bool:
    """Whether the code around a loop has what is kept by a name: ``kept.best``, or "best"."""
    codes = [each.f_code for each in frames_over(loop())]
    for code in codes:
        if name in code.co_consts or any(
            _is_attribute(each, name) for each in get_instructions(code)
        ):
            return True
        codes += (each for each in code.co_consts if isinstance(each, types.CodeType))
    return False


def _is_attribute(instruction: Instruction, name: str) -> bool:
    return instruction.argval == name and instruction.opname.endswith(("_ATTR", "_METHOD"))


def _place_of(loop: weakref.ref[Any]) -> tuple[Any, ...]:
    """Returns what is the same for one statement, whichever turn it is in."""
    return tuple((each.f_code, each.f_lasti) for each in frames_over(loop()))
