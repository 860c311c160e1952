"""What each of several processes says of itself, and what follows from what all have said."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Mapping

APART = "The processes have come apart"
"""Begins what is said where none has failed, and each waits for what none will come to."""


class Doing(enum.Enum):
    """What a process does, as far as the others depend on it."""

    ANYTHING = "anything"
    MEETS = "meets"
    """Waits for the others in one of the run's own meetings."""
    WAITS = "waits"
    """Stands still in a collective of the user's own: in the backward pass of its wrapper."""
    OUTSIDE = "outside"
    """Runs no loop over the run, and may come to one."""
    LEFT = "left"
    """An error has taken it out of its loops over the run."""


@dataclasses.dataclass(frozen=True, slots=True)
class Place:
    """Where a process is.

    Attributes:
        meetings: How many meetings with the others it has come to, those under way included.
        left: The same when an error has last taken it out of its loops, -1 for never.
        doing: What it does there.
        name: Where that is, in words.
    """

    meetings: int
    left: int = -1
    doing: Doing = Doing.ANYTHING
    name: str = ""


@dataclasses.dataclass(frozen=True, slots=True)
class Beat:
    """What a process says of itself.

    Attributes:
        number: How often it has said something.
        place: Where it is.
        host: The machine it runs on.
    """

    number: int
    place: Place
    host: str

    @classmethod
    def read(cls, line: bytes) -> Beat:
        """Returns what ``line()`` wrote."""
        number, meetings, left, doing, host, name = line.decode().split(" ", 5)
        return cls(int(number), Place(int(meetings), int(left), Doing(doing), name), host)

    def line(self) -> str:
        """Returns it as the store takes it."""
        at = self.place
        return f"{self.number} {at.meetings} {at.left} {at.doing.value} {self.host} {at.name}"


def stopped(rank: int, error: BaseException) -> str:
    r"""Returns in one line that an error has stopped a process.

    Example:
        >>> stopped(1, OSError("no space\nleft"))
        'Process 1 has stopped: OSError: no space'
    """
    first = next(iter(str(error).strip().splitlines()), "")
    return f"Process {rank} has stopped: {type(error).__name__}{first and ': '}{first}"


def late_ranks(
    own: Beat, before: Mapping[int, Beat], now: Mapping[int, Beat], *, expected: range
) -> list[int]:
    """Returns the ranks of the processes that are waited for.

    Those behind are; where none is, those that have said nothing since a while ago.

    Args:
        own: What the process that waits says.
        before: What the others had said by then.
        now: What they have said.
        expected: All ranks but those that are known to have come.

    Example:
        >>> here, behind = Place(40), Place(39)
        >>> then = {0: Beat(8, here, "a"), 1: Beat(8, behind, "a"), 2: Beat(8, here, "b")}
        >>> late_ranks(then[0], {}, then, expected=range(3))
        [1]
        >>> still = {**then, 0: Beat(9, here, "a"), 1: Beat(9, here, "a")}
        >>> late_ranks(still[0], then, still, expected=range(3))
        [2]
    """
    here = own.place.meetings
    behind = [rank for rank in expected if rank not in now or now[rank].place.meetings < here]
    return behind or [rank for rank in expected if before.get(rank) == now[rank]]


def apart(before: Mapping[int, Beat], now: Mapping[int, Beat], *, size: int) -> str:
    """Returns why the processes will never meet again, "" where they may.

    They will not where each stands still, and not all in the same: one that computes may come.

    Args:
        before: What they had said a while ago.
        now: What they have said since.
        size: How many there are.

    Example:
        >>> met = Place(4, doing=Doing.MEETS, name="a")
        >>> waits = Place(3, doing=Doing.WAITS, name="b")
        >>> then = {0: Beat(8, waits, "h"), 1: Beat(8, met, "h")}
        >>> now = {0: Beat(9, waits, "h"), 1: Beat(9, met, "h")}
        >>> apart(then, now, size=2)
        'The processes have come apart. Process 1 has come to a, and process 0 waits for it in b'
        >>> apart(then, {**now, 0: Beat(9, Place(3), "h")}, size=2)
        ''
        >>> left = Beat(8, Place(3, left=3, doing=Doing.LEFT, name="b"), "h")
        >>> apart({**then, 1: left}, {**now, 1: left}, size=2)
        'Process 1 has left its loop in b by an error, which its own output shows'
    """
    if len(now) < size or not all(_stands(before.get(rank), each) for rank, each in now.items()):
        return ""
    first = {each.place.doing: rank for rank, each in sorted(now.items(), reverse=True)}
    at = {doing: f"Process {rank} {{}} {now[rank].place.name}" for doing, rank in first.items()}
    if Doing.LEFT in first:
        # Where all raise the same and catch it, those that are through sooner wait a while.
        is_alike = len({each.place.left for each in now.values()}) == 1
        left = at[Doing.LEFT].format("has left its loop in")
        is_missed = len(first) > 1 and not is_alike
        return f"{left} by an error, which its own output shows" if is_missed else ""
    if len(first) == 1:
        return ""
    met = at[Doing.MEETS].format("has come to")
    return f"{APART}. {met}, and p{at[Doing.WAITS].format('waits for it in')[1:]}"


def _stands(before: Beat | None, now: Beat) -> bool:
    """Whether a process has stood still since it said something before, and lives."""
    if now.place.doing is Doing.LEFT:
        return True
    stood = before is not None and before.place == now.place and before.number < now.number
    return stood and now.place.doing is not Doing.ANYTHING
