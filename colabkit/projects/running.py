"""A program that runs and is told of: how it ended, and what it left behind."""

from __future__ import annotations

import dataclasses
import os
import signal
import time
from collections.abc import Iterable
from pathlib import Path

from colabkit.errors import ScriptError, StorageError
from colabkit.keeping import Kept, remount_for_kept
from colabkit.notebook import duration_words, files_words, say
from colabkit.projects.masking import masked, secrets_of
from colabkit.projects.processes import ShownProcess
from colabkit.projects.programs import Program
from colabkit.storage import MountState, RemountOutcome, locate, mount_in_use

_MEND_EVERY_S = 5.0
_NAMES_SHOWN = 3


@dataclasses.dataclass(frozen=True, slots=True)
class ScriptRun:
    """How a program ended well.

    Attributes:
        path: The script, or the program.
        seconds: How long it ran.
        saved: The files that it made or changed and that are kept now.
    """

    path: Path
    seconds: float
    saved: tuple[str, ...] = ()


class Running:
    """A program, from its start.

    Args:
        program: The program.
        project: The folder that it works in.
        arguments: The words that it is given.
        kept: That folder where it is kept.
    """

    def __init__(
        self, program: Program, project: Path, arguments: tuple[object, ...], kept: Kept | None
    ) -> None:
        self._name, self._path = program.name, program.script.path
        self._kept = kept
        self._before = dict(kept.hashes) if kept is not None else {}
        self._secrets = secrets_of(os.environ)
        self._next_mend_s = 0.0
        self._words = program.command_in(project, arguments)
        self._process = ShownProcess(
            self._words,
            folder=project,
            environ=_environ(project),
            secrets=self._secrets,
            tick=self._remount,
        )

    def run(self) -> ScriptRun:
        """Shows what it writes until it ends, and waits until its output is kept.

        Raises:
            ScriptError: It ended badly.
            StorageError: It ended well, but what it wrote could not be kept.
        """
        began_s = time.monotonic()
        returncode: int | None = None
        unsaved: Exception | None = None
        try:
            returncode = self._process.wait()
        finally:
            unsaved = self._flush()
            took_s = time.monotonic() - began_s
            saved = self._saved()
            self._tell(returncode, took_s, saved, unsaved)
        if returncode:
            raise self._ended_badly(returncode, took_s, unsaved)
        if unsaved is not None:
            raise unsaved
        return ScriptRun(self._path, took_s, saved)

    def _remount(self) -> None:
        """Mounts Drive again where it is lost: only this thread may.

        The script may write there by itself, and can neither mount it nor tell of it.
        """
        if time.monotonic() < self._next_mend_s:
            return
        remount_for_kept()
        mount = mount_in_use()
        if mount is not None and mount.probe() is MountState.LOST:
            result = mount.remount()
            if result.outcome is RemountOutcome.REMOUNTED:
                say("Drive was lost and is mounted again.")
            elif result.outcome is RemountOutcome.REFUSED:
                say(f"Drive could not be mounted again: {result.error}")
        self._next_mend_s = time.monotonic() + _MEND_EVERY_S

    def _flush(self) -> Exception | None:
        if self._kept is None:
            return None
        try:
            self._kept.flush()
        except KeyboardInterrupt:
            say(
                f"Stopped before all was kept: it is whole in {self._kept.path}, and running the"
                " cell again keeps it."
            )
            raise
        except (StorageError, RuntimeError) as error:
            return error
        return None

    def _saved(self) -> tuple[str, ...]:
        if self._kept is None:
            return ()
        now = self._kept.hashes
        return tuple(sorted(path for path in now if now[path] != self._before.get(path)))

    def _tell(
        self,
        returncode: int | None,
        took_s: float,
        saved: tuple[str, ...],
        unsaved: Exception | None,
    ) -> None:
        how = "was interrupted" if returncode is None else "ended"
        sentence = f"{self._name} {how} after {duration_words(took_s)}"
        if saved and self._kept is not None:
            sentence += f"; {_named(saved)} kept in {self._kept.location}"
        say(f"{sentence}.")
        if unsaved is not None and returncode is None:
            say(str(unsaved))

    def _ended_badly(
        self, returncode: int, took_s: float, unsaved: Exception | None
    ) -> ScriptError:
        if returncode < 0:
            how = f"was ended by {_signal_name(-returncode)} after {duration_words(took_s)}"
            hint = "Most often the machine's memory was full." if returncode == -9 else ""
        else:
            how = f"ended with status {returncode} after {duration_words(took_s)}"
            hint = "What it printed above says where."
            hint += _told_as_paths(self._words)
        words = masked(self._process.last_words, self._secrets)
        said = f": {words}" if words and returncode > 0 else "."
        message = f"{self._name} {how}{said}"
        if unsaved is not None:
            hint = f"{hint} {unsaved}".strip()
        return ScriptError(message, path=self._path, returncode=returncode, hint=hint)


def _environ(project: Path) -> dict[str, str]:
    environ = dict(os.environ)
    # A script in a subfolder imports the project's modules as from its root.
    others = environ.get("PYTHONPATH")
    environ["PYTHONPATH"] = os.pathsep.join(filter(None, (str(project), others)))
    # Into a pipe Python writes by the block, and a training would be silent for minutes.
    environ.setdefault("PYTHONUNBUFFERED", "1")
    return environ


def _told_as_paths(words: Iterable[str]) -> str:
    """Returns how to write names of Drive that only colabkit knows, "" where there are none."""
    named = [each for each in words if each.startswith("MyDrive/") and str(locate(each)) != each]
    return f" A program knows no {named[0]}: pass {locate(named[0])}." if named else ""


def _named(names: tuple[str, ...]) -> str:
    count = files_words(len(names))
    shown = ", ".join(names[:_NAMES_SHOWN])
    return f"{count} ({shown}{', …' if len(names) > _NAMES_SHOWN else ''})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
