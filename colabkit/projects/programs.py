"""What run() is asked to run: a program by its name, a module, or a script."""

from __future__ import annotations

import dataclasses
import os
import shutil
import sys
from pathlib import Path

from colabkit.errors import ArgumentError, ScriptNotFoundError
from colabkit.projects.finding_scripts import Script, find_folder, find_script


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """A command, and the project that it works in.

    Attributes:
        script: The script in it, or the program where there is none, and the project.
        words: The words to begin with; a path below the project is one of the project's copy.
    """

    script: Script
    words: tuple[str | Path, ...]

    @property
    def name(self) -> str:
        """What it is called in a sentence."""
        return self.script.path.name

    def command_in(self, project: Path, arguments: tuple[object, ...]) -> list[str]:
        """Returns the command for a project that lies elsewhere, as a copy of it does."""
        own = self.script.project
        words: list[str] = []
        for word in (*self.words, *arguments):
            if isinstance(word, Path) and word.is_relative_to(own):
                words.append(str(project / word.relative_to(own)))
            else:
                words.append(str(word))
        return words


def find_program(
    command: tuple[object, ...], project: str | Path | None
) -> tuple[Program, tuple[object, ...]]:
    """Returns the program that a command names, and the words it is given.

    Raises:
        ArgumentError: There is no word.
        ScriptNotFoundError: No program of that name is installed.
    """
    if not command:
        message = "There is nothing to run."
        hint = 'Pass a command: run("torchrun", "train.py").'
        raise ArgumentError(message, argument="command", hint=hint)
    first, *rest = command
    if str(first).endswith(".py"):
        return find_only_script(str(first), project), tuple(rest)
    if str(first) == "-m":
        words: tuple[str | Path, ...] = (sys.executable, "-u", "-m")
        name = str(rest[0]) if rest else "-m"
    else:
        words, name = (_installed(str(first)),), str(first)
    place = next((n for n, word in enumerate(rest) if str(word).endswith(".py")), None)
    if place is None:
        folder, home = find_folder(project if project is not None else Path.cwd())
        return Program(Script(folder / name, folder, home), words), tuple(rest)
    script = find_script(str(rest[place]), project)
    before = tuple(str(word) for word in rest[:place])
    return Program(script, (*words, *before, script.path)), tuple(rest[place + 1 :])


def find_only_script(path: str | Path, project: str | Path | None) -> Program:
    """Returns the program that runs one script.

    Raises:
        ScriptNotFoundError: There is no such script; a command is pointed to ``run``.
    """
    try:
        script = find_script(path, project)
    except ScriptNotFoundError as error:
        words = str(path).split()
        if not words or (len(words) == 1 and _which(words[0]) is None):
            raise
        if words[0] == "-m" or _which(words[0]) is not None:
            call = "run"
        elif words[0].endswith(".py"):
            call = "run_script"
        else:
            raise
        shown = ", ".join(
            f'"{word}"' for word in (*words, *(["train.py"] if len(words) == 1 else []))
        )
        message = f"{path} is a command, and no script."
        hint = f"Pass its words one by one: colabkit.{call}({shown})."
        raise ScriptNotFoundError(message, path=error.path, near_names=(), hint=hint) from None
    return Program(script, (sys.executable, "-u", script.path))


def _which(name: str) -> str | None:
    # The programs of this notebook's own packages come first.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return shutil.which(name, path=path)


def _installed(name: str) -> str:
    found = _which(name)
    if found is None and len(words := name.split()) > 1:
        message = f"{name!r} is several words."
        shown = ", ".join(f'"{word}"' for word in words)
        hint = f"Pass them one by one: colabkit.run({shown})."
        raise ScriptNotFoundError(message, path=name, near_names=(), hint=hint)
    if found is None:
        message = f"There is no program {name!r} on this machine."
        hint = "Install the package that brings it, or pass a script: run('train.py')."
        raise ScriptNotFoundError(message, path=name, near_names=(), hint=hint)
    return found
