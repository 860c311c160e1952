"""Putting a checkpoint back into a run, or saying why it does not fit."""

from __future__ import annotations

from colabkit.checkpoint import LoadedCheckpoint
from colabkit.errors import ArgumentError
from colabkit.training.display import Display
from colabkit.training.fingerprint import misfits, mismatch_error
from colabkit.training.keeper import Keeper
from colabkit.training.side import Side
from colabkit.training.state import RunState
from colabkit.training.verdict import environment_changes

Resume = bool | str | int


def check_resume(resume: Resume) -> None:
    """Raises ArgumentError unless ``resume`` is one of the ways, or a step."""
    is_step = isinstance(resume, int) and resume >= 0
    if not (is_step or (isinstance(resume, str) and resume in {"weights", "best"})):
        message = f"resume is {resume!r}."
        hint = 'Pass True, False, "weights", "best" or the step of a checkpoint.'
        raise ArgumentError(message, argument="resume", hint=hint)


def restore_run(
    keeper: Keeper,
    side: Side,
    state: RunState,
    display: Display,
    *,
    seed: int,
    resume: Resume,
) -> tuple[str, ...]:
    """Restores a checkpoint into the user's objects and the run's state.

    Args:
        keeper: The run folder.
        side: The user's objects.
        state: The run's own state.
        display: Where the sentences go.
        seed: The run's seed.
        resume: True for the newest that is whole; False to start anew; "weights" to start anew
            with the weights that fit; "best" or a step to go on from that checkpoint.

    Returns:
        Why the resume is not bitwise exact; empty when it is, or when nothing was restored.

    Raises:
        CheckpointMismatchError: The checkpoint does not fit, and something was trained.
        CheckpointNotFoundError: There is no best one, or none of that step.
    """
    if keeper.warning:
        display.say(keeper.warning)
    # Training may give them another form: a resume begins with what the notebook makes.
    state.objects_as_made = side.fingerprint()
    loaded = None
    if isinstance(resume, bool) or resume == "weights":
        loaded = keeper.newest() if resume else None
    else:
        loaded = keeper.chosen(resume)
    if loaded is None:
        keeper.begin_attempt()
        return ()
    for name, reason in loaded.skipped:
        display.say(f"Checkpoint {name} is not whole ({reason}) The one before is used.")
    for step in loaded.diverged:
        display.say(f"The weights of step {step} are NaN or infinite: the ones before are used.")
    if resume == "weights":
        fitted, total = side.restore_weights(loaded.sections)
        keeper.begin_attempt()
        display.say(
            f"Took {fitted} of {total} tensors from step {loaded.facts.step} and began anew."
            ' Take resume="weights" out again, so that an interruption goes on from here.'
        )
        return ()
    if changed := misfits(loaded.fingerprint, objects=state.objects_as_made, seed=seed):
        if resume is not True or _has_trained(keeper, loaded):
            raise mismatch_error(changed, keeper.location)
        keeper.begin_attempt()
        display.say("What lies in the run folder was never trained and does not fit: begun anew.")
        return ()
    if resume is not True:
        keeper.begin_attempt()
        display.say(
            f"Going on from the checkpoint of step {loaded.facts.step}; newer ones stay. Take"
            f" resume={resume!r} out again, so that an interruption goes on from here."
        )
    return _resume(loaded, side, state, display)


def _has_trained(keeper: Keeper, loaded: LoadedCheckpoint) -> bool:
    """Whether any checkpoint holds more than the first weights, of a run that failed at once."""
    if loaded.facts.step:
        return True
    return any(info.step or info.problem for info in keeper.folder.store.infos())


def _resume(
    loaded: LoadedCheckpoint, side: Side, state: RunState, display: Display
) -> tuple[str, ...]:
    side.restore(loaded.sections)
    state.load_state_dict(loaded.sections["run"])
    position = state.position
    state.history.mark_resume(step=position.step, epoch=position.epoch)
    display.resumed(loaded, position)
    if taken := side.take_changes(state.passed):
        display.say(f"Taken as passed now: {'; '.join(taken)}.")
    state.passed = side.passed()
    return environment_changes(loaded.fingerprint["environment"], side.environment())
