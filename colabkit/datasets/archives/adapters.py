"""Archives that another package reads: held to what their listing declares, as a zip is."""

from __future__ import annotations

import math
import os
from array import array
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from colabkit.datasets.archives.codecs import PIECE_BYTES, Password, errors, needed, text_password
from colabkit.datasets.archives.members import (
    ArchiveFile,
    FileTable,
    PathColumn,
    Remark,
    Remarks,
    UnpackedTable,
)
from colabkit.datasets.archives.names import check_clashes, folders_of
from colabkit.datasets.archives.safety import (
    Limits,
    Resolved,
    check_link,
    check_mode,
    parents,
    placed,
    resolve,
)
from colabkit.datasets.reading.progress import Counter
from colabkit.datasets.reading.source import Source
from colabkit.datasets.reading.wrappers import SourceFile
from colabkit.datasets.writing.small_files import crc32
from colabkit.datasets.writing.tree import Tree
from colabkit.errors import (
    ArchiveCorruptError,
    ArchivePasswordError,
    ColabKitError,
    MissingPackageError,
)
from colabkit.storage import hash_of

_NBYTES_MAX = 1 << 62
# A hard link, and a file that was packed once for two.
_SAME_CONTENT = frozenset({4, 5})
_HINT = "Upload or download the archive again."


