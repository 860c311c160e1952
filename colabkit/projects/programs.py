"""What run() is asked to run: a program by its name, a module, or a script."""

from __future__ import annotations

import dataclasses
import os
import re
import shlex
import shutil
import sys
from pathlib import Path

from colabkit.errors import ArgumentError, ScriptNotFoundError
from colabkit.projects.finding_scripts import Script, find_folder, find_script
from colabkit.storage import locate_input

# What a shell makes of a line, and nothing else does.
_SHELL_SIGNS = re.compile(r"[|&;<>`*?$]")
_ASSIGNMENT = re.compile(r"[A-Za-z_]\w*=.*")
_SHELLS_SCRIPTS = (".sh", ".bash")
_SCRIPTS = (".py", *_SHELLS_SCRIPTS)
_MODULE_WORDS = frozenset({"-m", "--module"})
_BROUGHT_BY = {"yolo": "ultralytics", "torchrun": "torch"}


@dataclasses.dataclass(frozen=True, slots=True)
class Program:
    """A command, and the project that it works in.

    Attributes:
        script: The script in it, or the program where there is none, and the project.
        words: The words to begin with; a path below the project is one of the project's copy.
        name: What it is called in a sentence.
    """

    script: Script
    words: tuple[object, ...]
    name: str

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
        ArgumentError: There is no word, or one that only a shell understands.
        ScriptNotFoundError: No program of that name is installed.
    """
    words = _words_of(command)
    is_set = [_ASSIGNMENT.fullmatch(str(word)) is not None for word in words]
    if is_set[0]:
        # By env, but what it runs is found here: no "python" may be on the PATH.
        count = [*is_set, False].index(False)
        found, given = find_program(tuple(words[count:]), project)
        assigning = (_installed("env"), *words[:count])
        return dataclasses.replace(found, words=(*assigning, *found.words)), given
    first, *rest = words
    if str(first).endswith((".py", ".ipynb")):
        return find_only_script(str(first), project), tuple(rest)
    if str(first).endswith(_SHELLS_SCRIPTS) and _which(str(first)) is None:
        first, rest = "bash", [first, *rest]
    elif str(first) == "-m":
        first, rest = sys.executable, [first, *rest]
    program = _installed(str(first))
    place = _place_of_script(rest)
    if place is None:
        folder, home = find_folder(project if project is not None else Path.cwd())
        module = _module_in(rest)
        path = _file_of(module, folder) or Path(program)
        return Program(Script(path, folder, home), (program,), module or path.name), tuple(rest)
    script = find_script(str(rest[place]), project)
    begin = (program, *rest[:place], script.path)
    return Program(script, begin, script.path.name), tuple(rest[place + 1 :])


def _words_of(command: tuple[object, ...]) -> list[object]:
    """Returns a command's words, as one types them in a terminal, too: in one line, or a list.

    Raises:
        ArgumentError: There is none, or a shell is meant.
    """
    words = list(command)
    if len(words) == 1 and isinstance(words[0], list | tuple):
        words = list(words[0])
    if words and isinstance(words[0], str):
        words[0] = words[0].removeprefix("!")
        if len(words) == 1 and words[0].split() != words and not _is_script(words[0]):
            words = _words_in(words[0])
    if not words:
        message = "There is nothing to run."
        hint = 'Pass a command: run("torchrun", "train.py").'
        raise ArgumentError(message, argument="command", hint=hint)
    return words


def _words_in(line: str) -> list[object]:
    try:
        words: list[object] = list(shlex.split(line))
    except ValueError as error:
        message = f"{line!r} has no words: {error}."
        hint = 'Pass them one by one: run("python", "train.py").'
        raise ArgumentError(message, argument="command", hint=hint) from error
    if _SHELL_SIGNS.search(line):
        message = f"{line!r} is for a shell, and there is none."
        hint = f'Start one: run("bash", "-c", {line!r}).'
        raise ArgumentError(message, argument="command", hint=hint)
    is_script = str(words[0]).endswith(_SCRIPTS) if words else False
    is_known = is_script or (bool(words) and _which(str(words[0])) is not None)
    # A script in a folder with a space in its name, misspelled.
    return words if is_known or not line.endswith(_SCRIPTS) or "/" not in line else [line]


def _is_script(line: str) -> bool:
    return line.endswith(_SCRIPTS) and locate_input(line).is_file()


def _place_of_script(words: list[object]) -> int | None:
    """Returns which word is the script that is run, None where there is none."""
    for number, word in enumerate(words):
        if str(word) in _MODULE_WORDS or str(word) == "-c":
            return None  # what follows is no path
        if str(word).endswith(_SCRIPTS):
            return number
    return None


def _module_in(words: list[object]) -> str:
    """Returns the module that ``-m`` names, "" where there is none.

    Raises:
        ArgumentError: It names none.
    """
    named = [str(word) for word in words]
    place = next((n for n, word in enumerate(named) if word in _MODULE_WORDS), None)
    if place is None:
        return ""
    if named[place + 1 :]:
        return named[place + 1]
    message = f"{named[place]} names no module."
    hint = f'Pass it: run("python", "{named[place]}", "package.train").'
    raise ArgumentError(message, argument="command", hint=hint)


def _file_of(module: str, folder: Path) -> Path | None:
    """Returns a module's file in a project, None where it has none."""
    if not module:
        return None
    place = folder.joinpath(*module.split("."))
    files = (place.with_name(f"{place.name}.py"), place / "__main__.py")
    return next((file for file in files if file.is_file()), None)


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
    return Program(script, (sys.executable, script.path), script.path.name)


def _which(name: str) -> str | None:
    # The programs of this notebook's own packages come first.
    path = os.pathsep.join((str(Path(sys.executable).parent), os.environ.get("PATH", "")))
    return shutil.which(name, path=path)


def _installed(name: str) -> str:
    found = _which(name)
    if found is None:
        message = f"There is no program {name!r} on this machine."
        package = _BROUGHT_BY.get(name)
        brings = f"package that brings it: !pip install {package}" if package else ""
        hint = (
            f"Install the {brings or 'package that brings it'}, or pass a script: run('train.py')."
        )
        raise ScriptNotFoundError(message, path=name, near_names=(), hint=hint)
    return found
