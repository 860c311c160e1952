"""How exactly a run will go on after an interruption, said before its first step."""

from __future__ import annotations

import dataclasses
import enum
from collections.abc import Iterable
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from colabkit.frameworks.base import Feed


_UNSEEN = "what else your loop changes is not seen: pass it to Run, or keep it with run.state()"


class Grade(enum.Enum):
    """How closely a resumed run follows the uninterrupted one."""

    EXACT = "exact"
    APPROXIMATE = "approximate"


@dataclasses.dataclass(frozen=True, slots=True)
class ResumeVerdict:
    """The grade of a run's resumes, with the reasons.

    Attributes:
        reasons: Why a resume cannot be bitwise exact; empty when it is.
        notices: What is exact only under a condition, or costs time at a resume.
        vouched: For what alone the grade speaks, where the loop is the user's own and may change
            more than the run can see; empty where all is the run's.

    Example:
        >>> ResumeVerdict().grade
        <Grade.EXACT: 'exact'>
    """

    reasons: tuple[str, ...] = ()
    notices: tuple[str, ...] = ()
    vouched: tuple[str, ...] = ()

    @property
    def grade(self) -> Grade:
        """EXACT when there is no reason against it."""
        return Grade.APPROXIMATE if self.reasons else Grade.EXACT

    def adding(
        self,
        *,
        reasons: tuple[str, ...] = (),
        notices: tuple[str, ...] = (),
        vouched: tuple[str, ...] = (),
    ) -> ResumeVerdict:
        """Returns this verdict with more of each, nothing twice."""
        return ResumeVerdict(
            reasons=tuple(dict.fromkeys(self.reasons + reasons)),
            notices=tuple(dict.fromkeys(self.notices + notices)),
            vouched=tuple(dict.fromkeys(self.vouched + vouched)),
        )

    def adding_feeds(self, feeds: Iterable[Feed]) -> ResumeVerdict:
        """Returns this verdict with what the sources of data have to say."""
        verdict = self
        for feed in feeds:
            verdict = verdict.adding(reasons=feed.reasons(), notices=feed.notices())
        return verdict

    def __str__(self) -> str:
        if self.reasons:
            return f"Resume is approximate: {'; '.join(self.reasons)}."
        notices = f" ({'; '.join(self.notices)})" if self.notices else ""
        if not self.vouched:
            return f"Resume is exact{notices}."
        *others, last = self.vouched
        known = f"{', '.join(others)} and {last}" if others else last
        return f"Resume is exact for {known}{notices}; {_UNSEEN}."


def environment_changes(then: dict[str, object], now: dict[str, object]) -> tuple[str, ...]:
    """Returns what of the machine and the libraries changed since a checkpoint."""
    return tuple(
        f"{name.replace('_', ' ')} was {then[name]}, is {now.get(name)}"
        for name in then
        if then[name] != now.get(name)
    )
