"""Putting a checkpoint back into a run, or saying why it does not fit."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

from colabkit.checkpoint import LoadedCheckpoint
from colabkit.errors import ArgumentError, CheckpointMismatchError
from colabkit.frameworks.base import FrameworkAdapter, Owned
from colabkit.frameworks.differences import differing
from colabkit.runs.checkpoint_manager import CheckpointManager
from colabkit.runs.display import Display
from colabkit.runs.fingerprint import WAYS_ON, misfits, mismatch_error
from colabkit.runs.handover import is_loaded, left_by, phase_left, stop_before_phase
from colabkit.runs.phases import Call, Found, Left, Phase, Start, find, title_of
from colabkit.runs.state import RunState, phases_in, standing_in
from colabkit.runs.verdict import environment_changes

Resume = bool | str | int


def check_resume(resume: Resume) -> None:
    """Raises ArgumentError unless ``resume`` is one of the ways, or a step."""
    is_step = isinstance(resume, int) and resume >= 0
    if not (is_step or (isinstance(resume, str) and resume in {"weights", "best"})):
        hint = 'Pass True, False, "weights", "best" or the step of a checkpoint.'
        raise ArgumentError.of("resume", resume, hint)


@dataclasses.dataclass(frozen=True, slots=True)
class Asked:
    """What a call wants of a run folder.

    Attributes:
        seed: The run's seed.
        resume: True for the newest that is whole; False to start anew; "weights" to start anew
            with the weights that fit; "best" or a step to go on from that checkpoint.
        call: What tells its phase from others.
        owned: The objects that tell it from other calls of this session.
    """

    seed: int
    resume: Resume
    call: Call
    owned: Owned


def restore_run(
    manager: CheckpointManager,
    adapter: FrameworkAdapter,
    state: RunState,
    display: Display,
    asked: Asked,
) -> tuple[str, ...]:
    """Restores a checkpoint into the user's objects and the run's state.

    Args:
        manager: The run folder.
        adapter: The user's objects.
        state: The run's own state.
        display: Where the sentences go.
        asked: What is wanted.

    Returns:
        Why the resume is not bitwise exact; empty when it is, or when nothing was restored.

    Raises:
        ArgumentError: A phase would begin that has no epoch to train.
        CheckpointMismatchError: The checkpoint does not fit, and something was trained.
        CheckpointNotFoundError: There is no best one, or none of that step.
    """
    if manager.warning:
        display.say(manager.warning)
    # Training may give them another form: a resume begins with what the notebook makes.
    state.objects_as_made = adapter.fingerprint()
    state.take_phases([Phase.of(asked.call)])
    resume, loaded = asked.resume, None
    if isinstance(resume, bool) or resume == "weights":
        loaded = manager.newest() if resume else None
    else:
        loaded = manager.chosen(resume)
    if loaded is None:
        manager.begin_attempt()
        display.base_is_noted(adapter.unwritten_bytes())
        return ()
    for name, reason in loaded.skipped:
        display.say(f"Checkpoint {name} is not whole ({reason}) The one before is used.")
    for step in loaded.diverged:
        display.say(f"The weights of step {step} are NaN or infinite: the ones before are used.")
    if resume == "weights":
        fitted, total = adapter.restore_weights(loaded.sections)
        manager.begin_attempt()
        display.say(
            f"Took {fitted} of {total} tensors from step {loaded.facts.step} and began anew."
            ' Take resume="weights" out again, so that an interruption goes on from here.'
        )
        return ()
    return _Restoring(manager, adapter, state, display, asked, loaded).run()


class _Restoring:
    """Finds the phase that a call is, and puts back what that needs."""

    def __init__(
        self,
        manager: CheckpointManager,
        adapter: FrameworkAdapter,
        state: RunState,
        display: Display,
        asked: Asked,
        loaded: LoadedCheckpoint,
    ) -> None:
        self._checkpoints, self._adapter, self._state, self._display = (
            manager,
            adapter,
            state,
            display,
        )
        self._asked, self._loaded = asked, loaded
        self._saved: Mapping[str, Any] = loaded.sections["run"]
        place, owned = manager.location, asked.owned
        known = phase_left(place, owned)
        has_weights = known is None or adapter.holds_weights(loaded.sections)
        left = left_by(place, owned, asked.call, has_weights=has_weights)
        known, left, is_given = manager.known_to_first((known, left, is_loaded(place, owned)))
        self._phases = self._known_phases(known)
        self._standing = standing_in(self._saved, self._phases[-1], place)
        self._left = None if left is not None and left.index >= len(self._phases) else left
        if self._left is None and is_given:
            # Whoever has just put a checkpoint's weights into the model means to go on from them.
            self._left = Left(len(self._phases) - 1, is_as_left=False, has_its_weights=False)

    def _known_phases(self, known: Phase | None) -> list[Phase]:
        phases, call = phases_in(self._saved), self._asked.call
        # What training has given another form may be passed in either.
        now = self._saved.get("parts", {})
        if now and not differing(now, call.parts):
            phases[-1] = dataclasses.replace(phases[-1], parts=dict(call.parts))
        if known is not None and (known.step, known.stands_on) == (
            phases[-1].step,
            phases[-1].stands_on,
        ):
            phases[-1] = known
        return phases

    def run(self) -> tuple[str, ...]:
        manager, asked, loaded = self._checkpoints, self._asked, self._loaded
        changed = self._misfits(loaded)
        is_other = changed or not self._phases[-1].trains_as(asked.call)
        if is_other and asked.resume is True and not (loaded.facts.step or manager.has_trained()):
            self._require_turn()
            manager.begin_attempt()
            self._display.say(
                "What lies in the run folder was never trained and does not fit: begun anew."
            )
            return ()
        found = self._found(changed)
        if asked.resume is not True:
            manager.begin_attempt()
            self._display.say(
                f"Going on from the checkpoint of step {loaded.facts.step}; newer ones stay. Take"
                f" resume={asked.resume!r} out again, so that an interruption goes on from here."
            )
        if found.start is not None:
            return self._begin(found.start, changed)
        if found.index < len(self._phases) - 1:
            return self._give_back(found.index)
        if changed:
            raise mismatch_error(changed, manager.location)
        return self._go_on(found)

    def _found(self, changed: Mapping[str, tuple[object, object]]) -> Found:
        call, last = self._asked.call, len(self._phases) - 1
        if self._asked.resume is not True:
            is_last = self._phases[last].trains_as(call)
            return Found(last) if is_last else Found(last + 1, Start.WEIGHTS)
        try:
            return find(self._phases, call, self._standing, self._left)
        except CheckpointMismatchError as error:
            if not changed:
                raise
            hint = f"{WAYS_ON} If it is the next phase: {error.hint}"
            raise mismatch_error(changed, self._checkpoints.location, hint=hint) from error

    def _misfits(self, loaded: LoadedCheckpoint) -> dict[str, tuple[object, object]]:
        made = self._state.objects_as_made
        changed = misfits(loaded.fingerprint, objects=made, seed=self._asked.seed)
        return changed or self._adapter.changed_base(loaded.sections)

    def _go_on(self, found: Found) -> tuple[str, ...]:
        """In the last phase, at its very batch."""
        adapter, state, loaded = self._adapter, self._state, self._loaded
        state.load_state_dict(self._saved)
        state.take_phases([*self._phases[:-1], self._renewed(self._phases[-1])])
        position = state.position
        if self._is_idle(found):
            state.is_idle = True
            return ()
        if self._left is not None and self._standing.is_finished:
            state.ended_with = loaded.info.name
        adapter.restore(loaded.sections)
        is_finished = self._is_all_trained()
        state.found_finished = is_finished and self._asked.resume is True
        if not state.found_finished:
            state.history.mark_resume(step=position.step, epoch=position.epoch)
        title = self._title(found.index)
        self._display.resumed(loaded, position, phase=title, is_finished=is_finished)
        self._take_changes(trains=not is_finished or self._asked.call.epochs is None)
        state.passed = adapter.passed()
        return environment_changes(loaded.fingerprint["environment"], adapter.environment())

    def _take_changes(self, *, trains: bool = True) -> None:
        """Takes what is passed otherwise than in the session before, and says what will count."""
        taken = [*self._adapter.take_changes(self._state.passed), *self._state.taken()]
        if taken and trains:
            self._display.say(f"Taken as passed now: {'; '.join(taken)}.")

    def _is_idle(self, found: Found) -> bool:
        """Whether the objects come from this very phase, and nothing is left to train."""
        is_here = self._left is not None and self._left.index == found.index
        return is_here and self._asked.call.epochs is not None and self._is_all_trained()

    def _is_all_trained(self) -> bool:
        """Whether the run had come to its end, and no more epochs are known to be asked for."""
        epochs, standing = self._asked.call.epochs, self._standing
        return standing.is_finished and (epochs is None or epochs <= standing.epochs_done)

    def _renewed(self, phase: Phase) -> Phase:
        """Returns the phase as it is passed now."""
        call = self._asked.call
        name = call.name or phase.name
        if self._left is not None and self._left.is_as_left:
            return dataclasses.replace(phase, name=name)
        parts = phase.parts or dict(call.parts)
        return dataclasses.replace(phase, name=name, parts=parts, settings=dict(call.settings))

    def _give_back(self, index: int) -> tuple[str, ...]:
        """The state that an earlier phase ended with, from which the next one goes on."""
        names = [phase.stands_on for phase in self._phases[index + 1 :] if phase.stands_on]
        tries = (self._checkpoints.named(name) for name in names)
        ended = next((each for each in tries if each is not None), self._loaded)
        if changed := self._misfits(ended):
            raise mismatch_error(changed, self._checkpoints.location)
        state, title = self._state, title_of(self._phases, index)
        self._adapter.restore(ended.sections)
        state.load_state_dict(ended.sections["run"])
        state.passed = self._adapter.passed()
        state.take_phases(self._phases, index)
        last = title_of(self._phases, len(self._phases) - 1)
        where = f"step {ended.facts.step:,}"
        if ended.info.name != names[0]:
            where += " (its own end is no longer in the run folder)"
        self._display.say(
            f"Nothing left to do in {title}: the model is as it was at {where}; {last} goes on"
            " with its own call."
        )
        return ()

    def _require_turn(self) -> None:
        """Requires that the phase before was not cut short in this session."""
        before, step = title_of(self._phases, len(self._phases) - 1), self._loaded.facts.step
        stop_before_phase(self._checkpoints.location, self._asked.owned, before, step)

    def _begin(self, start: Start, changed: Mapping[str, tuple[object, object]]) -> tuple[str, ...]:
        """A new phase, on the end of the last one."""
        self._require_turn()
        adapter, state, loaded, call = self._adapter, self._state, self._loaded, self._asked.call
        hard = {
            name: pair
            for name, pair in changed.items()
            if name == "seed" or start is Start.WHOLE or (start is Start.WEIGHTS and "." in name)
        }
        if hard:
            raise mismatch_error(hard, self._checkpoints.location)
        if start is Start.WHOLE:
            adapter.restore(loaded.sections)
        elif start is Start.WEIGHTS:
            adapter.restore_weights(loaded.sections)
        state.load_state_dict(self._saved)
        before = self._phases[-1]
        if start is Start.WHOLE:
            self._take_changes()
        state.take_phases(self._phases)
        is_comparable = not differing(_losses(before.settings), _losses(call.settings))
        state.begin_phase(call, stands_on=loaded.info.name, is_comparable=is_comparable)
        state.passed = adapter.passed()
        position = state.position
        if start is not Start.AS_IT_IS:
            state.history.mark_resume(step=position.step, epoch=position.epoch)
        self._display.phase_begins(
            self._title(len(self._phases)),
            position,
            source=start.value,
            changes=[
                *differing(before.parts, call.parts),
                *differing(before.settings, call.settings),
            ],
        )
        return environment_changes(loaded.fingerprint["environment"], adapter.environment())

    def _title(self, index: int) -> str:
        phases = self._state.phases
        return title_of(phases, index) if len(phases) > 1 or phases[index].name else ""


def _losses(settings: Mapping[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in settings.items() if name.startswith("loss")}
