"""A folder of any service that rclone knows as a volume, without FUSE."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable
from pathlib import PurePosixPath
from typing import IO, Any

import numpy as np

from colabkit.errors import ArgumentError, MissingPackageError, StorageError
from colabkit.storage.outages import patiently
from colabkit.storage.programs import Ended, is_installed, run_program, stopped_program
from colabkit.storage.rclone_mount import INSTALL_RCLONE
from colabkit.storage.request_failures import Operation, RequestFailure, failure_of, storage_error
from colabkit.storage.temporary_names import is_left_behind, is_temporary_name, temporary_name
from colabkit.storage.urls import url_of
from colabkit.storage.volume import Bytes

_MISSING_CODES = {3, 4}
_SHORT_S = 180.0
_PIECE_BYTES = 8 << 20
_OPTIONS = (
    "--retries=1",
    "--low-level-retries=3",
    "--contimeout=15s",
    "--timeout=60s",
    "--ask-password=false",
    "--drive-use-trash=false",
    "--log-level=ERROR",
)


class RcloneVolume:
    """Blobs below a remote's folder, each moved by a run of rclone.

    A blob is streamed to a temporary name, its size there is looked at, and then it is given its
    own name by the service.

    Args:
        url: "rclone://REMOTE/FOLDER", with the name that ``rclone config`` gave the remote.

    Raises:
        ArgumentError: It names no remote.
        MissingPackageError: rclone is not installed.
    """

    is_slow = True
    root = None  # no path leads there

    def __init__(self, url: str) -> None:
        self.location = url_of(url) or url
        remote, _, folder = self.location.partition("://")[2].partition("/")
        if not remote.strip(":"):
            message = f"{url!r} names no remote."
            raise ArgumentError(message, argument="path", hint='Pass "rclone://drive/folder".')
        if not is_installed("rclone"):
            message = f"{url!r} needs the program rclone, which is not installed."
            raise MissingPackageError(message, package="rclone", hint=INSTALL_RCLONE)
        self._remote = remote.rstrip(":") + ":"
        self._base = folder

    @property
    def anywhere(self) -> str:
        """What opens it again, in another process."""
        return self.location

    @property
    def identity(self) -> str:
        """What no other place has."""
        return self.location

    def write(self, name: str, parts: Iterable[Bytes]) -> None:
        """Publishes a blob under a name; on failure nothing is left under it.

        Raises:
            DiskFullError: There is no room left.
            StorageError: It cannot be written.
        """
        target = self._target(name)
        pieces = list(parts)
        nbytes = sum(map(len, pieces))
        folder = target.rpartition("/")[0] or self._remote
        temporary = f"{folder}/{temporary_name()}".replace(":/", ":")
        try:
            self._stream(["rcat", f"--size={nbytes}", temporary], name, pieces)
            self._require_size(temporary, nbytes, name)
            self._raise_if_failed(self._run("moveto", temporary, target), name, "write")
        except BaseException:
            with contextlib.suppress(StorageError):
                self._run("deletefile", temporary)
            raise

    def _require_size(self, temporary: str, nbytes: int, name: str) -> None:
        """Looks at what arrived: a stream that was cut off is taken for whole."""
        found = self._size(temporary, name, "write")
        if found != nbytes:
            message = f"{found} bytes arrived of {nbytes}"
            raise storage_error(self._operation(name, "write"), RequestFailure.FAILED, message)

    def _stream(self, command: list[str], name: str, pieces: list[Bytes]) -> None:
        with stopped_program(["rclone", *command, *_OPTIONS], feeds=True) as running:
            with contextlib.suppress(BrokenPipeError):
                for piece in pieces:
                    for start in range(0, len(piece), _PIECE_BYTES):
                        _pipe(running.stdin).write(piece[start : start + _PIECE_BYTES].data)
                _pipe(running.stdin).close()
            complaint = _pipe(running.stderr).read().decode(errors="replace")
            self._raise_if_failed(Ended(running.wait(), "", complaint), name, "write")

    def read(self, name: str) -> Bytes:
        """Returns a blob in memory of its own.

        Raises:
            StorageError: It is not there or cannot be read.
        """
        return patiently(lambda: self._read(name))

    def _read(self, name: str) -> Bytes:
        content = bytearray()
        with stopped_program(["rclone", "cat", self._target(name), *_OPTIONS]) as running:
            while piece := _pipe(running.stdout).read(_PIECE_BYTES):
                content += piece
            complaint = _pipe(running.stderr).read().decode(errors="replace")
            self._raise_if_failed(Ended(running.wait(), "", complaint), name, "read")
        if not content:
            # Of a bucket, what is missing reads like an empty folder.
            self._size(self._target(name), name, "read")
        return np.frombuffer(content, np.uint8)

    def list(self, folder: str) -> dict[str, int]:
        """Returns the names of the files in a folder and their sizes, {} when there is none."""
        return {k: v for k, v in self._listed(folder).items() if not is_temporary_name(k)}

    def _listed(self, folder: str) -> dict[str, int]:
        return patiently(lambda: self._listed_once(folder))

    def _listed_once(self, folder: str) -> dict[str, int]:
        ended = self._run(
            "lsjson", "--files-only", "--no-modtime", "--no-mimetype", self._target(folder)
        )
        if ended.code in _MISSING_CODES:
            return {}
        self._raise_if_failed(ended, folder, "list")
        return {entry["Name"]: int(entry["Size"]) for entry in json.loads(ended.stdout)}

    def delete(self, names: Iterable[str]) -> None:
        """Removes blobs; those already gone are no error."""
        for name in names:
            ended = self._run("deletefile", self._target(name))
            if ended.code and failure_of(ended.stderr) is not RequestFailure.MISSING:
                self._raise_if_failed(ended, name, "delete")

    def free_bytes(self) -> int | None:
        """Returns the room left, None where the service does not say."""
        ended = self._run("about", "--json", self._remote)
        if ended.code != 0:
            return None
        free: Any = json.loads(ended.stdout).get("free")
        return free if isinstance(free, int) else None

    def sweep(self) -> None:
        """Removes what writers that are gone have left unfinished."""
        with contextlib.suppress(StorageError):
            for folder in (".", "checkpoints", "shards"):
                left = [name for name in self._listed(folder) if is_left_behind(name)]
                self.delete(f"{folder}/{name}" for name in left)

    def _size(self, target: str, name: str, operation: str) -> int:
        ended = self._run("lsjson", "--stat", "--no-modtime", "--no-mimetype", target)
        self._raise_if_failed(ended, name, operation)
        entry = json.loads(ended.stdout)
        if entry is None or entry["IsDir"]:
            raise storage_error(self._operation(name, operation), RequestFailure.MISSING, "")
        return int(entry["Size"])

    def _run(self, *command: str) -> Ended:
        return run_program(["rclone", *command, *_OPTIONS], timeout_s=_SHORT_S)

    def _raise_if_failed(self, ended: Ended, name: str, operation: str) -> None:
        """Raises what a run of rclone complained of."""
        if ended.code == 0:
            return
        is_missing = ended.code in _MISSING_CODES
        words = f"{ended.said} {ended.stderr}".replace(self._base or "/", "")
        failure = RequestFailure.MISSING if is_missing else failure_of(words)
        raise storage_error(self._operation(name, operation), failure, ended.said)

    def _operation(self, name: str, operation: str) -> Operation:
        place = f"{self.location}/{name}".removesuffix("/.")
        return Operation(self.location, place, operation)

    def _target(self, name: str) -> str:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts:
            message = f"The name {name!r} leads out of {self.location}."
            raise StorageError(message, path=self.location, operation="open")
        return self._remote + "/".join(part for part in (self._base, *parts) if part)


def _pipe(pipe: IO[bytes] | None) -> IO[bytes]:
    assert pipe is not None  # noqa: S101  # it was asked for
    return pipe