class MemberFile:
    """One member on its way to the disk: ``write``, then ``finish``; ``close`` gives it up."""

    def __init__(
        self,
        tree: Tree,
        file: ArchiveFile,
        counter: Counter,
        manifest: UnpackedTable,
        time_s: float,
    ) -> None:
        self._tree = tree
        self._file = file
        self._counter = counter
        self._manifest = manifest
        self._time_s = time_s
        self._nbytes = 0
        self._crc = 0
        self._descriptor: int | None = tree.create(file.path, file.mode)

    @property
    def is_whole(self) -> bool:
        """Whether as much has come as was declared."""
        return self._nbytes == self._file.nbytes

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Appends a piece; raises where it is more than was declared."""
        path, declared = self._file.path, self._file.nbytes
        self._nbytes += len(data)
        if self._nbytes > declared:
            raise ArchiveCorruptError.of(
                path, f"unpacks to more than the {declared:,} bytes it declares"
            )
        view = memoryview(data)
        self._crc = crc32(view, self._crc)
        if self._descriptor is not None:
            self._tree.write(self._descriptor, view, path)
        self._counter.bytes_written += len(view)

    def finish(self) -> None:
        """Closes the file and checks it."""
        if self._descriptor is not None:
            self._tree.date(self._descriptor, self._time_s)
        self.close()
        crc = self._file.crc
        if not self.is_whole:
            why = f"unpacks to {self._nbytes:,} bytes instead of {self._file.nbytes:,}"
            raise ArchiveCorruptError.of(self._file.path, why)
        if crc is not None and crc != self._crc:
            raise ArchiveCorruptError.of(
                self._file.path, "has another CRC-32 than the archive says"
            )
        self._counter.files_done += 1
        self._manifest.add(self._file.path, self._nbytes, self._crc)

    def close(self) -> None:
        """Closes the file as it is."""
        descriptor, self._descriptor = self._descriptor, None
        if descriptor is not None:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class ListedMember:
    """What a package says of a member.

    ``mode`` is 0, ``crc`` None and ``time_s`` NaN where it is not known.
    """

    name: str
    nbytes: int
    crc: int | None
    mode: int
    is_folder: bool
    is_link: bool
    time_s: float = math.nan


@dataclass(frozen=True, slots=True)
class ListedPlan:
    """A listing that was found sound; ``names`` are the files as the package knows them."""

    files: FileTable
    folders: tuple[str, ...]
    links: Resolved
    names: tuple[str, ...]
    times: tuple[float, ...]
    digest: str


def plan_listed(
    members: Iterable[ListedMember],
    wanted: Callable[[str], bool] | None,
    limits: Limits,
    archive_bytes: int,
    remarks: Remarks,
    targets_of: Callable[[Mapping[str, str]], Mapping[str, str]],
) -> ListedPlan:
    """Checks every member.

    Args:
        members: All of them.
        wanted: Says which are taken.
        limits: What counts as a bomb.
        archive_bytes: The archive's size.
        remarks: Takes what is to be said of them.
        targets_of: Returns what links say, given by path and by the name that the package knows.

    Raises:
        ArchiveUnsafeError: A member would lead outside, or the archive is a bomb.
    """
    kept: list[ListedMember] = []
    paths = PathColumn()
    folders: dict[str, None] = {}
    linked: dict[str, str] = {}
    for member in members:
        path = placed(member.name, wanted, remarks)
        if path is None:
            continue
        check_mode(member.name, member.mode)
        if member.is_link:
            check_link(path, member.nbytes, len(linked))
            linked[path] = member.name
            continue
        if member.is_folder:
            folders |= dict.fromkeys([*reversed(list(parents(path))), path])
            continue
        if not 0 <= member.nbytes <= _NBYTES_MAX:
            message = f"Member {path!r} claims {member.nbytes:,} bytes."
            raise ArchiveCorruptError(message, member=path, hint="Download the archive again.")
        paths.append(path)
        kept.append(member)
    folders = folders_of(paths) | folders_of(linked) | folders
    check_clashes([*paths, *linked], folders)
    targets = targets_of(linked) if linked else {}
    links = resolve(targets, paths, folders)
    for path in links.left_out:
        remarks.add(Remark.LINK_LEFT_OUT, path)
    nbytes = array("q", (member.nbytes for member in kept))
    crcs = array("L", (member.crc or 0 for member in kept))
    known = all(member.crc is not None or not member.nbytes for member in kept)
    modes = array("H", (member.mode & 0o777 for member in kept))
    limits.check_table(paths, nbytes, archive_bytes)
    rows = [f"{path}|{m.nbytes}|{m.crc}" for path, m in zip(paths, kept, strict=True)]
    listing = "\n".join([*rows, *(f"{path}|{target}" for path, target in targets.items())])
    return ListedPlan(
        FileTable(paths, nbytes, crcs if known else None, modes),
        tuple(folders),
        links,
        tuple(member.name for member in kept),
        tuple(member.time_s for member in kept),
        hash_of(listing.encode(), str(archive_bytes).encode()),
    )


class Members(Protocol):
    """An open archive whose members are read one by one."""

    def open(self, index: int, path: str) -> AbstractContextManager[BinaryIO]:
        """Opens a member; raises one of the archive errors where it cannot."""
        ...


class StreamUnpacker:
    """Unpacks one member after the other."""

    def __init__(
        self,
        files: Sequence[ArchiveFile],
        times: Sequence[float],
        tree: Tree,
        done: Container[str],
    ) -> None:
        self.counter = Counter()
        self.manifest = UnpackedTable()
        self._files = files
        self._times = times
        self._tree = tree
        self._done = done

    def work(self, members: Members) -> None:
        """Unpacks all members; one thread's work."""
        for index, (file, time_s) in enumerate(zip(self._files, self._times, strict=True)):
            if file.path in self._done and file.crc is not None:
                self._tree.date(file.path, time_s)
                self.counter.add_done(file.nbytes)
                self.manifest.add(file.path, file.nbytes, file.crc)
                continue
            member = MemberFile(self._tree, file, self.counter, self.manifest, time_s)
            with closing(member), members.open(index, file.path) as stream:
                while piece := stream.read(PIECE_BYTES):
                    member.write(piece)
                member.finish()


