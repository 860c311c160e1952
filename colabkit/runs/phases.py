"""Phases: several calls on one run folder that train on in another way, one after the other.

A notebook that trains a new head and then fine-tunes the whole model calls ``fit`` twice on one
run folder. The second call is a phase of its own: it begins with what the model holds then, has
its own optimizer, and counts epochs and steps on. When all cells run again, the first call finds
its phase ended, gives the model back as it was at that end, and trains nothing; the second goes
on at its very batch.

Which phase a call is, is told by its name where it has one; else by what it trains (variables and
parameters by name, classes of the optimizers), by its settings (rates, loss) and by ``epochs``,
which counts over all phases and so rises from one to the next:

- A call that is as a phase was, goes on with that phase. A later phase closes those before it.
- A call in the session that has trained or found the phase before, with the same model object, and
  with anything changed since, begins the next phase with what the objects hold. None begins on one
  whose time was up, or in a cell whose stop button was pressed.
- A call after one that has diverged, whose objects hold NaN, goes on with that phase or begins the
  next with the newest weights that are finite.
- The first call of a session that changes settings of an unfinished phase means that phase, and the
  change is taken; of a finished one with more epochs, it goes on from there as a phase. One that
  trains other parts of the model is answered by an error: the cells before it have not run. With a
  name that is new it begins a phase, with the weights that the last one ended with.
- What cannot be told apart is an error that says so.

A checkpoint names those that it stands on, the ends of the phases before; they are kept as long.
"""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping, Sequence
from typing import Any

from colabkit.errors import ArgumentError, CheckpointMismatchError
from colabkit.frameworks.differences import differing, phrases_of

_NEXT = 'give this call a name, phase="fine-tune" say, if it is to begin a phase of its own'


@dataclasses.dataclass(frozen=True, slots=True)
class Call:
    """What a call asks for.

    Attributes:
        name: The user's name for the phase, "" for none.
        parts: What is trained, by whom: a phrase by object.
        settings: Rates, loss and the like, by object.
        epochs: How many in all; None where nobody said yet.
    """

    name: str
    parts: Mapping[str, str]
    settings: Mapping[str, Any]
    epochs: int | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Phase:
    """One phase of a run.

    Attributes:
        name: The user's name for it, "" for none.
        parts: What it trains, as its first call passed it; empty where that is not known.
        settings: Its settings, as its newest call passed them.
        epochs: Up to how many epochs in all; None where nobody said.
        step: Steps done before it.
        epoch: Epochs done before it.
        stands_on: The checkpoint that the phase before ended with, "" for the first phase.
        earlier: Ends that calls asked for before it went on, where a loop calls for each epoch.
    """

    name: str = ""
    parts: Mapping[str, str] = dataclasses.field(default_factory=dict)
    settings: Mapping[str, Any] = dataclasses.field(default_factory=dict)
    epochs: int | None = None
    step: int = 0
    epoch: int = 0
    stands_on: str = ""
    earlier: tuple[int, ...] = ()

    @classmethod
    def of(cls, call: Call, *, step: int = 0, epoch: int = 0, stands_on: str = "") -> Phase:
        """Returns the phase that a call begins."""
        parts, settings = dict(call.parts), dict(call.settings)
        return cls(call.name, parts, settings, call.epochs, step, epoch, stands_on)

    def trains_as(self, call: Call) -> bool:
        return not differing(self.parts, call.parts)

    def is_set_as(self, call: Call) -> bool:
        """Whether it has the settings of a call."""
        return not differing(self.settings, call.settings)

    def ends_as(self, call: Call) -> bool:
        """Whether it ends after the epochs of a call, as far as both say."""
        return None in {self.epochs, call.epochs} or call.epochs in {self.epochs, *self.earlier}

    def going_on_to(self, epochs: int, *, done: int) -> Phase:
        """Returns it with another end, knowing those before that it has come to."""
        ends = (*self.earlier, self.epochs)
        earlier = tuple(each for each in ends if each is not None and each <= min(done, epochs - 1))
        return dataclasses.replace(self, epochs=epochs, earlier=earlier)

    def is_as(self, call: Call) -> bool:
        """Whether nothing tells it from a call."""
        return self.trains_as(call) and self.is_set_as(call) and self.ends_as(call)


