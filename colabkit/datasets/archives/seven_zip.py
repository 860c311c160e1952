"""7z archives, through the package py7zr."""

from __future__ import annotations

import io
import math
from collections.abc import Callable, Container, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any, BinaryIO

from colabkit.datasets.archives.adapters import ListedMember, ListedPlan, MemberFile, plan_listed
from colabkit.datasets.archives.codecs import Password, needed, text_password
from colabkit.datasets.archives.members import ArchiveFile, Remarks, UnpackedTable
from colabkit.datasets.archives.safety import Limits
from colabkit.datasets.reading.progress import Counter
from colabkit.datasets.reading.source import Source
from colabkit.datasets.reading.workers import WorkersStoppedError
from colabkit.datasets.reading.wrappers import SourceFile
from colabkit.datasets.writing.tree import Tree
from colabkit.errors import (
    ArchiveCorruptError,
    ArchivePasswordError,
    ArchiveUnsupportedError,
    ColabKitError,
)

_BY_7Z = "run !7z x ARCHIVE -oFOLDER, and pass the folder"
_FOR_PROGRAMS = {
    b"\x03\x03\x01\x03": "BCJ",
    b"\x03\x03\x02\x05": "PPC",
    b"\x03\x03\x04\x01": "IA64",
    b"\x03\x03\x05\x01": "ARM",
    b"\x03\x03\x07\x01": "ARMT",
    b"\x03\x03\x08\x05": "SPARC",
    b"\x0a": "ARM64",
}


def plan_7z(
    source: Source,
    wanted: Callable[[str], bool] | None,
    limits: Limits,
    password: Password,
    remarks: Remarks,
) -> ListedPlan:
    """Reads a 7z's directory and checks every member.

    Raises:
        MissingPackageError: py7zr is not installed.
    """
    with _opened(SourceFile(source).buffered(), password) as archive:
        if archive.needs_password() and password is None:
            message = f"{source.name} is encrypted."
            raise ArchivePasswordError(message, hint="Pass password=.")
        members = [
            ListedMember(
                name=file.filename,
                nbytes=int(file.uncompressed or 0),
                crc=file.crc32,
                mode=file.posix_mode or 0,
                is_folder=file.is_directory,
                is_link=file.is_symlink or file.is_junction or file.is_socket,
                time_s=_time_s(file),
            )
            for file in archive.files
        ]

        def targets_of(linked: Mapping[str, str]) -> Mapping[str, str]:
            texts = {path: bytearray() for path in linked}
            # What a link says is the content of its member, often of a block with many others.
            factory = _factory(lambda path, data: texts[path].extend(data))
            archive.extract(None, list(linked.values()), factory=factory)
            return {path: text.decode("utf-8", "replace") for path, text in texts.items()}

        return plan_listed(members, wanted, limits, source.nbytes, remarks, targets_of)


class SevenZipUnpacker:
    """The unpacking side of one 7z."""

    def __init__(
        self,
        files: Sequence[ArchiveFile],
        names: Sequence[str],
        times: Sequence[float],
        tree: Tree,
        done: Container[str],
        password: Password,
    ) -> None:
        self.counter = Counter()
        self.manifest = UnpackedTable()
        self._files = {file.path: file for file in files}
        self._times = dict(zip(self._files, times, strict=True))
        self._names = names
        self._tree = tree
        self._done = done
        self._password = password
        self._open: dict[str, MemberFile] = {}

    def work(self, stream: BinaryIO) -> None:
        """Unpacks all members; one thread's work."""
        targets = []
        for name, file in zip(self._names, self._files.values(), strict=True):
            if file.path in self._done and file.crc is not None:
                self._tree.date(file.path, self._times[file.path])
                self.counter.add_done(file.nbytes)
                self.manifest.add(file.path, file.nbytes, file.crc)
            elif file.nbytes:
                targets.append(name)
            else:
                self._begin(file.path).finish()
        try:
            with _opened(stream, self._password) as archive:
                archive.extract(None, targets, factory=_factory(self._write))
        finally:
            for member in self._open.values():
                member.close()
        if len(self.manifest) != len(self._files):
            message = f"The 7z gave {len(self.manifest):,} of {len(self._files):,} members."
            raise ArchiveCorruptError(message, hint="Upload or download it again.")

    def _write(self, path: str, data: bytes | bytearray) -> None:
        member = self._open.get(path)
        if member is None:
            member = self._open[path] = self._begin(path)
        member.write(data)
        # Older versions do not say when a member ends.
        if member.is_whole:
            del self._open[path]
            member.finish()

    def _begin(self, path: str) -> MemberFile:
        file = self._files.get(path)
        if file is None:
            message = f"The 7z gave {path!r}, which its directory does not have."
            raise ArchiveCorruptError(message, member=path, hint="Download it again.")
        return MemberFile(self._tree, file, self.counter, self.manifest, self._times[path])


