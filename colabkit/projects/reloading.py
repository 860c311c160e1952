"""reload(): edited modules of the working folder, taken up without a new session."""

from __future__ import annotations

import ast
import contextlib
import importlib
import importlib.util
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

from colabkit.errors import ArgumentError
from colabkit.notebook import say
from colabkit.parsing import tree_of
from colabkit.projects.trees import Stamp, walk

_MODULES_MAX = 5_000
_folders: dict[Path, dict[Path, Stamp]] = {}


def watch_folder(folder: Path) -> None:
    """Notes how the modules of a working folder are now; those edited later are reloaded."""
    resolved = folder.resolve()
    if resolved not in _folders:
        _folders[resolved] = _stamps_in(resolved)


def reload() -> tuple[str, ...]:
    """Takes up the modules of ``setup(workdir=…)`` that were edited, and those that import them.

    Functions and classes that this notebook has imported by name are replaced too; objects
    that were made before keep what they were made of.

    Returns:
        The names of the modules that were reloaded.

    Raises:
        ArgumentError: There is no working folder to look at.
        SyntaxError: An edited file cannot be read as Python.

    Example:
        >>> reload()  # doctest: +SKIP
        Reloaded model and train.
        ('model', 'train')
    """
    if not _folders:
        message = "No working folder is known whose modules could be reloaded."
        hint = 'Call colabkit.setup(workdir="MyDrive/project") first.'
        raise ArgumentError(message, argument="workdir", hint=hint)
    importlib.invalidate_caches()
    now = {folder: _stamps_in(folder) for folder in _folders}
    edited = {
        path
        for folder, stamps in now.items()
        for path, stamp in stamps.items()
        if _folders[folder].get(path) != stamp
    }
    modules = {module.__name__: module for module in _project_modules()}
    reloaded = _affected(modules, edited)
    for name in reloaded:
        _reload(modules[name])
    _folders.update(now)
    if reloaded:
        say(f"Reloaded {', '.join(reloaded)}.")
    else:
        say("No module that was imported from the working folder has changed.")
    return tuple(reloaded)


def _affected(modules: dict[str, ModuleType], edited: set[Path]) -> list[str]:
    """Returns the modules that were edited or import such a one, what is imported first."""
    needs = {name: _imports(module) & set(modules) for name, module in modules.items()}
    order: list[str] = []
    changed: set[str] = set()

    def visit(name: str, above: frozenset[str]) -> None:
        if name in order or name in above:
            return
        for needed in sorted(needs[name]):
            visit(needed, above | {name})
        order.append(name)
        if _file_of(modules[name]) in edited or needs[name] & changed:
            changed.add(name)

    for name in modules:
        visit(name, frozenset())
    return [name for name in order if name in changed]


def _imports(module: ModuleType) -> set[str]:
    """Returns the names that a module's source imports, as they are read: a.b of a.b.c too."""
    path = _file_of(module)
    try:
        parsed = tree_of(path.read_text(encoding="utf-8")) if path is not None else None
    except (OSError, UnicodeDecodeError):
        return set()  # what is wrong with it is told when it is reloaded
    found: set[str] = set()
    for node in ast.walk(parsed) if parsed is not None else ():
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            package = (module.__package__ or "").split(".")
            above = package[: len(package) - node.level + 1] if node.level else []
            base = ".".join([*above, *filter(None, [node.module])])
            found |= {base, *(f"{base}.{alias.name}" for alias in node.names)}
    return found


def _reload(module: ModuleType) -> None:
    before = dict(vars(module))
    with contextlib.suppress(OSError, NotImplementedError, ValueError):
        # It is told apart by whole seconds only: an edit within one would not be seen.
        Path(importlib.util.cache_from_source(str(_file_of(module)))).unlink(missing_ok=True)
    importlib.reload(module)
    _replace(before, vars(module))


def _replace(before: dict[str, Any], after: dict[str, Any]) -> None:
    """Gives the notebook's own names the new functions and classes."""
    namespace = vars(sys.modules["__main__"])
    for name, old in before.items():
        new = after.get(name)
        if name.startswith("__") or new is old or not callable(old):
            continue
        for own, value in list(namespace.items()):
            if value is old:
                namespace[own] = new


def _project_modules() -> Iterator[ModuleType]:
    for name, module in list(sys.modules.items()):
        path = _file_of(module)
        is_ours = path is not None and any(path.is_relative_to(folder) for folder in _folders)
        if is_ours and name != "__main__" and getattr(module, "__spec__", None) is not None:
            yield module


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if isinstance(file, str) and file.endswith(".py") else None


def _stamps_in(folder: Path) -> dict[Path, Stamp]:
    found: dict[Path, Stamp] = {}
    for path, stat in walk(folder):
        if path.suffix == ".py":
            found[path] = Stamp(stat.st_size, stat.st_mtime_ns)
            if len(found) >= _MODULES_MAX:
                break
    return found
