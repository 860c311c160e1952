"""What a run knows of itself besides the user's objects; all of it goes into checkpoints."""

from __future__ import annotations

import dataclasses
from collections.abc import Hashable, Iterable, Mapping, Sequence
from typing import Any

from colabkit.checkpoint import SaveFacts, Section, deep_copy
from colabkit.frameworks.differences import differences, differing, phrases_of
from colabkit.frameworks.second_names import SecondNames
from colabkit.runs.fingerprint import mismatch_error
from colabkit.runs.history import History, PhaseRecord
from colabkit.runs.kept_names import KeptNames
from colabkit.runs.kept_values import KeptValues
from colabkit.runs.monitor import Monitor
from colabkit.runs.own_states import OwnStates
from colabkit.runs.phases import Call, Phase, Standing, title_of, without_likes
from colabkit.runs.position import Cursor, Position
from colabkit.runs.same_data import SHARES, WAYS_ON, batch_size_of_all
from colabkit.runs.step_log import StepLog


@dataclasses.dataclass(frozen=True, slots=True)
class Stop:
    """That a run has ended before its last epoch.

    Attributes:
        reason: Why, as said to the user.
        epochs: How many were asked for in all; None where nobody said.
        by: The class of the callback that has ended it, "" where nobody said.
    """

    reason: str
    epochs: int | None
    by: str = ""


