"""What the user is told of a folder that is kept in the background: each thing once."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from colabkit.errors import StorageError

_LATE_S = _STARVING_S = 600.0


class Telling:
    """Remembers what was told.

    Args:
        folder: The kept folder.
        say: Tells the user a sentence.
    """

    def __init__(self, folder: Path, say: Callable[[str], None]) -> None:
        self._folder, self._say = folder, say
        self._objected: dict[str, float] = {}
        self._named: set[str] = set()
        self._left_out: set[str] = set()
        self._is_late = self._is_in_trouble = False

    def ended(self, error: BaseException) -> None:
        """The folder is not kept any more."""
        self._say(f"{self._folder} is not kept any more: {error}")

    def trouble(self, error: OSError) -> None:
        """The volume did not take it; one that may take it the next time is no news."""
        if not self._is_in_trouble and not (isinstance(error, StorageError) and error.may_pass):
            self._say(f"{self._folder} cannot be kept at the moment: {error}")
        self._is_in_trouble = True

    def fine(self) -> None:
        """All went well again."""
        if self._is_in_trouble:
            self._is_in_trouble = False
            self._say(f"{self._folder} is kept again.")

    def waited(self, waited_s: float) -> None:
        """A version is on its way for so long."""
        if waited_s > _LATE_S and not self._is_late:
            self._is_late = True
            self._say(
                f"What was copied from {self._folder} {waited_s / 60:.0f} min ago is not"
                " uploaded yet: look whether your Drive or its trash is full."
            )

    def arrived(self) -> None:
        """A version is uploaded."""
        self._is_late = False

    def objections(self, objections: Mapping[str, str], now_s: float) -> None:
        """Something is new and may not be taken; that is news when it lasts."""
        self._objected = {name: self._objected.get(name, now_s) for name in objections}
        for name, since_s in self._objected.items():
            if now_s - since_s >= _STARVING_S and name not in self._named:
                self._named.add(name)
                minutes = (now_s - since_s) / 60
                self._say(f"{name} is not kept since {minutes:.0f} min: {objections[name]}.")

    def left_out(self, left_out: Mapping[str, str]) -> None:
        """Something in the folder cannot be kept at all."""
        new = [name for name in left_out if name not in self._left_out]
        if not new:
            return
        self._left_out.update(new)
        more = f" and {len(new) - 1:,} more" if len(new) > 1 else ""
        verb = "are" if more else "is"
        reason = left_out[new[0]]
        self._say(f"{new[0] or self._folder}{more} in {self._folder} {verb} not kept: {reason}.")
