"""Drive mounted by rclone: any machine with FUSE, and any service that rclone knows."""

from __future__ import annotations

import hashlib
import json
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from colabkit.errors import DriveMountError, MountFailure, StorageError
from colabkit.notebook import files_words
from colabkit.runtime import check_mountpoint
from colabkit.storage.fuse import await_mount, missing_program, require_fuse, take_down
from colabkit.storage.mounter import MountRequest
from colabkit.storage.mounts import is_mountpoint
from colabkit.storage.programs import cache_folder, is_installed, make_in_cache, run_program

INSTALL_RCLONE = "Run: apt-get install rclone"
_LOOK_S = 0.25
# Written back at once, and what other machines change is seen soon.
_OPTIONS = (
    "--vfs-cache-mode=writes",
    "--vfs-write-back=1s",
    "--dir-cache-time=30s",
    "--poll-interval=15s",
    "--drive-use-trash=false",
    "--ask-password=false",
)


class RcloneMounter:
    """``rclone mount``, in the background, with a cache that writes back at once.

    Args:
        remote: The remote, and a folder on it if you like: "drive:", "drive:projects".
        config: The configuration that ``rclone config`` made; None for rclone's own place.
        options: More options for ``rclone mount``, such as "--drive-shared-with-me".
    """

    name = "rclone"

    def __init__(
        self,
        remote: str = "drive:",
        *,
        config: str | Path | None = None,
        options: Sequence[str] = (),
    ) -> None:
        self.remote = remote if ":" in remote else f"{remote}:"
        self.drive = f"rclone {self.remote}"
        self.options = tuple(options)
        self._config = [f"--config={Path(config).expanduser()}"] if config is not None else []
        told = hashlib.sha256(self.remote.encode()).hexdigest()[:16]
        # A folder of its own: what it says of files that wait is then of this remote.
        self._cache = cache_folder() / "rclone" / told

    def root(self, mountpoint: Path) -> Path:
        """Returns where My Drive begins under a mountpoint."""
        return mountpoint

    def is_listed(self, mountpoint: Path) -> bool:
        """Returns whether the mount table has it."""
        return is_mountpoint(mountpoint)

    def mount(self, mountpoint: Path, wanted: MountRequest) -> None:
        """Mounts it, taking down first what is lost."""
        if not is_installed("rclone"):
            raise missing_program(mountpoint, "rclone", INSTALL_RCLONE)
        require_fuse(mountpoint)
        self._require_remote(mountpoint)
        if wanted.is_lost:
            take_down(mountpoint, is_dead=True)
        check_mountpoint(str(mountpoint), timeout_s=wanted.timeout_s, is_covered=False)
        mountpoint.mkdir(exist_ok=True)
        make_in_cache(self._cache)
        log = self._cache / "mount.log"
        log.unlink(missing_ok=True)
        wait = f"--daemon-wait={max(1, int(wanted.timeout_s))}s"
        kept = [f"--cache-dir={self._cache}", f"--log-file={log}", *self._config]
        command = ["rclone", "mount", self.remote, str(mountpoint), "--daemon", wait]
        ended = run_program(
            [*command, *_OPTIONS, *kept, *self.options], timeout_s=wanted.timeout_s + 5
        )
        if ended.code != 0:
            said = _last_line(log) or ended.said
            late = ended.code is None
            cause = MountFailure.TIMED_OUT if late else MountFailure.FAILED
            message = f'Drive is not mounted at {mountpoint}: rclone failed ("{said}").'
            hint = f"Try it in a terminal: rclone lsd {self.remote}"
            raise DriveMountError(message, cause=cause, path=mountpoint, hint=hint)
        await_mount(mountpoint, timeout_s=wanted.timeout_s, is_alive=wanted.is_alive)

    def unmount(self, mountpoint: Path, *, timeout_s: float) -> None:
        """Uploads what waits and takes the mount down."""
        deadline_s = time.monotonic() + timeout_s
        while waiting := sum(1 for is_dirty in self._dirty_flags("*") if is_dirty):
            if time.monotonic() >= deadline_s:
                message = f"Not uploaded yet: {files_words(waiting)} in {mountpoint}."
                hint = "Wait, and run colabkit.release() again; they are lost with the machine."
                raise StorageError(message, path=mountpoint, operation="unmount", hint=hint)
            time.sleep(_LOOK_S)
        take_down(mountpoint)

    def is_uploaded(self, mountpoint: Path, path: Path) -> bool | None:
        """Returns whether a file is on Drive; rclone's cache says what still waits."""
        inside = path.relative_to(mountpoint).parts
        return not any(self._dirty_flags(path.name, inside))

    def _dirty_flags(self, name: str, inside: tuple[str, ...] = ()) -> Iterator[bool]:
        """Yields of each file in rclone's cache whether it waits to be uploaded."""
        for told in (self._cache / "vfsMeta").rglob(name):
            if inside != told.parts[len(told.parts) - len(inside) :] or told.is_dir():
                continue
            try:
                yield bool(json.loads(told.read_bytes())["Dirty"])
            except (OSError, ValueError, KeyError):
                # It is being written or removed: what is being written waits.
                yield told.exists()

    def _require_remote(self, mountpoint: Path) -> None:
        ended = run_program(["rclone", "listremotes", *self._config], timeout_s=30)
        known = ended.stdout.split()
        wanted = self.remote.split(":")[0] + ":"
        # "drive,shared_with_me:" and ":s3,provider=AWS:" bring settings of their own.
        if wanted in known or "," in wanted or wanted == ":":
            return
        there = f"only {', '.join(known)}" if known else "none at all"
        message = f"Drive is not mounted at {mountpoint}: rclone knows no {wanted!r}, {there}."
        hint = (
            "Run `rclone config` on your own computer, copy its rclone.conf to this machine"
            " and pass config= with its path; take the remote's name from it."
        )
        cause = MountFailure.NOT_SIGNED_IN
        raise DriveMountError(message, cause=cause, path=mountpoint, hint=hint)


def _last_line(log: Path) -> str:
    if not log.exists():
        return ""
    lines = log.read_text(errors="replace").strip().splitlines()
    # "2026/01/31 10:00:00 Fatal error: ...": the time says nothing here.
    return lines[-1].split(" ", 2)[-1].strip() if lines else ""
