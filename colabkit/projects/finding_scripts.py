"""What run_script is asked to run: the script, its project, and where its output goes."""

from __future__ import annotations

import dataclasses
import os
from pathlib import Path

from colabkit.errors import ArgumentError, DriveLostError, ScriptNotFoundError
from colabkit.runtime import Platform, detect_platform
from colabkit.storage import (
    MountState,
    active_mount,
    is_slow,
    locate,
    locate_input,
    mount_of,
    names_in,
    near_names,
)

_KAGGLE_INPUT = Path("/kaggle/input")  # nobody can write there
_KAGGLE_WORKING = Path("/kaggle/working")


@dataclasses.dataclass(frozen=True, slots=True)
class Script:
    """A script and its project.

    Attributes:
        path: The script.
        project: The folder it works in.
        home: Where the project's output belongs; None where the project itself is worked in.
    """

    path: Path
    project: Path
    home: Path | None

    @property
    def is_root(self) -> bool:
        """Whether the project is My Drive itself, with all that a person keeps there."""
        mount = active_mount()
        return mount is not None and self.project == mount.root


def find_script(path: str | Path, project: str | Path | None = None) -> Script:
    """Returns what to run.

    Args:
        path: The script, on Drive by any of its names, or on this machine.
        project: The folder that it works in; its own by default.

    Raises:
        ScriptNotFoundError: There is no such file.
        DriveLostError: It is on Drive, which is not mounted.
        ArgumentError: It is a notebook, or does not lie in the project.
    """
    platform = detect_platform()
    where = _plain(locate_input(path, platform=platform))
    mount = mount_of(where, platform=platform)
    if mount is not None and mount.probe() is not MountState.MOUNTED:
        message = f"{path} is on Drive, which is not mounted at {mount.mountpoint}."
        hint = "Run colabkit.setup() or colabkit.mount() first, then this cell again."
        raise DriveLostError(message, path=where, operation="run", hint=hint)
    if not where.is_file():
        raise _missing(path, where)
    if where.suffix == ".ipynb":
        message = f"{where.name} is a notebook, and no Python script."
        hint = "Open it and run its cells, or save it as .py: File → Download → Download .py."
        raise ArgumentError(message, argument="path", hint=hint)
    folder = where.parent if project is None else _plain(locate(project, platform=platform))
    if not where.is_relative_to(folder):
        message = f"{where} does not lie in the project {folder}."
        raise ArgumentError(message, argument="project", hint="Pass a folder above the script.")
    return Script(where, folder, _home_of(folder, is_on_drive=mount is not None))


def find_folder(project: str | Path) -> tuple[Path, Path | None]:
    """Returns a project's folder, and where its output belongs; None where it is worked in.

    Raises:
        ScriptNotFoundError: There is no such folder.
    """
    folder = _plain(locate(project))
    if not folder.is_dir():
        raise _missing(project, folder)
    return folder, _home_of(folder, is_on_drive=mount_of(folder) is not None)


def _home_of(folder: Path, *, is_on_drive: bool) -> Path | None:
    if is_on_drive or is_slow(folder):
        return folder
    if detect_platform() is Platform.KAGGLE and folder.is_relative_to(_KAGGLE_INPUT):
        return _KAGGLE_WORKING / folder.name
    return None


def _plain(path: Path) -> Path:
    """Returns an absolute path without "..": a project's folder needs a name of its own."""
    return Path(os.path.normpath(path.absolute()))


def _missing(path: str | Path, where: Path) -> ScriptNotFoundError:
    if where.is_dir():
        message = f"{path} is a folder."
        scripts = sorted(name for name in names_in(where) if name.endswith(".py"))
        hint = f"It holds {', '.join(scripts[:5])}." if scripts else "It holds no Python script."
        return ScriptNotFoundError(message, path=where, near_names=scripts, hint=hint)
    above = next(folder for folder in where.parents if folder.is_dir())
    wanted = where.relative_to(above).parts[0]
    near = near_names(wanted, names_in(above))
    shown = f" ({where})" if str(path) != str(where) else ""
    message = f"There is no script {path}{shown}."
    if near:
        hint = f"Did you mean {near[0]!r} in {above}?"
    else:
        hint = f"Nothing in {above} has a name like {wanted!r}."
    return ScriptNotFoundError(message, path=where, near_names=near, hint=hint)
