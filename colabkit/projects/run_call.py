"""run() and run_script(): a program of a project on Drive, run on this machine's disk."""

from __future__ import annotations

import contextlib
import dataclasses
import os
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from colabkit.errors import ArgumentError, ScriptError, StorageError
from colabkit.keeping import Kept, keep_outputs, mend_kept
from colabkit.notebook import bytes_words, duration_words, say
from colabkit.projects.copying import Brought, ProjectCopy
from colabkit.projects.finding_scripts import Script, find_script
from colabkit.projects.masking import masked, secrets_of
from colabkit.projects.processes import ShownProcess
from colabkit.projects.programs import Program, find_program
from colabkit.projects.trees import KEPT
from colabkit.storage import Mended, MountState, mount_in_use, warning_about

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


def run_script(
    path: str | Path,
    *arguments: object,
    project: str | Path | None = None,
    keep: str | Path | None = None,
    save_every_s: float | None = None,
) -> ScriptRun:
    """Runs a Python script with the packages of this notebook, and shows what it prints.

    A project on Drive is copied to this machine's disk first, as far as it changed, and the
    script works there: relative paths, modules beside it and sibling folders are found. Files
    of more than 50 MB and folders with much in them are read where they lie. What the script
    writes is kept in the project's folder ``kept`` while it runs, as ``colabkit.keep`` does,
    and is there again on the next machine.

    Args:
        path: The script, "MyDrive/project/train.py" for example.
        *arguments: What the script gets on its command line.
        project: The folder that it works in; its own by default.
        keep: Where what it writes is kept; for a project on Drive its folder ``kept``.
        save_every_s: How often there may be a version, in seconds; by default as often as
            Drive takes them.

    Returns:
        Which script ran, for how long, and what it left behind.

    Raises:
        ArgumentError: An argument cannot be used, or another script of the project is running.
        ScriptNotFoundError: There is no such script.
        ScriptError: It ended badly; ``returncode`` says how.
        StorageError: It ended well, but what it wrote could not be kept.
        DiskFullError: This machine's disk has no room for the project.

    Example:
        >>> import tempfile
        >>> script = Path(tempfile.mkdtemp(), "hello.py")
        >>> _ = script.write_text("import sys; open('out.txt', 'w').write(sys.argv[1])")
        >>> run_script(script, "hi").path.name  # doctest: +ELLIPSIS
        hello.py ended after ... s.
        'hello.py'
    """
    script = find_script(path, project)
    return _run(Program(script, (sys.executable, "-u", script.path)), arguments, keep, save_every_s)


def run(
    *command: object,
    project: str | Path | None = None,
    keep: str | Path | None = None,
    save_every_s: float | None = None,
) -> ScriptRun:
    """Runs any command, and keeps what it writes as ``run_script`` does.

    Args:
        *command: The program and its words: ``"torchrun", "train.py", "--epochs", 3``; or
            ``"accelerate", "launch", "train.py"``; or ``"-m", "package.train"``; or a script.
        project: The folder that it works in; that of the first script among the words, or the
            working folder, by default.
        keep: Where what it writes is kept; for a project on Drive its folder ``kept``.
        save_every_s: How often there may be a version, in seconds; by default as often as
            Drive takes them.

    Returns:
        Which program ran, for how long, and what it left behind.

    Raises:
        ArgumentError: An argument cannot be used, or another program of the project is running.
        ScriptNotFoundError: There is no such script or program.
        ScriptError: It ended badly; ``returncode`` says how.
        StorageError: It ended well, but what it wrote could not be kept.
        DiskFullError: This machine's disk has no room for the project.

    Example:
        >>> import tempfile
        >>> folder = tempfile.mkdtemp()
        >>> run("-m", "this", project=folder).path.name  # doctest: +SKIP
        'this'
    """
    program, rest = find_program(command, project)
    return _run(program, rest, keep, save_every_s)