class Rar:
    """A rar, read through the package rarfile and the program that it calls."""

    def __init__(
        self, source: Source, stream: BinaryIO, names: Sequence[str], password: Password
    ) -> None:
        # The program reads the file itself; of anything else rarfile makes a copy.
        with _rar_errors(""):
            self.rar: Any = _rarfile().RarFile(_path_of(source) or stream)
            if password is not None:
                self.rar.setpassword(text_password(password))
        self._names = names

    @contextmanager
    def open(self, index: int, path: str) -> Iterator[BinaryIO]:
        """Opens a member."""
        with _rar_errors(path), self.rar.open(self._names[index]) as stream:
            yield stream


def plan_rar(
    source: Source,
    wanted: Callable[[str], bool] | None,
    limits: Limits,
    password: Password,
    remarks: Remarks,
) -> ListedPlan:
    """Reads a rar's directory and checks every member.

    Raises:
        MissingPackageError: rarfile is not installed.
    """
    rar = Rar(source, SourceFile(source).buffered(), (), password).rar
    with rar, _rar_errors(""):
        if words := rar.strerror():
            # What came before is read all the same: a volume that is missing would go unseen.
            message = f"{source.name} is not whole ({words})."
            raise ArchiveCorruptError(message, hint="Put all its volumes beside it.")
        if rar.needs_password() and password is None:
            message = f"{source.name} is encrypted."
            raise ArchivePasswordError(message, hint="Pass password=.")
        members = [_member(rar, info) for info in rar.infolist()]

        def targets_of(linked: Mapping[str, str]) -> Mapping[str, str]:
            texts = {path: rar.read(name) for path, name in linked.items()}
            return {path: text.decode("utf-8", "replace") for path, text in texts.items()}

        return plan_listed(members, wanted, limits, source.nbytes, remarks, targets_of)


def _member(rar: Any, info: Any) -> ListedMember:
    """Returns a member; a copy of an earlier one, or a second name of it, as that content."""
    kind, _, target = getattr(info, "file_redir", None) or (0, 0, "")
    content = rar.getinfo(target) if kind in _SAME_CONTENT else info
    return ListedMember(
        name=info.filename or "",
        nbytes=-1 if content.file_size is None else content.file_size,
        crc=content.CRC,
        mode=_unix_mode(info),
        is_folder=info.is_dir(),
        is_link=info.is_symlink(),
        time_s=math.nan if info.mtime is None else info.mtime.timestamp(),
    )


def _path_of(source: Source) -> str | None:
    """Returns a source's path, by which the other volumes of an archive are found."""
    is_here = "://" not in source.name and Path(source.name).is_file()
    return source.name if is_here else None


def _unix_mode(info: Any) -> int:
    """Returns a member's mode where it was packed on Unix."""
    unix = 3 if type(info).__name__.startswith("Rar3") else 1
    return (info.mode or 0) & 0xFFFF if info.host_os == unix else 0


def _rarfile() -> Any:
    return needed("rarfile", "a rar")


@contextmanager
def _rar_errors(path: str) -> Iterator[None]:
    """Turns what rarfile raises into the errors of archives."""
    rarfile = _rarfile()
    where = f"Member {path!r}" if path else "The rar"
    try:
        yield
    except ColabKitError:
        raise
    except rarfile.RarCannotExec as error:
        message = f"{where} is packed; reading it needs the program unrar."
        hint = "Run !apt-get install -y unrar, then run the cell again."
        raise MissingPackageError(message, package="unrar", hint=hint) from error
    except (rarfile.PasswordRequired, rarfile.RarWrongPassword) as error:
        message = f"{where} needs another password."
        raise ArchivePasswordError(message, member=path, hint="Pass password=.") from error
    except (rarfile.Error, *_DAMAGES) as error:
        message = f"{where} cannot be unpacked ({type(error).__name__}: {error})."
        raise ArchiveCorruptError(message, member=path, hint=_HINT) from error


# An OSError is the disk's or the mount's here, as neither package decodes with one.
_DAMAGES = tuple(kind for kind in errors() if kind is not OSError)
