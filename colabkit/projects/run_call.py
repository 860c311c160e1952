"""run() and run_script(): a program of a project on Drive, run on this machine's disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

from filelock import FileLock, Timeout

from colabkit.errors import ArgumentError
from colabkit.keeping import Kept, keep_outputs
from colabkit.notebook import bytes_words, say
from colabkit.other_names import answering
from colabkit.projects.copying import Brought, ProjectCopy
from colabkit.projects.finding_scripts import Script
from colabkit.projects.other_names import OF_SCRIPT
from colabkit.projects.programs import Program, find_only_script, find_program
from colabkit.projects.running import Running, ScriptRun
from colabkit.projects.trees import KEPT
from colabkit.storage import warning_about

_NAMES_SHOWN = 3


@answering(OF_SCRIPT)
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
    return _run(find_only_script(path, project), arguments, keep, save_every_s)


@answering(OF_SCRIPT)
def run(
    *command: object,
    project: str | Path | None = None,
    keep: str | Path | None = None,
    save_every_s: float | None = None,
) -> ScriptRun:
    """Runs any command, and keeps what it writes as ``run_script`` does.

    Args:
        *command: The program and its words: ``"torchrun", "train.py", "--epochs", 3``; or
            ``"accelerate", "launch", "train.py"``; or ``"-m", "package.train"``; or a script; or
            all of it in one line, as in a terminal. There is no shell: a word is passed as it is.
        project: The folder that it works in; that of the first script among the words, or the
            working folder, by default.
        keep: Where what it writes is kept; for a project on Drive its folder ``kept``.
        save_every_s: How often there may be a version, in seconds; by default as often as
            Drive takes them.

    Returns:
        Which program ran, for how long, and what it left behind.

    Raises:
        ArgumentError: An argument cannot be used, is for a shell, or another program of the
            project is running.
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
            return Running(program, script.project, arguments, kept).run()
    copy = ProjectCopy(script)
    copy.root.mkdir(parents=True, exist_ok=True)
    try:
        with FileLock(copy.root / "lock", timeout=0):
            say(_brought_words(script, copy.bring()))
            place = script.home / KEPT if keep is None else keep
            with _kept(copy, place, every) as kept:
                return Running(program, copy.project, arguments, kept).run()
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
