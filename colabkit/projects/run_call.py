"""run_script(): a script of a project on Drive, run on this machine's disk."""

from __future__ import annotations

import dataclasses
import os
import signal
import sys
import threading
import time
from pathlib import Path

from filelock import FileLock, Timeout

from colabkit.errors import ArgumentError, ScriptError, StorageError
from colabkit.notebook import bytes_words, duration_words, say
from colabkit.projects.finding_scripts import Script, find_script
from colabkit.projects.masking import masked, secrets_of
from colabkit.projects.mirror import Brought, Mirror, TakenBack
from colabkit.projects.processes import ShownProcess
from colabkit.storage import Mended, MountState, mount_in_use, mount_of

_MEND_EVERY_S = 5.0
_NAMES_SHOWN = 3


@dataclasses.dataclass(frozen=True, slots=True)
class ScriptRun:
    """How a script ended well.

    Attributes:
        path: The script.
        seconds: How long it ran.
        saved: The files that it made or changed and that are in the project's own place now.
    """

    path: Path
    seconds: float
    saved: tuple[str, ...] = ()


def run_script(
    path: str | Path,
    *arguments: object,
    project: str | Path | None = None,
    save_every_s: float = 60.0,
) -> ScriptRun:
    """Runs a Python script with the packages of this notebook, and shows what it prints.

    A project on Drive is copied to this machine's disk first, as far as it changed, and the
    script works there: relative paths, modules beside it and sibling folders are found. Files
    of more than 50 MB and folders with much in them are read where they lie. What the script
    writes is copied back while it runs and at its end, also after an interrupt or a failure.

    Args:
        path: The script, "MyDrive/project/train.py" for example.
        *arguments: What the script gets on its command line.
        project: The folder that it works in; its own by default.
        save_every_s: How often new files are copied back while it runs, in seconds.

    Returns:
        Which script ran, for how long, and what it left behind.

    Raises:
        ArgumentError: An argument cannot be used, or another script of the project is running.
        ScriptNotFoundError: There is no such script.
        ScriptError: It ended badly; ``returncode`` says how.
        StorageError: It ended well, but what it wrote could not be copied back.
        DiskFullError: This machine's disk has no room for the project.

    Example:
        >>> import tempfile
        >>> script = Path(tempfile.mkdtemp(), "hello.py")
        >>> _ = script.write_text("import sys; open('out.txt', 'w').write(sys.argv[1])")
        >>> run_script(script, "hi").path.name  # doctest: +ELLIPSIS
        hello.py ended after ... s.
        'hello.py'
    """
    if not save_every_s > 0:
        raise ArgumentError.of("save_every_s", save_every_s, "Pass seconds above 0.")
    script = find_script(path, project)
    if listed := [each for each in arguments if isinstance(each, list | tuple)]:
        message = f"An argument of the script is a {type(listed[0]).__name__}: {listed[0]!r}."
        hint = 'Pass its words one by one: run_script("train.py", "--epochs", 3).'
        raise ArgumentError(message, argument="arguments", hint=hint)
    words = [str(argument) for argument in arguments]
    if script.home is None:
        return _Running(script, script.project, words).run()
    mirror = Mirror(script)
    mirror.root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(mirror.root / "lock", timeout=0):
            say(_brought_words(script, mirror.bring()))
            return _Running(script, mirror.project, words, mirror, save_every_s).run()
    except Timeout as error:
        message = f"Another script of {script.project} is running on this machine."
        hint = "Wait for its end, or interrupt its cell."
        raise ArgumentError(message, argument="path", hint=hint) from error