def _time_s(file: Any) -> float:
    """Returns when a member was changed, NaN where the 7z does not tell."""
    ticks = file.lastwritetime
    return math.nan if ticks is None else float(ticks.totimestamp())


@contextmanager
def _opened(stream: BinaryIO, password: Password) -> Iterator[Any]:
    """Opens a 7z; what py7zr raises for damaged bytes becomes one error."""
    py7zr = needed("py7zr", "a 7z")
    begin = stream.tell()
    try:
        with py7zr.SevenZipFile(stream, "r", password=text_password(password)) as archive:
            yield archive
    except WorkersStoppedError:
        raise
    except py7zr.PasswordRequired as error:
        message = "The 7z is encrypted."
        raise ArchivePasswordError(message, hint="Pass password=.") from error
    except Exception as error:
        # A parser in Python that is fed with damaged bytes may raise anything.
        from_disk = isinstance(error, OSError) and error.errno is not None
        is_damage = isinstance(error, ArchiveCorruptError)
        if not is_damage and (from_disk or isinstance(error, ColabKitError)):
            raise
        stream.seek(begin)
        if password is not None and _is_encrypted(stream):
            raise _refused(error) from error
        if is_damage:
            raise
        if isinstance(error, py7zr.UnsupportedCompressionMethodError):
            message = "The 7z is packed with a filter for programs that py7zr does not know (BCJ2)."
            raise ArchiveUnsupportedError(message, hint=f"For its files {_BY_7Z}.") from error
        if "path is bad" in str(error):
            message = f"The 7z has a name that py7zr takes for one of Windows ({_words(error)})."
            raise ArchiveUnsupportedError(message, hint=f"For its files {_BY_7Z}.") from error
        message = f"The 7z cannot be unpacked ({_words(error)})."
        hint = "Upload or download it again."
        stream.seek(begin)
        if filters := _filters(stream):
            # It stumbles over the last few bytes behind one, though they are sound.
            hint = f"py7zr does not master {filters}: {_BY_7Z}; if that fails too, upload it again."
        raise ArchiveCorruptError(message, hint=hint) from error


def _is_encrypted(stream: BinaryIO) -> bool:
    """Whether a 7z that fails with a password asks for one at all."""
    py7zr = needed("py7zr", "a 7z")
    try:
        with py7zr.SevenZipFile(stream, "r") as archive:
            return bool(archive.needs_password())
    except py7zr.PasswordRequired:
        return True
    except Exception:  # noqa: BLE001 - damaged bytes: the error that is known already says so
        return False


def _filters(stream: BinaryIO) -> str:
    """Returns the filters for programs that a 7z is packed with, "" where it cannot be read."""
    py7zr = needed("py7zr", "a 7z")
    try:
        with py7zr.SevenZipFile(stream, "r") as archive:
            folders = archive.header.main_streams.unpackinfo.folders
            methods = {coder["method"] for folder in folders for coder in folder.coders}
    except Exception:  # noqa: BLE001 - damaged or encrypted: the error that is known says so
        return ""
    return ", ".join(name for method, name in _FOR_PROGRAMS.items() if method in methods)


def _refused(error: Exception) -> ArchivePasswordError:
    """Returns the error for a wrong password: a 7z has nothing to tell it by but its content."""
    message = f"The 7z cannot be unpacked with this password ({_words(error)})."
    hint = "Check the password. If it is right, the archive is damaged: upload it again."
    return ArchivePasswordError(message, hint=hint)


def _words(error: Exception) -> str:
    if isinstance(error, ColabKitError):
        return str(error.args[0]).rstrip(".") if error.args else type(error).__name__
    return f"{type(error).__name__}: {error}" if str(error) else type(error).__name__


def _factory(write: Callable[[str, bytes | bytearray], None]) -> Any:
    """Returns what py7zr asks for the files to write to."""

    class Writer:
        """One member, as py7zr wants to see it."""

        def __init__(self, name: str) -> None:
            self._name = name
            self._nbytes = 0

        def write(self, data: bytes | bytearray) -> int:
            write(self._name, data)
            self._nbytes += len(data)
            return len(data)

        def read(self, size: int | None = None) -> bytes:
            raise io.UnsupportedOperation(size)

        def seek(self, offset: int, whence: int = 0) -> int:
            return offset + whence

        def flush(self) -> None:
            """Nothing waits."""

        def size(self) -> int:
            return self._nbytes

        def close(self) -> None:
            """The last byte has closed the file."""

    class Factory:
        """Makes the writers."""

        def create(self, filename: str) -> Writer:
            return Writer(filename)

    return Factory()
