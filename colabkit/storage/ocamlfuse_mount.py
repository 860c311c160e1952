"""Drive mounted by google-drive-ocamlfuse, with a sign-in made elsewhere."""

from __future__ import annotations

import shutil
from pathlib import Path

from colabkit.errors import ArgumentError, DriveMountError, MountFailure
from colabkit.runtime import check_mountpoint
from colabkit.storage.fuse import await_mount, missing_program, require_fuse, take_down
from colabkit.storage.mounter import MountRequest
from colabkit.storage.mounts import is_mountpoint
from colabkit.storage.programs import is_installed, run_program

_PROGRAM = "google-drive-ocamlfuse"
_INSTALL_S = 1800.0
_ON_UBUNTU = (
    ("add-apt-repository", "-y", "ppa:alessandro-strada/ppa"),
    ("apt-get", "update", "-qq"),
    ("apt-get", "install", "-y", "-qq", _PROGRAM, "fuse"),
)
_ELSEWHERE = (
    ("apt-get", "install", "-y", "-qq", "opam", "fuse", "libfuse-dev", "libcurl4-gnutls-dev"),
    ("opam", "init", "--disable-sandboxing", "--auto-setup", "--yes"),
    ("opam", "install", "--yes", _PROGRAM),
)


class OcamlfuseMounter:
    """``google-drive-ocamlfuse``, signed in with the settings of another computer.

    Args:
        label: The account's name among the program's settings.
        credentials: The folder ``~/.gdfuse/LABEL`` of a computer where you have signed in, or
            its file ``state``; None when it is in place here already.
        client_id: Of your own OAuth client, as given when you signed in.
        client_secret: Of the same.
        install: Whether to install the program where it is missing.

    Source:
        Google ended the sign-in without a browser that this program used, so that signing in
        is possible on a computer with a browser only.
    """

    name = "ocamlfuse"

    def __init__(
        self,
        label: str = "default",
        *,
        credentials: str | Path | None = None,
        client_id: str = "",
        client_secret: str = "",
        install: bool = False,
    ) -> None:
        if bool(client_id) != bool(client_secret):
            message = "Only one of client_id and client_secret was given."
            raise ArgumentError(message, argument="client_id", hint="Pass both, or neither.")
        self.label = label
        self.drive = f"ocamlfuse {label}"
        self.install = install
        self._credentials = Path(credentials).expanduser() if credentials is not None else None
        self._client = ["-id", client_id, "-secret", client_secret] if client_id else []
        self._mounts_made = 0

    def root(self, mountpoint: Path) -> Path:
        """Returns where My Drive begins under a mountpoint."""
        return mountpoint

    def is_listed(self, mountpoint: Path) -> bool:
        """Returns whether the mount table has it."""
        return is_mountpoint(mountpoint)

    def mount(self, mountpoint: Path, wanted: MountRequest) -> None:
        """Mounts it, taking down first what is lost."""
        if not is_installed(_PROGRAM) and self.install:
            _install(mountpoint)
        if not is_installed(_PROGRAM):
            hint = "Pass install=True to install it from its PPA or opam, which takes minutes."
            raise missing_program(mountpoint, _PROGRAM, hint)
        require_fuse(mountpoint)
        self._sign_in(mountpoint)
        if wanted.is_lost:
            take_down(mountpoint, is_dead=True)
        if not self._mounts_made:
            check_mountpoint(str(mountpoint), timeout_s=wanted.timeout_s, is_covered=False)
        mountpoint.mkdir(exist_ok=True)
        # What was written while it was away must not keep it away.
        later = ["-o", "nonempty"] if self._mounts_made else []
        command = [_PROGRAM, "-headless", "-label", self.label, *self._client, *later]
        ended = run_program([*command, str(mountpoint)], timeout_s=wanted.timeout_s)
        if ended.code != 0:
            cause = MountFailure.TIMED_OUT if ended.code is None else MountFailure.FAILED
            message = f'Drive is not mounted at {mountpoint}: {_PROGRAM} failed ("{ended.said}").'
            hint = f"Its log is {_settings(self.label) / 'gdfuse.log'}."
            raise DriveMountError(message, cause=cause, path=mountpoint, hint=hint)
        await_mount(mountpoint, timeout_s=wanted.timeout_s, is_alive=wanted.is_alive)
        self._mounts_made += 1

    def unmount(self, mountpoint: Path, *, timeout_s: float) -> None:
        """Takes the mount down; the program has uploaded a file when its close returned."""
        del timeout_s
        take_down(mountpoint)

    def _sign_in(self, mountpoint: Path) -> None:
        """Puts the settings of a computer that has signed in into their place."""
        place = _settings(self.label)
        given = self._credentials
        if given is not None:
            files = [given / "state", given / "config"] if given.is_dir() else [given]
            for file in filter(Path.is_file, files):
                place.mkdir(parents=True, exist_ok=True, mode=0o700)
                target = place / (file.name if given.is_dir() else "state")
                shutil.copyfile(file, target)
                target.chmod(0o600)
        if (place / "state").is_file():
            return
        message = f"Drive is not mounted at {mountpoint}: {_PROGRAM} has no sign-in in {place}."
        hint = (
            f"Run {_PROGRAM} on a computer with a browser, copy its ~/.gdfuse/{self.label} to"
            " this machine and pass credentials= with its path."
        )
        cause = MountFailure.NOT_SIGNED_IN
        raise DriveMountError(message, cause=cause, path=mountpoint, hint=hint)


def _settings(label: str) -> Path:
    return Path.home() / ".gdfuse" / label


def _install(mountpoint: Path) -> None:
    """Installs the program: from its PPA where there are PPAs, else from opam."""
    commands = _ON_UBUNTU if is_installed("add-apt-repository") else _ELSEWHERE
    quiet = {"DEBIAN_FRONTEND": "noninteractive"}
    for command in commands:
        said = f"{command[0]} is not installed"
        if is_installed(command[0]):
            ended = run_program(command, timeout_s=_INSTALL_S, environment=quiet)
            if ended.code == 0:
                continue
            said = ended.said
        message = f'{_PROGRAM} could not be installed: {" ".join(command)} failed ("{said}").'
        hint = "Install it by hand, or take backend='rclone'."
        cause = MountFailure.NO_PROGRAM
        raise DriveMountError(message, cause=cause, path=mountpoint, hint=hint)
    if not is_installed(_PROGRAM):
        # opam puts programs where only its own shell looks.
        found = Path.home() / ".opam" / "default" / "bin" / _PROGRAM
        if found.is_file():
            shutil.copy2(found, Path("/usr/local/bin") / _PROGRAM)