class RunState:
    """Place in the data, history, running means, best value, and whether to stop."""

    def __init__(
        self,
        *,
        position: Position,
        history: History,
        log: StepLog,
        monitor: Monitor,
        kept: KeptValues,
        names: SecondNames,
    ) -> None:
        self.kept, self.kept_names = kept, KeptNames(kept, names)
        self.position = position
        self.history = history
        self.log = log
        self.monitor = monitor
        self.objects_as_made: dict[str, Any] = {}
        self.known_data: dict[int, dict[str, Any]] = {}
        self.first_batches: dict[str, dict[str, Any]] = {}
        self.epoch_values: dict[str, float] = {}
        self.stop: Stop | None = None
        self.reasons: tuple[str, ...] = ()
        self.passed: dict[str, Any] = {}
        # Of the call, as words that can be shown; marks of code, which are none, stand in lists.
        self.settings: dict[str, Any] = {}
        self.settings_then: dict[str, Any] = {}
        self.phases: list[Phase] = []
        self.phase_index = 0
        self.begins_phase = False
        self.ended_with = ""
        self.is_idle = False
        self.found_finished = False
        self.parts: dict[str, str] = {}
        self.remarks: list[str] = []
        # What was small at the head of the epoch under way, and behind so many passes of it.
        self.stops: dict[int, dict[str, Any]] = {}
        self._epoch_values_restored: dict[str, float] = {}
        # How many processes a loop of the user's own has trained in; 0 before it has.
        self.processes = 0
        # What the other processes of several had for themselves where all took up a save.
        self.own = OwnStates()

    @property
    def should_stop(self) -> bool:
        """Whether no epoch is to follow the one under way."""
        return self.stop is not None

    def taken(self) -> list[str]:
        """Returns what of the call is passed otherwise than in the session before, in phrases."""
        return phrases_of(differing(self.settings_then, self.settings))

    def train_on(self) -> None:
        """Notes the resume of a run that was found at its end, now that it goes on all the same."""
        if self.found_finished:
            self.found_finished = False
            self.history.mark_resume(step=self.position.step, epoch=self.position.epoch)

    def go_on_to(self, epochs: int) -> str:
        """Takes an end back where more epochs are asked for than then; returns what to say."""
        stop = self.stop
        if stop is None or stop.epochs is None or epochs <= stop.epochs:
            return ""
        self.stop = None
        return (
            f"Training on to {epochs} epochs, as is asked for now; of {stop.epochs} it had"
            f" ended after {self.position.epoch} ({stop.reason})."
        )

    @property
    def is_closed(self) -> bool:
        """Whether a later phase goes on from the end of the one that was asked for."""
        return self.phase_index < len(self.phases) - 1

    def begin_phase(self, call: Call, *, stands_on: str, is_comparable: bool) -> None:
        """Begins another phase at the place where the run stands, with an epoch of its own.

        Args:
            call: What it trains.
            stands_on: The checkpoint that the phase before ended with, "" at the very beginning.
            is_comparable: Whether the best value so far is one to beat.
        """
        self.position.begin_epoch_anew()
        self.stop, self.epoch_values = None, {}
        self.known_data, self.first_batches = {}, {}
        self.log.begin_epoch()
        if not is_comparable:
            self.monitor.best = None
        step, epoch = self.position.step, self.position.epoch
        phase = Phase.of(call, step=step, epoch=epoch, stands_on=stands_on)
        self.take_phases([*without_likes(self.phases), phase])
        self.begins_phase = True

    def count_from(self, epoch: int) -> None:
        """Lets the phase that begins count its epochs from a number on."""
        self.position.begin_epoch(epoch)
        self.log.begin_epoch()
        self.take_phases([*self.phases[:-1], dataclasses.replace(self.phases[-1], epoch=epoch)])

    def take_phases(self, phases: Sequence[Phase], index: int | None = None) -> None:
        """Takes up what phases there are, the last of them under way."""
        self.phases = list(phases)
        self.phase_index = len(self.phases) - 1 if index is None else index
        self.history.phases = [
            PhaseRecord(title_of(self.phases, number), each.step, each.epoch)
            for number, each in enumerate(self.phases[: self.phase_index + 1])
        ]

    def ask_for(self, epochs: int) -> str:
        """Notes how many epochs are asked for in all; returns what to say."""
        position = self.position
        is_past = position.epoch > epochs or (position.epoch == epochs and position.is_mid_epoch)
        if self.phases and not self.is_closed and not is_past:
            self.phases[-1] = self.phases[-1].going_on_to(epochs, done=position.epoch)
        return self.go_on_to(epochs)

    def go_on_in(self, processes: int, *, sums: bool) -> tuple[str, ...]:
        """Goes on in so many processes; returns why that is not as exact as the same number.

        Args:
            processes: How many.
            sums: Whether the loop is the user's own, who sums gradients over them.
        """
        own, self.own = self.own, OwnStates()
        reasons = own.changes(processes)
        if not sums:
            return reasons
        then, self.processes = self.processes, processes
        if then in {0, processes}:
            return reasons
        return (*reasons, f"gradients were summed over {then} processes, are over {processes}")

    def place(self) -> Hashable:
        """Returns what is another whenever there is something new to save."""
        return (self.position.place(), self.should_stop)

    def put_back(self) -> None:
        """Takes back what was kept and logged on the way to the place of a checkpoint."""
        self.kept_names.join(only=self.kept.put_back())
        self.epoch_values = dict(self._epoch_values_restored)

    def epoch_logs(self) -> dict[str, float]:
        """Returns the means of the epoch under way, and what was noted for the epoch."""
        self.log.drain()
        return {**self.log.means(), **self.epoch_values}

    def end_epoch(self, *, seconds: float) -> bool:
        """Closes the epoch under way; returns whether it was the best so far."""
        logs = self.epoch_logs()
        position = self.position
        self.history.append_epoch(
            epoch=position.epoch, step=position.step, seconds=seconds, values=logs
        )
        position.begin_epoch(position.epoch + 1)
        self.log.begin_epoch()
        self.epoch_values = {}
        return self.monitor.improved(logs)

    def check_same_data(
        self,
        cursor: Cursor,
        now: Mapping[str, Any],
        location: str,
        *,
        in_every_epoch: bool,
        accepts: bool,
    ) -> None:
        """Raises CheckpointMismatchError when a pass goes on over other data than it began with.

        Args:
            cursor: The pass.
            now: What its data says of itself.
            location: The run folder.
            in_every_epoch: Whether a pass that begins must be over the data of the one before, in
                another session.
            accepts: Whether other data is what the user wants.
        """
        if not cursor.outermost:
            return
        # A loop of one's own may make its data anew in each epoch: played games, growing pools.
        goes_on = not accepts and (in_every_epoch or cursor.batches_done > 0)
        then = self.known_data.get(cursor.call, now) if goes_on else now
        then = self._resized(cursor, then, now)
        # How many share it out says nothing that the number of batches does not say.
        known, here = ({k: v for k, v in each.items() if k != "replicas"} for each in (then, now))
        if changed := differences({"data": known}, {"data": here}):
            is_lone = "replicas" in then and "replicas" not in now
            raise mismatch_error(changed, location, hint=(SHARES * is_lone) + WAYS_ON)
        self.known_data[cursor.call] = dict(now)

    def _resized(
        self, cursor: Cursor, then: Mapping[str, Any], now: Mapping[str, Any]
    ) -> Mapping[str, Any]:
        """Goes on in the same data by batches of another size; returns what is then the same."""
        before, after = batch_size_of_all(then), batch_size_of_all(now)
        is_same = now.get("samples") is not None and then.get("samples") == now["samples"]
        # Shared out by another sampler, or by none, they come in another order.
        is_same = is_same and ("replicas" in then) == ("replicas" in now)
        is_sized = then.get("batch_size") == now.get("batch_size") and before == after
        if not is_same or is_sized or before is None or after is None:
            return then
        # What is kept of batches is of their old size.
        cursor.newest, self.first_batches = None, {}
        done = min(cursor.batches_done * before, now["samples"])
        cursor.batches_done = done // after
        whose = "The batch size" + (" of all processes together" if "replicas" in now else "")
        words = f"{whose} was {before} and is {after}"
        if done:
            words += f"; the epoch goes on at sample {cursor.batches_done * after:,}"
        if again := done % after:
            words += f", and {again} samples are trained once more"
        self.remarks.append(f"{words}.")
        return {**then, "batch_size": now["batch_size"], "batches": now.get("batches")}

    def forget_batches(self) -> None:
        """Drops what is kept of batches, where those to come are of another form."""
        self.first_batches = {}
        self.position.forget_batches()

    def facts(self, *, is_best: bool, fingerprint: Mapping[str, Any]) -> SaveFacts:
        """Returns what a checkpoint of this moment is, the place in each feed noted."""
        position = self.position
        for cursor in position.open:
            cursor.note_place(position.epoch)
        return SaveFacts(
            step=position.step,
            epoch=position.epoch,
            batch=position.batches_done,
            metrics=self.history.newest_epoch_values(),
            is_best=is_best,
            fingerprint=fingerprint,
            phase=title_of(self.phases, self.phase_index) if len(self.phases) > 1 else "",
            stands_on=tuple(each.stands_on for each in self.phases if each.stands_on),
        )

    def section(
        self,
        position: Mapping[str, Any],
        epoch_values: Mapping[str, Any],
        noted: Mapping[str, Any] | None = None,
        large: Iterable[str] = (),
    ) -> Section:
        """Returns the part of a checkpoint that is the run's own, with where it goes on.

        Args:
            position: The place.
            epoch_values: What the loop had logged for the epoch there.
            noted: What ``noted`` gave there, where it may have become more.
            large: Names of kept values that are not in it, and are as they were.
        """
        there = {"position": position, "epoch_values": dict(epoch_values), **(noted or {})}
        state = self.state_dict()
        if noted is not None:
            there["kept"] = {name: state["kept"][name] for name in large} | noted["kept"]
        return Section("run", {**state, **there}, weights=False)

    def noted(self, *, whole: bool) -> dict[str, Any]:
        """Returns what the loop has logged and kept up to now, as a checkpoint has it.

        Args:
            whole: Whether what is large is copied, too.
        """
        self.log.drain()
        kept = deep_copy(self.kept.state_dict()) if whole else self.kept.small_state()
        return {"history": self.history.state_dict(), "log": self.log.state_dict(), "kept": kept}

    def state_dict(self) -> dict[str, Any]:
        """Returns everything as plain values and arrays."""
        self.log.drain()
        return {
            "position": self.position.state_dict(),
            "history": self.history.state_dict(),
            "log": self.log.state_dict(),
            "monitor": self.monitor.state_dict(),
            "known_data": {call: dict(data) for call, data in self.known_data.items()},
            "first_batches": dict(self.first_batches),
            "epoch_values": dict(self.epoch_values),
            "should_stop": self.should_stop,
            "stop": None if self.stop is None else list(dataclasses.astuple(self.stop)),
            "reasons": list(self.reasons),
            "passed": self.passed,
            "settings": self.settings,
            "phases": [dataclasses.asdict(each) for each in self.phases],
            "parts": self.parts,
            "kept": self.kept.state_dict(),
            "kept_names": self.kept_names.state_dict(),
            "stops": self.stops,
            **({"processes": self.processes} if self.processes > 1 else {}),
            **({"own": self.own.state_dict()} if self.own.processes else {}),
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Restores what ``state_dict`` gave."""
        self.position.load_state_dict(state["position"])
        self.history.load_state_dict(state["history"])
        self.log.load_state_dict(state["log"])
        self.monitor.load_state_dict(state["monitor"])
        self.known_data = {call: dict(data) for call, data in state["known_data"].items()}
        self.first_batches = dict(state.get("first_batches", {}))
        self.epoch_values = dict(state["epoch_values"])
        self._epoch_values_restored = dict(self.epoch_values)
        self.stops = dict(state.get("stops", {}))
        stop = ["asked to stop", None] if state["should_stop"] else None
        stop = state.get("stop", stop)
        self.stop = None if stop is None else Stop(*stop)
        self.reasons = tuple(state.get("reasons", ()))
        self.passed = dict(state.get("passed", {}))
        self.settings_then = dict(state.get("settings", {}))
        self.kept.load_state_dict(state.get("kept", {}))
        self.kept_names.load_state_dict(state.get("kept_names", ""))
        self.take_phases(phases_in(state))
        self.processes = state.get("processes", 1)
        self.own = OwnStates.of_state(state.get("own", {}))


def phases_in(state: Mapping[str, Any]) -> list[Phase]:
    """Returns the phases of a run's saved state; what was saved without any is one unknown."""
    return [Phase(**each) for each in state.get("phases", ())] or [Phase()]


def standing_in(state: Mapping[str, Any], last: Phase, location: str) -> Standing:
    """Returns where the last phase of a run's saved state stands."""
    position = Position()
    position.load_state_dict(state["position"])
    has_all = last.epochs is not None and position.epoch >= last.epochs
    is_finished = (has_all or bool(state["should_stop"])) and not position.is_mid_epoch
    return Standing(position.epoch, is_finished, location)