def _run(
    program: Program, arguments: tuple[object, ...], keep: str | Path | None, every_s: float | None
) -> ScriptRun:
    if every_s is not None and not every_s > 0:
        raise ArgumentError.of("save_every_s", every_s, "Pass seconds above 0.")
    if listed := [each for each in arguments if isinstance(each, list | tuple)]:
        message = f"An argument of the script is a {type(listed[0]).__name__}: {listed[0]!r}."
        hint = 'Pass its words one by one: run_script("train.py", "--epochs", 3).'
        raise ArgumentError(message, argument="arguments", hint=hint)
    script = program.script
    every = "auto" if every_s is None else every_s
    if script.home is None:
        with _kept_in_place(script, keep, every) as kept:
            return _Running(program, script.project, arguments, kept).run()
    copy = ProjectCopy(script)
    copy.root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(copy.root / "lock", timeout=0):
            say(_brought_words(script, copy.bring()))
            place = script.home / KEPT if keep is None else keep
            with _kept(copy, place, every) as kept:
                return _Running(program, copy.project, arguments, kept).run()
    except Timeout as error:
        message = f"Another script of {script.project} is running on this machine."
        hint = "Wait for its end, or interrupt its cell."
        raise ArgumentError(message, argument="path", hint=hint) from error


@contextlib.contextmanager
def _kept(copy: ProjectCopy, place: str | Path, every: str | float) -> Iterator[Kept]:
    inputs = {name: (stamp.nbytes, stamp.mtime_ns) for name, stamp in copy.inputs().items()}
    kept = keep_outputs(copy.project.parent, place, inputs=inputs, every=every)
    try:
        yield kept
    finally:
        kept.end()


@contextlib.contextmanager
def _kept_in_place(
    script: Script, place: str | Path | None, every: str | float
) -> Iterator[Kept | None]:
    """Keeps what a script on this machine's own disk writes, where it is told to."""
    if place is None:
        if warning_about(script.project):
            say(
                f"What it writes into {script.project} goes away with this machine:"
                ' keep="MyDrive/exp" keeps it. What it writes elsewhere is its own affair.'
            )
        yield None
        return
    kept = keep_outputs(script.project, place, inputs=None, every=every)
    say(f"Kept in {place}: what it writes into {script.project}, and nothing it writes elsewhere.")
    try:
        yield kept
    finally:
        kept.end()


class _Running:
    def __init__(
        self, program: Program, project: Path, arguments: tuple[object, ...], kept: Kept | None
    ) -> None:
        self._name, self._path = program.name, program.script.path
        self._kept = kept
        self._before = dict(kept.hashes) if kept is not None else {}
        self._secrets = secrets_of(os.environ)
        self._next_mend_s = 0.0
        self._process = ShownProcess(
            program.command_in(project, arguments),
            folder=project,
            environ=_environ(project),
            secrets=self._secrets,
            tick=self._mend,
        )

    def run(self) -> ScriptRun:
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

    def _mend(self) -> None:
        """Mounts Drive again where it is lost: only this thread may.

        The script may write there by itself, and can neither mount it nor tell of it.
        """
        if time.monotonic() < self._next_mend_s:
            return
        mend_kept()
        mount = mount_in_use()
        if mount is not None and mount.look() is MountState.LOST:
            mending = mount.mend()
            if mending.outcome is Mended.REMOUNTED:
                say("Drive was lost and is mounted again.")
            elif mending.outcome is Mended.REFUSED:
                say(f"Drive could not be mounted again: {mending.error}")
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
    return environ


def _brought_words(script: Script, brought: Brought) -> str:
    name = script.project.name
    if brought.copied:
        sentence = (
            f"Copied {brought.copied:,} of the {brought.files:,} files of {name} to this machine"
            f" ({bytes_words(brought.nbytes)})."
        )
    else:
        sentence = f"The {brought.files:,} files of {name} are on this machine already."
    if brought.links:
        sentence += f" Read where they lie: {', '.join(brought.links[:_NAMES_SHOWN])}"
        more = len(brought.links) - _NAMES_SHOWN
        sentence += f" and {more} more." if more > 0 else "."
    return sentence


def _named(names: tuple[str, ...]) -> str:
    count = "1 file" if len(names) == 1 else f"{len(names):,} files"
    shown = ", ".join(names[:_NAMES_SHOWN])
    return f"{count} ({shown}{', …' if len(names) > _NAMES_SHOWN else ''})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
