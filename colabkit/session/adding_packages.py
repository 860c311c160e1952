"""setup(packages=…): which wheels are kept where, and what is said meanwhile."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path

from colabkit.errors import ArgumentError
from colabkit.notebook import say
from colabkit.packages import Installed, install_packages, names_a_file, read_request
from colabkit.runtime import Platform, check_packages
from colabkit.session.records import DriveStatus

_ON_DRIVE = "MyDrive/.colabkit/wheels"
_ON_KAGGLE = Path("/kaggle/working/.colabkit/wheels")
_KAGGLE_INPUT = Path("/kaggle/input")


def check_request(packages: str | Path | Iterable[str]) -> str | Path | Sequence[str]:
    """Returns what was asked for, looked at before anything is done.

    Raises:
        ArgumentError: One of the requirements is none.
    """
    if isinstance(packages, str | Path):
        if not names_a_file(packages):
            check_packages(str(packages))
        return packages
    if not isinstance(packages, Iterable):
        raise ArgumentError.of("packages", packages, 'Pass a list: packages=["timm>=1.0"].')
    listed = list(packages)
    check_packages(listed)
    return listed


def add_packages(
    packages: str | Path | Sequence[str],
    drive: DriveStatus,
    platform: Platform,
    *,
    allow_changes: bool,
) -> Installed:
    """Installs what is missing, with the wheels of this account.

    Raises:
        ArgumentError: A line of a requirements file cannot be used.
        PackageChangeError: A package would change a framework.
        StorageError: A requirements file cannot be read.
    """
    request = read_request(packages)
    places = _places(drive, platform)
    return install_packages(
        request, allow_changes=allow_changes, places=places, say=say, platform=platform
    )


def _places(drive: DriveStatus, platform: Platform) -> list[str | Path]:
    """Returns where wheels are kept, the place for new ones first."""
    if drive.is_mounted:
        return [_ON_DRIVE]
    if platform is Platform.KAGGLE:
        # The output of a saved version, added to a notebook as an input, brings its wheels.
        levels = ("*", "*/*", "*/*/*")
        inputs = [p for level in levels for p in _KAGGLE_INPUT.glob(f"{level}/.colabkit/wheels")]
        return [_ON_KAGGLE, *sorted(inputs)]
    return []