@dataclasses.dataclass(frozen=True, slots=True)
class Left:
    """How an earlier call of this session has left the objects that are passed again.

    Attributes:
        index: Number of its phase.
        is_as_left: Whether nobody has changed parts or settings, or made an optimizer anew.
        has_its_weights: Whether the model holds what the newest checkpoint does.
        has_diverged: Whether the model holds NaN, with which nobody goes on.
    """

    index: int
    is_as_left: bool
    has_its_weights: bool
    has_diverged: bool = False

    @property
    def start(self) -> Start:
        """What the next phase begins with."""
        return Start.WEIGHTS if self.has_diverged else Start.AS_IT_IS


class Start(enum.Enum):
    """What a new phase begins with."""

    AS_IT_IS = "what the objects hold"
    WEIGHTS = "the weights that the phase before ended with"
    WHOLE = "all that the phase before ended with"


@dataclasses.dataclass(frozen=True, slots=True)
class Found:
    """Which phase a call is.

    Attributes:
        index: Its number; that after the last for a new one.
        start: What a new one begins with; None for one that is known.
    """

    index: int
    start: Start | None = None


@dataclasses.dataclass(frozen=True, slots=True)
class Standing:
    """Where the last phase stands.

    Attributes:
        epochs_done: Epochs done in all.
        is_finished: Whether it came to its end, early or not.
        location: The run folder, for messages.
    """

    epochs_done: int
    is_finished: bool
    location: str


def title_of(phases: Sequence[Phase], index: int) -> str:
    """Returns what a phase is called."""
    return phases[index].name or f"phase {index + 1}"


def without_likes(phases: Sequence[Phase]) -> list[Phase]:
    """Returns the phases, of which those that only repeat the one before keep no checkpoint.

    A loop that calls ``fit`` for each epoch would else keep as many checkpoints as epochs. One
    with a name of its own is no mere repetition: the cells after its call expect its end.
    """
    kept = list(phases)
    for number in range(1, len(kept) - 1):
        before, each = kept[number - 1], kept[number]
        same = before.parts == each.parts and before.settings == each.settings
        if same and each.name == before.name:
            kept[number] = dataclasses.replace(each, stands_on="")
    return kept


def find(phases: Sequence[Phase], call: Call, standing: Standing, left: Left | None) -> Found:
    """Returns which phase a call is.

    Args:
        phases: Those known, the last one under way.
        call: What is asked for.
        standing: Where the last one stands.
        left: How this session's last call left these objects; None when they were not there.

    Raises:
        ArgumentError: A new phase would have no epoch to train.
        CheckpointMismatchError: It is none of them, and cannot be the next.
    """
    for index, each in enumerate(phases):
        if call.name and each.name == call.name:
            return _by_name(phases, call, standing, index)
    if left is not None and left.is_as_left:
        known = phases[left.index]
        call = dataclasses.replace(call, parts=known.parts, settings=known.settings)
    alike = [i for i, each in enumerate(phases) if each.is_as(call)]
    if call.name:
        alike = [i for i in alike if not phases[i].name]
    first = left.index if left is not None else 0
    later = [i for i in alike if i >= first]
    if left is not None and later == [left.index] and _has_moved_on(phases, call, standing, left):
        return Found(len(phases), Start.AS_IT_IS)
    if later or (alike and call.epochs is not None):
        return Found((later or alike)[0])
    if call.name:
        return _next(phases, call, standing, Start.WEIGHTS if left is None else left.start)
    if left is None:
        return _find_first(phases, call, standing)
    return _find_after(phases, call, standing, left)


