"""Any place that fsspec knows as a volume: buckets, repositories, servers."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import PurePosixPath
from typing import Any

import numpy as np

from colabkit.errors import ArgumentError, MissingPackageError, StorageError
from colabkit.storage.outages import patiently
from colabkit.storage.request_failures import (
    Operation,
    RequestFailure,
    failure_of,
    storage_error,
    words_of,
)
from colabkit.storage.temporary_names import is_left_behind, is_temporary_name, temporary_name
from colabkit.storage.urls import protocol_of, url_of
from colabkit.storage.volume import Bytes

# What is put there appears whole or not at all; elsewhere a file grows under its name.
_PUT_WHOLE = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss", "hf", "memory"}
_IN_BUCKETS = {"s3", "s3a", "gs", "gcs", "abfs", "abfss", "az", "oci", "oss"}
_IN_PARTS = {"s3", "s3a", "gs", "gcs"}
_PART_BYTES = 32 << 20
_READ_BYTES = 16 << 20
_READERS = 4
_PINNED_TO_FSSPEC = ("s3fs", "gcsfs")


class FsspecVolume:
    """Blobs below a URL; each appears under its name whole, and is durable when it does.

    Args:
        url: "s3://bucket/run", "gs://…", "hf://…", or any other that fsspec knows.
        part_bytes: Large blobs go to a bucket in parts of this size.

    Raises:
        ArgumentError: fsspec knows no such protocol.
        MissingPackageError: The package for it is not installed.
    """

    is_slow = True
    root = None  # no path leads there

    def __init__(self, url: str, *, part_bytes: int = _PART_BYTES) -> None:
        self.location = url_of(url) or url.rstrip("/")
        self._protocol = protocol_of(url)
        self._part_bytes = part_bytes
        self._folders: set[str] = set()
        self._container_seen = self._protocol not in _IN_BUCKETS
        self._files, self._base = patiently(lambda: _opened(self.location))

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
        path, pieces = self._path(name), list(parts)
        nbytes = sum(map(len, pieces))
        with self._explained(name, "write"):
            if self._protocol not in _PUT_WHOLE:
                self._put_aside_first(path, pieces, nbytes)
                return
            if self._protocol in _IN_PARTS and nbytes > self._part_bytes:
                self._put_in_parts(path, pieces)
            else:
                self._files.pipe_file(path, b"".join(piece.data for piece in pieces))
            self._require_size(path, nbytes)

    def _put_in_parts(self, path: str, pieces: list[Bytes]) -> None:
        """Keeps one part in memory, not the whole blob once more."""
        file = self._files.open(path, "wb", block_size=self._part_bytes, autocommit=False)
        try:
            for piece in pieces:
                for start in range(0, len(piece), self._part_bytes):
                    file.write(piece[start : start + self._part_bytes].tobytes())
            file.close()
            file.commit()
        except BaseException:
            file.closed = True  # its destructor would publish what there is
            with contextlib.suppress(Exception):
                file.discard()
            raise

    def _put_aside_first(self, path: str, pieces: list[Bytes], nbytes: int) -> None:
        folder = str(PurePosixPath(path).parent)
        if folder not in self._folders:
            self._files.makedirs(folder, exist_ok=True)
            self._folders.add(folder)
        temporary = f"{folder}/{temporary_name()}"
        try:
            with self._files.open(temporary, "wb") as file:
                for piece in pieces:
                    for start in range(0, len(piece), _READ_BYTES):
                        file.write(piece[start : start + _READ_BYTES].data)
            self._require_size(temporary, nbytes)
            self._files.mv(temporary, path)
        except BaseException:
            with contextlib.suppress(Exception):
                self._files.rm_file(temporary)
            raise

    def _require_size(self, path: str, nbytes: int) -> None:
        self._files.invalidate_cache(path)
        found = self._files.info(path)["size"]
        if found != nbytes:
            message = f"{path} has {found} bytes instead of the {nbytes} that were written."
            raise OSError(message)

    def read(self, name: str) -> Bytes:
        """Returns a blob in memory of its own, read in parallel.

        Raises:
            StorageError: It is not there or cannot be read.
        """
        return patiently(lambda: self._read(name))

    def _read(self, name: str) -> Bytes:
        path = self._path(name)
        with self._explained(name, "read"):
            self._files.invalidate_cache(path)
            data = np.empty(self._files.info(path)["size"], np.uint8)

            def read_piece(start: int) -> None:
                end = min(start + _READ_BYTES, len(data))
                piece = self._files.cat_file(path, start=start, end=end)
                if len(piece) != end - start:
                    message = f"{path} became shorter while it was read."
                    raise OSError(message)
                data[start:end] = np.frombuffer(piece, np.uint8)

            starts = range(0, len(data), _READ_BYTES)
            if len(starts) == 1:
                read_piece(0)
            elif starts:
                with ThreadPoolExecutor(min(_READERS, len(starts)), "colabkit-read") as readers:
                    list(readers.map(read_piece, starts))
        return data

    def list(self, folder: str) -> dict[str, int]:
        """Returns the names of the files in a folder and their sizes, {} when there is none."""
        return {k: v for k, v in self._listed(folder).items() if not is_temporary_name(k)}

    def _listed(self, folder: str) -> dict[str, int]:
        return patiently(lambda: self._listed_once(folder))

    def _listed_once(self, folder: str) -> dict[str, int]:
        path = self._path(folder)
        with self._explained(folder, "list"):
            self._files.invalidate_cache(path)
            try:
                entries = self._files.ls(path, detail=True)
            except FileNotFoundError:
                # A bucket that is not there holds no checkpoints, but is no new run either.
                self._require_container()
                return {}
            self._container_seen = True
            return {
                entry["name"].rstrip("/").rpartition("/")[2]: int(entry["size"] or 0)
                for entry in entries
                if entry["type"] == "file" and entry["name"].strip("/") != path.strip("/")
            }

    def delete(self, names: Iterable[str]) -> None:
        """Removes blobs; those already gone are no error."""
        for name in names:
            with self._explained(name, "delete"), contextlib.suppress(FileNotFoundError):
                self._files.rm_file(self._path(name))

    def free_bytes(self) -> int | None:
        """Returns None: services do not say how much room is left."""
        return None

    def sweep(self) -> None:
        """Removes what writers that are gone have left unfinished."""
        with contextlib.suppress(StorageError):
            if self._protocol in _PUT_WHOLE:
                self._abort_uploads()
                return
            for folder in (".", "checkpoints", "shards"):
                left = [name for name in self._listed(folder) if is_left_behind(name)]
                self.delete(f"{folder}/{name}" for name in left)

    def _abort_uploads(self) -> None:
        """Gives up uploads in parts that were cut off: a bucket keeps and bills them."""
        if self._protocol not in {"s3", "s3a"}:
            return
        with self._explained(".", "list"):
            bucket, _, prefix = self._base.partition("/")
            for upload in self._files.list_multipart_uploads(bucket):
                if upload["Key"].startswith(f"{prefix}/"):
                    wanted = {"Key": upload["Key"], "UploadId": upload["UploadId"]}
                    self._files.call_s3("abort_multipart_upload", Bucket=bucket, **wanted)

    def _require_container(self) -> None:
        if self._container_seen:
            return
        bucket = self._base.partition("/")[0]
        # Who may not look at the bucket itself has been answered about what is in it.
        with contextlib.suppress(PermissionError):
            try:
                self._files.info(bucket)
            except FileNotFoundError:
                # Older s3fs says so of an empty bucket, too, but lists it.
                self._files.ls(bucket)
        self._container_seen = True

    def _path(self, name: str) -> str:
        parts = PurePosixPath(name).parts
        if name.startswith("/") or ".." in parts:
            message = f"The name {name!r} leads out of {self.location}."
            raise StorageError(message, path=self.location, operation="open")
        return "/".join((self._base, *parts))

    @contextlib.contextmanager
    def _explained(self, name: str, operation: str) -> Iterator[None]:
        asked = Operation(self.location, f"{self.location}/{name}".removesuffix("/."), operation)
        try:
            yield
        except (StorageError, MemoryError):
            raise
        # Each service brings errors of its own, few of which are even OSErrors.
        except Exception as error:
            # A path may have words in it that mean something elsewhere.
            words = [word.replace(self._base, "") for word in words_of(error)]
            failure = failure_of(*words)
            is_container = failure is RequestFailure.MISSING and operation in {"list", "write"}
            if is_container and self._protocol in _IN_BUCKETS:
                failure = RequestFailure.NO_CONTAINER
            raise storage_error(asked, failure, str(error)) from error


def _opened(url: str) -> tuple[Any, str]:
    """Returns fsspec's file system for a URL, and the path in it."""
    import fsspec
    from fsspec.registry import known_implementations

    protocol = protocol_of(url)
    try:
        # An instance of its own: one kept from before would keep its sign-in, too.
        files, base = fsspec.core.url_to_fs(url, skip_instance_cache=True)
    except ValueError as error:
        message = f"{url!r} begins with {protocol!r}, which fsspec does not know."
        hint = 'Pass a folder, or a URL such as "gs://bucket/run" or "s3://bucket/run".'
        raise ArgumentError(message, argument="path", hint=hint) from error
    except ImportError as error:
        package = error.name or protocol
        known = known_implementations.get(protocol, {}).get("class", "")
        package = known.partition(".")[0] or package
        exact = f"=={fsspec.__version__}" if package in _PINNED_TO_FSSPEC else ""
        message = f"{url!r} needs the package {package}, which is not installed."
        hint = f'Run: pip install "{package}{exact}"'
        raise MissingPackageError(message, package=package, hint=hint) from error
    except Exception as error:
        failure = failure_of(*words_of(error))
        raise storage_error(Operation(url, url, "open"), failure, str(error)) from error
    base = base.rstrip("/")
    if not base.strip("/"):
        message = f"{url!r} names no place."
        raise ArgumentError(message, argument="path", hint=f'Pass "{protocol}://bucket/run".')
    return files, base
