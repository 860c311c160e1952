"""pack(): a folder of many small files becomes one archive, kept fresh."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import time
import uuid
import zipfile
from collections.abc import Iterator
from pathlib import Path

from colabkit.datasets.archives.names import decoded, encoding_of
from colabkit.datasets.archives.safety import Limits, member_path
from colabkit.datasets.cache.publishing import sync_folder
from colabkit.datasets.cache.slots import run_with_progress
from colabkit.datasets.folders.listing import FolderReader, Listing, list_folder, unreadable
from colabkit.datasets.other_names import OF_PACK
from colabkit.datasets.packing.pieces import OlderPack, is_pack
from colabkit.datasets.packing.zip_packer import ZipPacker
from colabkit.datasets.reading.progress import Phase, Watch
from colabkit.datasets.reading.retrying import Retrier, Retry
from colabkit.datasets.resolve import SourceKind, find_source
from colabkit.errors import (
    ArchiveUnsafeError,
    ArgumentError,
    ColabKitError,
    DatasetChangedError,
    DatasetNotFoundError,
    DestinationTakenError,
    DiskFullError,
    StorageError,
)
from colabkit.notebook import (
    Printed,
    Silent,
    Speaker,
    TransferBar,
    bytes_words,
    files_words,
    lasted_words,
)
from colabkit.other_names import answering
from colabkit.storage import FULL, asked, locate, mount_of

_TEMPORARY = ".colabkit-pack-"
_STALE_S = 3600.0
# A file system's clock may lag by a tick: a file written just before counts as written later.
_CLOCK_LAG_NS = 10_000_000


@dataclasses.dataclass(frozen=True, slots=True)
class Packed:
    """What packing did.

    Attributes:
        is_new: Whether an archive was written; False when the one there was fresh.
        n_files: Number of files in it.
        nbytes: Their sizes added up.
        archive_bytes: The archive's size.
        reused: Files taken over from the archive that was there before.
    """

    is_new: bool
    n_files: int
    nbytes: int
    archive_bytes: int
    reused: int


@answering(OF_PACK)
def pack(
    folder: str | os.PathLike[str],
    archive: str | os.PathLike[str],
    *,
    progress: bool = True,
) -> Path:
    """Packs a folder of many small files into one zip archive.

    Text is deflated and what does not shrink is stored; the same files with the same times
    give the same bytes. The archive is verified and appears under its name when it is whole.
    When it is there already and no file has changed, nothing is written; when some have, only
    these are read.

    Args:
        folder: The folder.
        archive: The archive to write, named ``*.zip``; one that was packed before is replaced.
        progress: False shows and says nothing.

    Returns:
        The archive.

    Raises:
        ArgumentError: The archive has no name of a zip, or lies in the folder.
        DatasetNotFoundError: There is no such folder.
        DestinationTakenError: The archive is there and was not packed by colabkit.
        UnsafeLinkError: A link in the folder leads outside.
        DatasetChangedError: A file changed while it was read.
        DiskFullError: The archive's disk is full.
        StorageError: A file cannot be read; it is named.

    Example:
        >>> colabkit.pack("MyDrive/cats", "MyDrive/cats.zip")  # doctest: +SKIP
    """
    root, target = _checked(folder, archive)
    began_s = time.monotonic()
    speaker: Speaker = Printed() if progress else Silent()
    watch = Watch()
    retrier = Retrier(watch, location=str(root), mount=asked(lambda: mount_of(root)))
    bar = TransferBar(target.name, progress=progress)

    def work() -> Packed:
        listing, listed_ns = _listed(root, watch, retrier.retry)
        return pack_listed(
            root, listing, target, listed_ns=listed_ns, watch=watch, retry=retrier.retry
        )

    try:
        packed = run_with_progress(work, watch=watch, retrier=retrier, bar=bar)
    except ColabKitError:
        raise
    except FileNotFoundError as error:
        message = f"{error.filename or root} went away while {root} was packed."
        hint = "Run this again once nobody changes the folder; no archive was written."
        raise DatasetChangedError(message, path=error.filename or root, hint=hint) from error
    except OSError as error:
        raise unreadable(error.filename or root, error) from error
    finally:
        bar.close()
    speaker.say(pack_words(packed, target, lasted_s=time.monotonic() - began_s))
    return target


def pack_listed(
    root: Path,
    listing: Listing,
    target: Path,
    *,
    listed_ns: int,
    watch: Watch,
    retry: Retry,
    reader: FolderReader | None = None,
) -> Packed:
    """Writes the archive of a folder that was listed, unless the one there is fresh.

    Args:
        root: The folder.
        listing: What it holds.
        target: The archive.
        listed_ns: When listing it began, in ns since the epoch.
        watch: Is told how far it is.
        retry: Called when the folder does not answer.
        reader: The calls to read the folder by.
    """
    n_files, nbytes = len(listing.files), listing.nbytes
    reader = reader or FolderReader()
    # The time of the listing, not of now: what changed since then is not in it.
    times_ns = (listed_ns, listed_ns - _CLOCK_LAG_NS)
    _check_can_be_taken_back(root, listing)
    with _older(target) as older:
        if older is not None:
            older.compare(root, listing, reader=reader, retry=retry, watch=watch)
        if older is not None and older.is_fresh(listing):
            if older.is_older:
                # Else the next call would read them again, as it does where this is not allowed.
                with contextlib.suppress(OSError):
                    os.utime(target, ns=times_ns)
            return Packed(False, n_files, nbytes, target.stat().st_size, n_files)
        watch.begin(Phase.PACKING, bytes_total=nbytes, files_total=n_files)
        with _temporary_file(target) as (temporary, descriptor):
            packer = ZipPacker(
                descriptor,
                watch=watch,
                retry=retry,
                reader=reader,
                older=older,
            )
            packer.write(root, listing)
            watch.begin(Phase.CHECKING, bytes_total=packer.nbytes)
            packer.verify()
            os.utime(descriptor, ns=times_ns)
            temporary.replace(target)
    sync_folder(target.parent)
    return Packed(True, n_files, nbytes, packer.nbytes, packer.reused)


def pack_words(packed: Packed, target: Path, *, lasted_s: float) -> str:
    """Returns what packing did, as one sentence."""
    if not packed.n_files:
        return f"The folder is empty: {target} holds no file. Check the folder's path."
    size = f"{files_words(packed.n_files)} ({bytes_words(packed.nbytes)})"
    if not packed.is_new:
        return f"{target} is fresh: {size}, none of them changed."
    reused = f", {packed.reused:,} of them taken from the one before" if packed.reused else ""
    return (
        f"Packed {size}{reused} into {target} ({bytes_words(packed.archive_bytes)})"
        f" in {lasted_words(lasted_s)}."
    )


def _checked(folder: str | os.PathLike[str], archive: str | os.PathLike[str]) -> tuple[Path, Path]:
    found = find_source(os.fspath(folder))
    if found.error is not None:
        raise found.error
    if found.kind is not SourceKind.FOLDER:
        message = f"{os.fspath(folder)} is not a folder."
        raise ArgumentError(message, argument="folder", hint="Pass the folder to pack.")
    root = Path(found.paths[0])
    return root, asked(lambda: _checked_target(root, os.fspath(archive)))


def _checked_target(root: Path, archive: str) -> Path:
    target = locate(archive).absolute()
    if target.suffix.lower() != ".zip":
        message = f"The archive is a zip, and {target.name!r} does not end in .zip."
        hint = f"Name it {target.with_suffix('.zip').name!r}."
        raise ArgumentError(message, argument="archive", hint=hint)
    if target.resolve().is_relative_to(root.resolve()):
        message = f"The archive {target} would lie in the folder that it packs."
        raise ArgumentError(message, argument="archive", hint="Put it beside the folder.")
    if not target.parent.is_dir():
        message = f"There is no folder {target.parent} for the archive."
        raise DatasetNotFoundError(message, path=target.parent, hint="Make it first.")
    check_target(target)
    return target


def _check_can_be_taken_back(root: Path, listing: Listing) -> None:
    """Refuses what ``dataset`` would not take back as it was, and says which file."""
    for file in listing.files:
        try:
            path, remark = member_path(file.path)
        except ArchiveUnsafeError as error:
            raise _not_text(root, file.path) from error
        if remark is not None or path != file.path:
            message = f"{root / file.path} has a name that no archive gives back as it is."
            raise ArgumentError(message, argument="folder", hint="Give it a shorter one.")
    empty = [file.path for file in listing.files if not file.nbytes]
    Limits().check_counts(len(listing.files), len(empty), member=empty[0] if empty else "")
    Limits().check_bytes(listing.nbytes, listing.nbytes, member=str(root))


def _not_text(root: Path, path: str) -> ArgumentError:
    raw = os.fsencode(path)
    encoding = encoding_of([raw])
    shown = raw.decode("utf-8", "backslashreplace")
    message = (
        f"The name {shown!r} in {root} is no UTF-8, and a zip cannot keep it;"
        f" in {encoding} it reads {decoded(raw, encoding)!r}."
    )
    hint = (
        f"Run !convmv -r -f {encoding} -t utf8 --notest on the folder, or unpack its archive anew:"
        " dataset() reads such names."
    )
    return ArgumentError(message, argument="folder", hint=hint)


def check_target(target: Path) -> None:
    """Refuses to replace anything but an archive that was packed before.

    Raises:
        DestinationTakenError: Something else lies there.
    """
    if os.path.lexists(target) and not is_pack(target):
        message = f"{target} is there and was not packed by colabkit."
        raise DestinationTakenError(
            message, path=target, hint="It is left as it is: pass another name."
        )


def _listed(root: Path, watch: Watch, retry: Retry) -> tuple[Listing, int]:
    listed_ns = time.time_ns()
    return list_folder(root, check=watch.check, retry=retry), listed_ns


@contextlib.contextmanager
def _older(target: Path) -> Iterator[OlderPack | None]:
    try:
        older = OlderPack(target)
    except (FileNotFoundError, zipfile.BadZipFile):
        yield None
        return
    try:
        yield older
    finally:
        older.close()


@contextlib.contextmanager
def _temporary_file(target: Path) -> Iterator[tuple[Path, int]]:
    """Yields a new file beside the target; it is removed unless it got the target's name."""
    for stale in target.parent.glob(f"{_TEMPORARY}*"):
        with contextlib.suppress(OSError):
            if time.time() - stale.stat().st_mtime > _STALE_S:
                stale.unlink()
    temporary = target.parent / f"{_TEMPORARY}{os.getpid()}-{uuid.uuid4().hex[:8]}"
    try:
        descriptor = os.open(temporary, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o644)
        try:
            yield temporary, descriptor
        finally:
            os.close(descriptor)
    except OSError as error:
        if isinstance(error, StorageError):
            raise
        if error.errno in FULL:
            message = f"The disk of {target} is full; no archive was written."
            hint = "Make room there, or pack to another disk."
            raise DiskFullError(message, path=target, hint=hint) from error
        if error.errno in {errno.EROFS, errno.EACCES, errno.EPERM}:
            message = f"{target.parent} cannot be written to: {os.strerror(error.errno)}."
            hint = "Pass an archive in a folder that you may write to."
            raise StorageError(message, path=target, operation="write", hint=hint) from error
        raise
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()
