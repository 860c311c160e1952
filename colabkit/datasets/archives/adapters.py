"""Archives that another package unpacks member by member: rar."""

from __future__ import annotations

import math
from collections.abc import Callable, Container, Iterator, Sequence
from contextlib import AbstractContextManager, closing, contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Protocol

from colabkit.datasets.archives.codec_streams import ERRORS, PIECE_BYTES
from colabkit.datasets.archives.codecs import Password, needed, text_password
from colabkit.datasets.archives.limits import Limits
from colabkit.datasets.archives.listed_member_file import MemberFile
from colabkit.datasets.archives.listed_planning import ListedMember, ListedPlan, plan_listed
from colabkit.datasets.archives.members import ArchiveFile, UnpackedTable
from colabkit.datasets.archives.remarks import Remarks
from colabkit.datasets.reading.source import Source
from colabkit.datasets.reading.source_file import SourceFile
from colabkit.datasets.reading.transfer_progress import Counter
from colabkit.datasets.writing.tree import Tree
from colabkit.errors import (
    ArchiveCorruptError,
    ArchivePasswordError,
    ColabKitError,
    MissingPackageError,
)

_HINT = "Upload or download the archive again."


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
        members = [
            ListedMember(
                name=info.filename or "",
                nbytes=-1 if info.file_size is None else info.file_size,
                crc=info.CRC,
                mode=_unix_mode(info),
                is_folder=info.is_dir(),
                is_link=info.is_symlink() or bool(getattr(info, "file_redir", None)),
                time_s=math.nan if info.mtime is None else info.mtime.timestamp(),
            )
            for info in rar.infolist()
        ]
    return plan_listed(members, wanted, limits, source.nbytes, remarks)


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
_DAMAGES = tuple(kind for kind in ERRORS if kind is not OSError)