def _by_name(phases: Sequence[Phase], call: Call, standing: Standing, index: int) -> Found:
    known, is_last = phases[index], index == len(phases) - 1
    wants_more = (known.epochs or 0) < (call.epochs or 0)
    if not known.trains_as(call) or (wants_more and not is_last):
        raise _strange(phases, call, standing, index)
    return Found(index)


def _has_moved_on(phases: Sequence[Phase], call: Call, standing: Standing, left: Left) -> bool:
    """Whether weights were changed after a finished phase, by a call that says no epochs yet."""
    is_last = left.index == len(phases) - 1 and standing.is_finished
    return is_last and call.epochs is None and not left.has_its_weights


def _find_after(phases: Sequence[Phase], call: Call, standing: Standing, left: Left) -> Found:
    """For a call in a session that has been through a phase with these objects."""
    last = len(phases) - 1
    if left.index < last:
        following = phases[left.index + 1]
        if following.trains_as(call) and following.ends_as(call):
            return Found(left.index + 1)
        if following.trains_as(call) and left.index + 1 == last:
            return Found(last)
        raise _strange(phases, call, standing, left.index + 1)
    asks_for_more = call.epochs is None or call.epochs > standing.epochs_done
    if standing.is_finished:
        goes_on = left.is_as_left and (left.has_its_weights or not asks_for_more)
    else:
        is_meant = left.is_as_left or left.has_diverged or phases[last].ends_as(call)
        goes_on = phases[last].trains_as(call) and is_meant
    return Found(last) if goes_on else _next(phases, call, standing, left.start)


def _find_first(phases: Sequence[Phase], call: Call, standing: Standing) -> Found:
    """For the first call of a session, or one with a model made anew."""
    last = len(phases) - 1
    alike = [i for i, each in enumerate(phases) if each.trains_as(call)]
    closed = [i for i in alike if i < last]
    if last in alike and phases[last].ends_as(call):
        return Found(last)
    if same_end := [i for i in closed if phases[i].ends_as(call)]:
        return Found(same_end[0])
    if last in alike and phases[last].is_set_as(call):
        return Found(last)
    if closed:
        raise _strange(phases, call, standing, closed[0])
    asks_for_more = call.epochs is None or call.epochs > standing.epochs_done
    if last in alike:
        is_new = standing.is_finished and asks_for_more and call.epochs is not None
        return Found(last + 1, Start.WHOLE) if is_new else Found(last)
    raise _strange(phases, call, standing, last)


def _next(phases: Sequence[Phase], call: Call, standing: Standing, start: Start) -> Found:
    done, asked = standing.epochs_done, call.epochs
    if asked is not None and asked <= done:
        message = (
            f"epochs is {asked}, and {done} are trained in {standing.location}: there is nothing"
            " left to train in a new phase."
        )
        hint = (
            "epochs counts all passes in a run folder, those of the phases before included: pass"
            f" epochs={done + asked} to train {asked} more, or another folder."
        )
        raise ArgumentError(message, argument="epochs", hint=hint)
    return Found(len(phases), start)


def _strange(
    phases: Sequence[Phase], call: Call, standing: Standing, index: int
) -> CheckpointMismatchError:
    """Returns the error for a call that nearly is a phase."""
    known = phases[index]
    changed = differing(known.parts, call.parts) or differing(known.settings, call.settings)
    if not known.ends_as(call):
        changed["epochs"] = (known.epochs, call.epochs)
    said = "; ".join(phrases_of(changed))
    title = title_of(phases, index)
    if index < len(phases) - 1:
        state = f"has ended, and {title_of(phases, index + 1)} goes on from it"
    else:
        state = "is trained" if standing.is_finished else "is not trained to its end"
    message = f"This call is not as {title} in {standing.location} was, which {state}: {said}."
    hint = f"Run the cells before this one as well, and pass what was passed then; or {_NEXT}."
    return CheckpointMismatchError(message, differences=changed, hint=hint)
