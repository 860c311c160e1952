"""What was asked for: requirements one by one, or a requirements file, on Drive too."""

from __future__ import annotations

import codecs
import dataclasses
import re
import shlex
from collections.abc import Iterable, Iterator
from pathlib import Path

from colabkit.errors import ArgumentError, StorageError
from colabkit.storage import MountState, locate_input, mount_of, names_in, near_names

# What pip is told besides requirements, and whether a value follows.
_OPTIONS = {
    "--extra-index-url": True,
    "--find-links": True,
    "--index-url": True,
    "--pre": False,
    "--prefer-binary": False,
    "--trusted-host": True,
    "-f": True,
    "-i": True,
}
_NESTED = ("-r", "--requirement")
_COMMENT = re.compile(r"(^|\s)#.*$")
_SUFFIXES = (".txt", ".in")
_UTF_16 = (codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE)


@dataclasses.dataclass(frozen=True, slots=True)
class PackageRequest:
    """What was asked for.

    Attributes:
        requirements: As pip takes them: "timm>=1.0".
        options: What pip is told besides, as an index of packages.
    """

    requirements: tuple[str, ...]
    options: tuple[str, ...] = ()


def names_a_file(packages: str | Path | Iterable[str]) -> bool:
    """Whether it is the path of a requirements file, and no requirement.

    Example:
        >>> names_a_file("MyDrive/project/requirements.txt"), names_a_file("timm>=1.0")
        (True, False)
    """
    if isinstance(packages, Path):
        return True
    return isinstance(packages, str) and packages.strip().lower().endswith(_SUFFIXES)


def read_request(packages: str | Path | Iterable[str]) -> PackageRequest:
    """Returns what was asked for.

    Args:
        packages: One requirement, several, or the path of a requirements file.

    Raises:
        ArgumentError: A line of the file cannot be used here.
        StorageError: The file cannot be read.

    Example:
        >>> read_request(["timm", "einops>=0.7"]).requirements
        ('timm', 'einops>=0.7')
    """
    if not isinstance(packages, str | Path):
        return PackageRequest(tuple(packages))
    if isinstance(packages, str) and not names_a_file(packages):
        return PackageRequest((packages,))
    requirements: list[str] = []
    options: list[str] = []
    _read(locate_input(packages), str(packages), requirements, options, seen=set())
    return PackageRequest(tuple(requirements), tuple(options))


def _read(
    path: Path, name: str, requirements: list[str], options: list[str], *, seen: set[Path]
) -> None:
    if path in seen:
        return
    seen.add(path)
    for number, line in _lines(_text(path, name)):
        words = line.split(maxsplit=1)
        option, _, attached = words[0].partition("=")
        if not option.startswith("-"):
            requirements.append(line)
        elif option in _NESTED and len(words) + bool(attached) > 1:
            inner = attached or words[1]
            _read(path.parent / inner, inner, requirements, options, seen=seen)
        elif option in _OPTIONS:
            options += shlex.split(line)
        else:
            message = f"Line {number} of {name} is {line!r}, which setup cannot install."
            hint = "Use requirements, -r FILE and the options of package indexes; or !pip install."
            raise ArgumentError(message, argument="packages", hint=hint)


def _lines(text: str) -> Iterator[tuple[int, str]]:
    held = ""
    for number, line in enumerate(text.splitlines(), start=1):
        if line.rstrip().endswith("\\"):
            held += line.rstrip()[:-1] + " "
            continue
        whole, held = _COMMENT.sub("", held + line).strip(), ""
        if whole:
            yield number, whole


def _text(path: Path, name: str) -> str:
    try:
        data = path.read_bytes()
        # PowerShell's `pip freeze > requirements.txt` writes UTF-16.
        return data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8-sig")
    except UnicodeDecodeError as error:
        message = f"{name} is no text file."
        raise ArgumentError(message, argument="packages") from error
    except FileNotFoundError as error:
        mount = mount_of(path)
        if mount is not None and mount.probe() is not MountState.MOUNTED:
            message = f"{name} is on Drive, which is not mounted."
            hint = "Run colabkit.setup() with drive=True, or pass the requirements themselves."
            raise StorageError(message, path=path, operation="read", hint=hint) from error
        raise _missing(path, name) from error
    except OSError as error:
        message = f"{name} could not be read: {error.strerror}."
        raise StorageError(message, path=path, operation="read") from error


def _missing(path: Path, name: str) -> StorageError:
    near = near_names(path.name, names_in(path.parent))
    message = f"There is no file {name}" + (f" ({path})." if str(path) != name else ".")
    hint = f"Did you mean {near[0]!r}?" if near else "Check its spelling."
    return StorageError(message, path=path, operation="read", hint=hint)