class _Running:
    def __init__(
        self,
        script: Script,
        project: Path,
        arguments: list[str],
        mirror: Mirror | None = None,
        save_every_s: float = 60.0,
    ) -> None:
        self._script = script
        self._project = project
        self._mirror = mirror
        self._save_every_s = save_every_s
        self._secrets = secrets_of(os.environ)
        self._stop = threading.Event()
        self._saved: dict[str, str] = {}
        self._is_refused = False
        self._next_mend_s = 0.0
        here = project / script.path.relative_to(script.project)
        self._process = ShownProcess(
            [sys.executable, "-u", str(here), *arguments],
            folder=project,
            environ=_environ(project),
            secrets=self._secrets,
            tick=self._mend,
        )

    def run(self) -> ScriptRun:
        began_s = time.monotonic()
        saver = threading.Thread(target=self._save_now_and_then, name="colabkit-save-output")
        saver.start()
        returncode: int | None = None
        try:
            returncode = self._process.wait()
        finally:
            self._stop.set()
            unsaved = self._take_last(saver)
            took_s = time.monotonic() - began_s
            self._tell(returncode, took_s, unsaved)
        if returncode:
            raise self._ended_badly(returncode, took_s, unsaved)
        if unsaved.unsaved:
            raise self._not_saved(unsaved)
        return ScriptRun(self._script.path, took_s, tuple(self._saved))

    def _save_now_and_then(self) -> None:
        if self._mirror is None:
            return
        while not self._stop.wait(self._save_every_s):
            done = self._mirror.take_back(only_settled=True)
            self._note(done)
            self._is_refused = bool(done.unsaved)

    def _mend(self) -> None:
        """Mounts Drive again where it is lost: only this thread may.

        The script may write there by itself, and can neither mount it nor tell of it.
        """
        if time.monotonic() < self._next_mend_s:
            return
        mount = mount_in_use()
        if mount is not None and (self._is_refused or mount.look() is MountState.LOST):
            mending = mount.mend()
            if mending.outcome is Mended.REMOUNTED:
                say("Drive was lost and is mounted again.")
            elif mending.outcome is Mended.REFUSED:
                say(f"Drive could not be mounted again: {mending.error}")
        self._next_mend_s = time.monotonic() + _MEND_EVERY_S

    def _take_last(self, saver: threading.Thread) -> TakenBack:
        try:
            saver.join()
            return self._take_back()
        except KeyboardInterrupt:
            if self._mirror is not None:
                say(
                    f"Stopped before all was saved in {self._script.home}: it is whole in"
                    f" {self._mirror.project}, and running the cell again saves it."
                )
            raise

    def _take_back(self) -> TakenBack:
        if self._mirror is None:
            return TakenBack()
        done = self._mirror.take_back()
        self._note(done)
        mount = mount_of(self._script.project) if done.unsaved else None
        if mount is not None and mount.mend(now=True).outcome in {Mended.FINE, Mended.REMOUNTED}:
            done = self._mirror.take_back()
            self._note(done)
        return done

    def _note(self, done: TakenBack) -> None:
        self._saved |= {name: done.beside.get(name, name) for name in done.saved}

    def _tell(self, returncode: int | None, took_s: float, last: TakenBack) -> None:
        name = self._script.path.name
        how = "was interrupted" if returncode is None else "ended"
        sentence = f"{name} {how} after {duration_words(took_s)}"
        if self._saved:
            sentence += f"; {_named(list(self._saved.values()))} saved in {self._script.home}"
        say(f"{sentence}.")
        for made, beside in sorted(self._saved.items()):
            if made != beside:
                say(f"{made} was changed there meanwhile: the script's is {beside}.")
        if last.unsaved and returncode is None:
            say(str(self._not_saved(last)))

    def _not_saved(self, last: TakenBack) -> StorageError:
        assert self._mirror is not None, "without a mirror nothing is to be saved"  # noqa: S101
        first = next(iter(last.unsaved.values()))
        message = f"Not saved in {self._script.home}: {_named(list(last.unsaved))}. {first.message}"
        hint = f"They are whole in {self._mirror.project}: run the cell again once that is mended."
        return StorageError(message, path=self._script.project, operation="save", hint=hint)

    def _ended_badly(self, returncode: int, took_s: float, last: TakenBack) -> ScriptError:
        name = self._script.path.name
        if returncode < 0:
            how = f"was ended by {_signal_name(-returncode)} after {duration_words(took_s)}"
            hint = "Most often the machine's memory was full." if returncode == -9 else ""
        else:
            how = f"ended with status {returncode} after {duration_words(took_s)}"
            hint = "What it printed above says where."
        words = masked(self._process.last_words, self._secrets)
        message = f"{name} {how}: {words}" if words and returncode > 0 else f"{name} {how}."
        if last.unsaved:
            hint = f"{hint} {self._not_saved(last)}".strip()
        return ScriptError(message, path=self._script.path, returncode=returncode, hint=hint)


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


def _named(names: list[str]) -> str:
    count = "1 file" if len(names) == 1 else f"{len(names):,} files"
    shown = ", ".join(names[:_NAMES_SHOWN])
    return f"{count} ({shown}{', …' if len(names) > _NAMES_SHOWN else ''})"


def _signal_name(number: int) -> str:
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
