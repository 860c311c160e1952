"""Putting a checkpoint back into a run, or saying why it does not fit."""

from __future__ import annotations

from colabkit.checkpoint import LoadedCheckpoint
from colabkit.errors import ArgumentError
from colabkit.training.display import Display
from colabkit.training.fingerprint import differences, mismatch_error
from colabkit.training.keeper import Keeper
from colabkit.training.side import Side
from colabkit.training.state import RunState
from colabkit.training.verdict import environment_changes


def check_resume(resume: bool | str) -> None:
    """Raises ArgumentError unless ``resume`` is one of the three ways."""
    if not (isinstance(resume, bool) or resume == "weights"):
        message = f"resume is {resume!r}."
        raise ArgumentError(message, argument="resume", hint='Pass True, False or "weights".')


def restore_run(
    keeper: Keeper,
    side: Side,
    state: RunState,
    display: Display,
    *,
    seed: int,
    resume: bool | str,
) -> tuple[str, ...]:
    """Restores the newest whole checkpoint into the user's objects and the run's state.

    Args:
        keeper: The run folder.
        side: The user's objects.
        state: The run's own state.
        display: Where the one sentence goes.
        seed: The run's seed.
        resume: True, False to start anew, or "weights" to take what fits.

    Returns:
        Why the resume is not bitwise exact; empty when it is, or when nothing was restored.

    Raises:
        CheckpointMismatchError: The checkpoint does not fit, something was trained, and
            ``resume`` is True.
    """
    if keeper.warning:
        display.say(keeper.warning)
    loaded = None if resume is False else keeper.newest()
    if loaded is None:
        keeper.begin_attempt()
        return ()
    for name, reason in loaded.skipped:
        display.say(f"Checkpoint {name} is not whole ({reason}) The one before is used.")
    identity = {"objects": side.fingerprint(), "seed": seed}
    changed = differences({key: loaded.fingerprint[key] for key in identity}, identity)
    if not changed:
        return _resume(loaded, side, state, display)
    if resume != "weights":
        if _has_trained(keeper, loaded):
            raise mismatch_error(changed, keeper.location)
        keeper.begin_attempt()
        display.say("What lies in the run folder was never trained and does not fit: begun anew.")
        return ()
    fitted, total = side.restore_weights(loaded.sections)
    keeper.begin_attempt()
    display.say(f"Took {fitted} of {total} tensors from step {loaded.facts.step}.")
    return ()


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
    return environment_changes(loaded.fingerprint["environment"], side.environment())
