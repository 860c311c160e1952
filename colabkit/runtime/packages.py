"""Which of the packages that a notebook needs are here already."""

from __future__ import annotations

import dataclasses
import enum
import importlib
import importlib.metadata
import re
from collections.abc import Iterable
from typing import Any

from colabkit.errors import ArgumentError

_NAME = re.compile(r"^\s*([A-Za-z0-9](?:[A-Za-z0-9._-]*[A-Za-z0-9])?)\s*$")


class PackageState(enum.Enum):
    """How a requirement stands."""

    PRESENT = "installed as required"
    MISSING = "not installed"
    OTHER_VERSION = "installed in another version"
    UNKNOWN = "installed, but whether it fits cannot be told"
    NOT_NEEDED = "not needed on this machine"


@dataclasses.dataclass(frozen=True, slots=True)
class PackageCheck:
    """What was found for one requirement.

    Attributes:
        requirement: As the user wrote it: "timm>=1.0".
        name: The package's name: "timm".
        state: How it stands.
        version: The version that is installed, None without one.
        reason: Why it could not be installed, "" when nobody tried or it could.
        advice: What to do about it.
    """

    requirement: str
    name: str
    state: PackageState
    version: str | None = None
    reason: str = ""
    advice: str = ""

    @property
    def is_satisfied(self) -> bool:
        """Whether nothing needs to be installed."""
        return self.state in {PackageState.PRESENT, PackageState.NOT_NEEDED}


def check_packages(packages: str | Iterable[str]) -> tuple[PackageCheck, ...]:
    """Returns how each requirement stands; installs and imports none of them.

    Args:
        packages: Requirements as pip takes them: "timm", "torchmetrics>=1.0,<2".

    Raises:
        ArgumentError: One of them is no requirement.

    Example:
        >>> check_packages(["pip>=1"])[0].state
        <PackageState.PRESENT: 'installed as required'>
    """
    listed = [packages] if isinstance(packages, str) else list(packages)
    return tuple(_check(requirement) for requirement in listed)


def missing(packages: str | Iterable[str]) -> tuple[PackageCheck, ...]:
    """Returns the requirements that are not satisfied here.

    Raises:
        ArgumentError: One of them is no requirement.
    """
    return tuple(check for check in check_packages(packages) if not check.is_satisfied)


def requirement_allows(requirement: str, name: str, version: str) -> bool | None:
    """Returns whether a requirement is content with a version, None when it is of another package.

    Example:
        >>> requirement_allows("numpy<2", "numpy", "2.4.1")
        False
    """
    wanted = _packaging("requirements").Requirement(requirement)
    names = {re.sub(r"[-_.]+", "-", each).lower() for each in (wanted.name, name)}
    if len(names) > 1 or (wanted.marker is not None and not wanted.marker.evaluate({"extra": ""})):
        return None
    return bool(wanted.specifier.contains(version, prereleases=True))


def is_same_version(one: str, other: str) -> bool:
    """Returns whether two spellings name one version.

    Example:
        >>> is_same_version("1.0.post1", "1.0-1"), is_same_version("1.0", "1.1")
        (True, False)
    """
    versions = _packaging("version")
    try:
        return bool(versions.Version(one) == versions.Version(other))
    except versions.InvalidVersion:
        return one == other


def _check(requirement: object) -> PackageCheck:
    if not isinstance(requirement, str):
        raise _not_a_requirement(requirement)
    try:
        requirements = _packaging("requirements")
    except ImportError:
        return _by_name(requirement)
    try:
        wanted = requirements.Requirement(requirement)
    except requirements.InvalidRequirement as error:
        raise _not_a_requirement(requirement) from error
    if wanted.marker is not None and not wanted.marker.evaluate():
        return PackageCheck(requirement, wanted.name, PackageState.NOT_NEEDED)
    version = _installed(wanted.name)
    return PackageCheck(requirement, wanted.name, _state(wanted, version), version)


def _packaging(part: str) -> Any:
    """Returns a module of ``packaging``: a fresh virtual environment has only pip's own copy."""
    try:
        return importlib.import_module(f"packaging.{part}")
    except ImportError:
        return importlib.import_module(f"pip._vendor.packaging.{part}")


def _state(wanted: Any, version: str | None) -> PackageState:
    if version is None:
        return PackageState.MISSING
    if not wanted.specifier.contains(version, prereleases=True):
        return PackageState.OTHER_VERSION
    # Neither the address a package came from nor its extras can be told from its version.
    return PackageState.UNKNOWN if wanted.url or wanted.extras else PackageState.PRESENT


def _by_name(requirement: str) -> PackageCheck:
    """Checks without ``packaging`` and without pip: only bare names can be answered."""
    name = re.split(r"[\s<>=!~;@\[(]", requirement.strip(), maxsplit=1)[0]
    if not _NAME.match(name):
        raise _not_a_requirement(requirement)
    version = _installed(name)
    if version is None:
        return PackageCheck(requirement, name, PackageState.MISSING)
    is_bare = _NAME.match(requirement) is not None
    state = PackageState.PRESENT if is_bare else PackageState.UNKNOWN
    return PackageCheck(requirement, name, state, version)


def _installed(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _not_a_requirement(requirement: object) -> ArgumentError:
    message = f"packages holds {requirement!r}, which names no package."
    hint = 'Write it as for pip install: "timm" or "timm>=1.0".'
    if isinstance(requirement, str) and "://" in requirement:
        hint = 'Put its name before its address: "clip @ git+https://github.com/openai/CLIP".'
    return ArgumentError(message, argument="packages", hint=hint)
