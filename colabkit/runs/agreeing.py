"""A run of several processes: rank 0 reads, writes, shows and decides, and the others follow.

The processes meet at steps that rank 0 has announced at the meeting before; there is no other
way for one to learn that it is interrupted, out of time, or done. No thread but the main one
takes part.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from colabkit.errors import ReplicasDifferError
from colabkit.frameworks.processes import Processes
from colabkit.runs.checkpoint_manager import CheckpointManager, CheckpointOptions
from colabkit.runs.left_loops import LeftLoops
from colabkit.runs.limits import Limits
from colabkit.runs.options import RunOptions
from colabkit.runs.own_states import OwnStates, Where, name_of, own_of_run
from colabkit.runs.several_managers import FollowingManager, LeadingManager
from colabkit.runs.verdict import ResumeVerdict

_MEET_EVERY_S = 0.25
_MEET_STEPS_MAX = 256
# What takes copies apart where nobody but the user sums the gradients.
_IN_A_LOOP = (
    "an optimizer that steps with gradients of no_sync, a learning rate or a write that asks for"
    " the rank. Copies that differ on purpose, as in local SGD, are not kept: sum in each step"
)
# Hashes of the weights, and of what a process may have for itself.
_Compared = tuple[str, dict[Where, str]]


class Agreeing(LeftLoops):
    """The part of a run that keeps its process in step with the others."""

    _world: Processes
    _agreed: AgreedLimits
    _kept: LeadingManager | FollowingManager
    _verdict: ResumeVerdict
    _met_step = _next_meeting_step = 0
    _met_s = 0.0
    _has_compared = _has_heard = False
    # Whether rank 0 most likely saves at the next meeting, to which all bring what is compared.
    _expects_save = False
    # What all have agreed on: that each can save, and that nobody had anything for itself.
    _can_all_save = _are_alike = False
    # The modules whose buffers each step begins with as process 0 has them.
    _shares_buffers: frozenset[str] = frozenset()
    # Whether all have the same gradients wherever one may be saved.
    _shares_gradients = False
    _digest: Callable[[], str] = str

    def _agree(self, options: RunOptions) -> None:
        """Begins to keep in step, once the run is made."""
        self._met_s = time.monotonic()
        self._limits = self._agreed = AgreedLimits(options.max_steps, options.max_time)
        if not self._leads:
            # What is kept of batches is of the parts that rank 0 takes.
            self._state.forget_batches()

    @property
    def _leads(self) -> bool:
        return self._world.rank == 0

    def _begin_session(self) -> None:
        if self.step == 0 or self._state.begins_phase:
            self._gather_own()
        super()._begin_session()

    def _kept_in(self, ckpt_dir: str | Path, options: CheckpointOptions) -> CheckpointManager:
        if self._leads:
            self._kept = LeadingManager(
                self._world,
                ckpt_dir,
                self._adapter,
                options,
                take=self._snapshot,
                where=self._state.place,
                on_remount=self._tell_remounted,
            )
        else:
            self._kept = FollowingManager(ckpt_dir, self._adapter, self._world)
        return self._kept

    def _boundary(self) -> None:
        self._position.step = self._world.step = step = self._position.step + 1
        is_due = step >= self._next_meeting_step or step >= self._limits.last_step
        if is_due and not self.is_mid_update():
            self._tick(time.monotonic())

    def _tick(self, now_s: float, *, counts: bool = False) -> None:
        self._meet(now_s, counts=counts)
        # Values are read at the same step everywhere: what ends one process ends all.
        self._next_look_s = 0.0
        super()._tick(now_s, counts=counts)

    def _meet(self, now_s: float, *, counts: bool) -> None:
        """Tells all processes what any of them knows, and where they meet again."""
        is_late = self._leads and self._agreed.is_time_up()
        wants_save = self._kept.agrees_to_save(self.step, counts=counts)
        stride = self._stride(now_s)
        in_s = now_s - self._met_s
        expects = not wants_save and self._kept.expects_to_save(self.step + stride, in_s=in_s)
        asked = (self._interrupts.pending, is_late, wants_save, stride, expects)
        can_save, places = self._can_save_here(), self._evaluation.holding()
        brings = self._expects_save and can_save and not places
        compared, states = self._to_compare(are_saved=True) if brings else (None, {})
        held = (asked, can_save, places, compared)
        every, all_can, every_places, all_compared = zip(
            *self._world.gather(held, at=f"step {self.step:,}"), strict=True
        )
        pending, is_over, wants_save, stride, expects = map(max, zip(*every, strict=True))
        self._can_all_save = all(all_can)
        self._evaluation.agree_on(every_places)
        # One that came while they met waits for the next meeting.
        self._has_heard = bool(pending)
        self._agreed.time_is_up = bool(is_over)
        is_to_save = bool(wants_save) and self._can_all_save
        self._kept.note_agreed(self.step if is_to_save else -1)
        if is_to_save and None not in all_compared:
            self._compare(states, all_compared)
            self._kept.note_called(self._kept.call_ahead())
        elif is_to_save or not self._has_compared:
            self._require_replicas(saves=is_to_save)
        self._expects_save = bool(expects)
        self._met_step, self._met_s = self.step, now_s
        self._next_meeting_step = self.step + stride

    def _stride(self, now_s: float) -> int:
        """Returns after how many steps rank 0 is to be met again."""
        if not self._leads:
            return 0
        steps, seconds = self.step - self._met_step, now_s - self._met_s
        if self._checkpoints.counts_steps or steps < 1:
            return 1
        # Rounded: steps of 130 ms would meet at each one, and wait there for the slower process.
        wanted = round(steps * _MEET_EVERY_S / max(seconds, 1e-6))
        return max(1, min(wanted, _MEET_STEPS_MAX))

    def _can_save(self) -> bool:
        return self._can_all_save

    def _can_save_here(self) -> bool:
        adapter: Any = self._adapter  # PyTorch's
        adapter.reshard()  # in all, whatever each finds
        return super()._can_save()

    def _lacks_something(self) -> bool:
        lacks = super()._lacks_something()
        return bool(self._world.largest([lacks], at="the end of a pass")[0])

    def _is_interrupted(self) -> bool:
        return self._has_heard

    def _finds_place(self) -> bool:
        # All would have to hear of it at one place; the end of the epoch is one.
        return False

    def _ends(self) -> bool:
        # Those that were interrupted say what it means; the others have no say.
        ends = self._interrupts.pending and super()._ends()
        return bool(self._world.largest([ends], at="the answer to an interrupt")[0])

    def _save_and_wait(self) -> None:
        at = f"the place of step {self.step:,}"
        self._evaluation.agree_on(self._world.gather(self._evaluation.holding(), at=at))
        self._require_replicas()
        super()._save_and_wait()
        # Nobody goes on before rank 0 has written, or has failed to.
        self._world.share(None, at="the end of a save")

    def _save_unraised(self, *, has_failed: bool = False) -> None:
        """Saves what is left.

        After an error the others may be anywhere, and are not waited for: process 0 saves alone,
        and only what all are known to have had.
        """
        if not has_failed:
            with self._unraised():
                if all(self._world.gather(self._can_save_here(), at="a loop that is left")):
                    self._save_and_wait()
        elif self._leads and self._evaluation.is_alike and super()._can_save():
            self._state.own = OwnStates()
            with self._unraised(), self._kept.alone():
                super()._save_and_wait()

    def _save_place(self) -> None:
        if self._leads:
            super()._save_place()

    def _come_to_head(self) -> None:
        super()._come_to_head()
        if self._are_alike and not self._kept.is_taken_by_all:
            self._evaluation.note_alike()
        self._are_alike = False

    def _compare_place(self, others: Sequence[object]) -> None:
        """Notes whether the place just noted is the same in all, so that one can save it.

        Args:
            others: What ``_compared`` gave in each.
        """
        if None not in others and all(each == others[0] for each in others):
            self._evaluation.note_alike()

    def _compared(self) -> object:
        """Returns what tells this process from others; None where none can save alone anyhow."""
        if self._kept.is_taken_by_all:
            return None
        return self._digest(), self._digests_of(self._own_states())

    def compare_replicas(self, digest: Callable[[], str]) -> None:
        """Takes what hashes the weights, to be compared after a first step and before a save."""
        self._digest = digest

    def _own_states(self, *, are_saved: bool = False) -> dict[Where, Any]:
        """Returns what this process may have for itself, by where a checkpoint holds it.

        Args:
            are_saved: Whether a save is next.
        """
        adapter: Any = self._adapter  # PyTorch's
        sections_here = adapter.sections_here(are_saved=are_saved)
        sections, kept = self._evaluation.held_by_all(sections_here)
        states: dict[Where, Any] = adapter.own_states(
            sections,
            shares_buffers=self._shares_buffers,
            shares_gradients=self._shares_gradients,
        )
        return states | own_of_run(kept, self._state.stops)

    def _digests_of(self, states: Mapping[Where, Any]) -> dict[Where, str]:
        adapter: Any = self._adapter  # PyTorch's
        digests: dict[Where, str] = adapter.digests_of(states)
        return digests

    def _gather_own(self) -> None:
        """Takes up, for the save that follows, what each process has for itself."""
        states = self._own_states()
        at = f"the values of step {self.step:,}"
        self._take_own(states, self._world.gather(self._digests_of(states), at=at))

    def _take_own(
        self, states: Mapping[Where, Any], digests: Sequence[Mapping[Where, str]]
    ) -> None:
        """Takes up what differs.

        Args:
            states: What this process has.
            digests: Hashes of what each has.
        """
        paths = dict.fromkeys(path for each in digests for path in each)
        apart = [p for p in paths if any(each.get(p) != digests[0].get(p) for each in digests)]
        self._are_alike, self._state.own = not apart, OwnStates()
        if apart:
            adapter: Any = self._adapter  # PyTorch's
            copies = adapter.copies_of({p: states[p] for p in apart if p in states})
            every = self._world.gather(copies, at=f"what differs at step {self.step:,}")
            own = OwnStates.of_processes(every, having=digests, matters=self._matters)
            self._state.own = own
            self._say_own([name_of(p) for p in apart if p not in self._state.own.states])

    def _matters(self, path: Where) -> bool:  # noqa: ARG002  # that of any process may
        """Whether what each process has at a place decides how training goes on."""
        return True

    def _say_own(self, lost: list[str]) -> None:
        """Has the verdict say that each process has something for itself.

        Args:
            lost: What of it a checkpoint cannot hold.
        """
        own = self._state.own
        reasons: tuple[str, ...] = ()
        notices = (f"provided {own.processes} processes go on",) if own.names else ()
        if lost:
            names = ", ".join(dict.fromkeys(lost))
            own_here = f"each process has {names} of its own, too large for each to be saved"
            reasons = (f"{own_here}: a checkpoint holds process 0's",)
        self._verdict = self._verdict.adding(reasons=reasons, notices=notices)
        said = self.history.verdict
        if self.has_trained and said is not None:
            self.history.verdict = said.adding(reasons=reasons, notices=notices)
            if self.history.verdict != said:
                self._display.say(str(self.history.verdict))

    def _require_replicas(self, *, saves: bool = False) -> None:
        """Raises ReplicasDifferError where a process holds other weights than rank 0.

        Args:
            saves: Whether all have agreed to save here, so that rank 0 says how.
        """
        call = self._kept.call_ahead() if saves else None
        compared, states = self._to_compare(are_saved=saves)
        found = self._world.gather((compared, call), at=f"the weights of step {self.step:,}")
        every, calls = zip(*found, strict=True)
        self._compare(states, every)
        self._kept.note_called(calls[0])

    def _to_compare(self, *, are_saved: bool) -> tuple[_Compared, dict[Where, Any]]:
        """Returns hashes of what this process holds, and what it may have for itself.

        Args:
            are_saved: Whether a save is next.
        """
        states = self._own_states(are_saved=are_saved)
        return (self._digest(), self._digests_of(states)), states

    def _compare(self, states: Mapping[Where, Any], every: Sequence[_Compared]) -> None:
        """Takes up what differs; raises ReplicasDifferError where weights do.

        Args:
            states: What this process may have for itself.
            every: The hashes of each process.
        """
        self._has_compared = True
        digests, own = zip(*every, strict=True)
        if apart := [rank for rank, each in enumerate(digests) if each != digests[0]]:
            message = (
                f"By step {self.step} the weights in process {apart[0]} are no longer those in"
                " process 0."
            )
            where = _IN_A_LOOP if self.is_users_loop else "look for callbacks that ask for the rank"
            hint = f"Something changes them in one process alone: {where}. The newest checkpoint is"
            hint += " from before."
            raise ReplicasDifferError(message, hint=hint)
        self._take_own(states, own)

    def _agreed_best(self, is_best: bool) -> bool:
        return self._world.share(is_best, at="what an epoch came to")

    def _end_epoch(self, *, has_steps: bool = True) -> None:
        try:
            # What is saved from here on is of the epoch's end, whatever its passes have left.
            self._evaluation.agree_on([()])
            self._require_replicas()
        except BaseException:
            self._save_place()  # who has not come may have failed behind its last pass
            raise
        self._state.stop = self._world.share(self._state.stop, at="the end of an epoch")
        super()._end_epoch(has_steps=has_steps)


class AgreedLimits(Limits):
    """Limits whose time is up when rank 0's clock says so, at the meeting where it does."""

    time_is_up = False

    def is_time_up(self) -> bool:
        """Whether this process's own clock says so."""
        return bool(super().reached(-1))

    def reached(self, step: int) -> str:
        """Returns which limit is reached, "" when none is."""
        if step >= self.last_step:
            return super().reached(step)
        return f"max_time is {self._max_time}" if self.time_is_up else ""
