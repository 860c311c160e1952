"""Where a dataset lies on this machine, which processes use it, and how they wait for it."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import fcntl
import json
import logging
import os
import re
import stat
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TypeVar

from colabkit.datasets.reading.progress import Phase, Standing, Watch
from colabkit.datasets.reading.retrying import Retrier
from colabkit.errors import StorageError
from colabkit.notebook import Transfer, TransferBar
from colabkit.runtime import Platform, detect_platform
from colabkit.storage import FULL

SIDE_NAME = ".colabkit"
_KEPT_CHARACTERS = 60
_logger = logging.getLogger(__name__)
_held: dict[tuple[int, int], int] = {}
_guard = threading.Lock()
Result = TypeVar("Result")
_POLL_S = 0.1
_TELL_PERIOD_S = 0.5
_STOP_TIMEOUT_S = 2.0
# What flock answers where a file system has no locks.
_LOCKLESS = frozenset({errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP, errno.ENOTSUP, errno.EINVAL})


@dataclasses.dataclass(frozen=True, slots=True)
class Slot:
    """The place of one dataset.

    Everything colabkit notes lies beside the folder, never in it: the folder holds the
    archive's files and nothing else.

    Attributes:
        folder: The published folder.
    """

    folder: Path

    @property
    def side(self) -> Path:
        """The folder of what belongs to this dataset and is not of it."""
        return self.folder.parent / SIDE_NAME / self.folder.name

    @property
    def manifest(self) -> Path:
        """What was published, or is about to be."""
        return self.side / "manifest"

    @property
    def lock(self) -> Path:
        """Held by the one process that works on this dataset."""
        return self.side / "lock"

    @property
    def work(self) -> Path:
        """What is not whole yet."""
        return self.side / "work"

    @property
    def progress_file(self) -> Path:
        """How far the process that holds the lock is."""
        return self.side / "progress.json"

    @property
    def trash(self) -> Path:
        """What waits to be deleted."""
        return self.folder.parent / SIDE_NAME / ".trash"


def cache_folder(
    platform: Platform | None = None, environ: Mapping[str, str] | None = None
) -> Path:
    """Returns the folder that datasets are unpacked into on this machine.

    Example:
        >>> cache_folder(Platform.COLAB, {})
        PosixPath('/content/datasets')
    """
    environ = os.environ if environ is None else environ
    platform = detect_platform() if platform is None else platform
    if chosen := environ.get("COLABKIT_CACHE"):
        return Path(chosen).expanduser().absolute() / "datasets"
    if platform in {Platform.COLAB, Platform.COLAB_ENTERPRISE}:
        return Path("/content/datasets")
    if platform is Platform.KAGGLE:
        return Path("/kaggle/temp")
    base = environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(base).absolute() / "colabkit" / "datasets"


def slot_for(
    source: str,
    selection: tuple[str, ...] | None,
    dest: str | os.PathLike[str] | None,
    *,
    cache: Path,
) -> Slot:
    """Returns the place of a dataset: ``dest``, or one of its own in the cache.

    Example:
        >>> slot_for("/d/cats.tar.gz", None, None, cache=Path("/content/datasets")).folder.name
        'cats-bf737672'
    """
    if dest is not None:
        return Slot(Path(dest).expanduser().resolve())
    import hashlib  # with OpenSSL; a folder that is given needs none

    told = hashlib.sha256(json.dumps([source, selection]).encode()).hexdigest()[:8]
    return Slot(cache / f"{_stem(source)}-{told}")


def _stem(source: str) -> str:
    name = re.split(r"[?#]", source.rstrip("/"))[0].rpartition("/")[2]
    name = re.sub(r"(\.(tar|tgz|tbz2?|txz|zip|gz|bz2|xz|zst|7z|rar))+$", "", name, flags=re.I)
    return re.sub(r"[^\w.-]+", "_", name).strip("._")[:_KEPT_CHARACTERS] or "dataset"


@contextlib.contextmanager
def alone_at(path: Path, *, wait: Callable[[], None] | None = None) -> Iterator[bool]:
    """Holds a lock until the end of the block, or until this process has ended in whatever way.

    Args:
        path: The lock's file, made where it is not there; it stays.
        wait: Called again and again while another process holds it; by default nobody waits.

    Yields:
        Whether it is held.
    """
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    descriptor = os.open(path, flags, 0o644)
    try:
        descriptor = _lockable(descriptor)
        while not (is_held := _taken(descriptor)) and wait is not None:
            wait()
        try:
            yield is_held
        finally:
            # A process forked meanwhile has the descriptor too, and would hold it on.
            fcntl.flock(descriptor, fcntl.LOCK_UN)
    finally:
        os.close(descriptor)


def _taken(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def has_locks(path: Path) -> bool:
    """Whether the disk that a file or folder lies on has locks, which several machines heed."""
    descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
    try:
        return _has_locks(descriptor)
    finally:
        os.close(descriptor)


def _has_locks(descriptor: int) -> bool:
    try:
        fcntl.flock(descriptor, fcntl.LOCK_UN)
    except OSError as error:
        if error.errno not in _LOCKLESS:
            raise
        return False
    return True


def _lockable(descriptor: int) -> int:
    """Returns a descriptor that stands for a file in locks: itself, where its disk has any.

    Some mounts have none, as NFS without its lock service, Lustre as a rule, and some of FUSE:
    there a file in this machine's temporary folder stands for it, under its number, which a
    renaming leaves as it is. The given one is closed then.
    """
    if _has_locks(descriptor):
        return descriptor
    import tempfile  # hardly any disk is without locks

    folder = Path(tempfile.gettempdir()) / f"colabkit-locks-{os.getuid()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if not stat.S_ISDIR(status.st_mode) or status.st_uid != os.getuid():
        # Everybody may write there: who made it could hold our locks, or lead us elsewhere.
        why = f"locks would lie in {folder}, which is somebody else's: remove it, or set TMPDIR"
        raise PermissionError(errno.EPERM, why)
    name = "-".join(map(str, _key(descriptor)))
    flags = os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW
    other = os.open(folder / name, flags, 0o600)
    os.close(descriptor)
    return other


def hold(folder: Path) -> bool:
    """Marks a folder as used until this process and those forked from it have ended.

    The lock is on the folder itself, so it follows a rename, and the system lets go of it
    when the process dies in whatever way.

    Returns:
        Whether the folder is there to be used: False while another process takes it away.
    """
    with _guard:
        try:
            descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        except FileNotFoundError:
            return False
        key = _key(descriptor)
        try:
            if key not in _held:
                descriptor = _lockable(descriptor)
                fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
                _held[key], descriptor = descriptor, -1
        except BlockingIOError:
            return False
        except OSError:
            _logger.debug("This file system has no locks for %s.", folder, exc_info=True)
        finally:
            if descriptor >= 0:
                os.close(descriptor)
        if _is_at(folder, key):
            return True
        # It was taken away between the two calls.
        if (held := _held.pop(key, None)) is not None:
            os.close(held)
        return False


def let_go(folder: Path) -> None:
    """Takes this process's own mark off a folder."""
    with _guard, contextlib.suppress(FileNotFoundError):
        status = folder.stat()
        descriptor = _held.pop((status.st_dev, status.st_ino), None)
        if descriptor is not None:
            os.close(descriptor)


@contextlib.contextmanager
def alone_with(folder: Path) -> Iterator[bool]:
    """Yields whether no process uses a folder, and keeps it so until the end of the block."""
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            descriptor = _lockable(descriptor)
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            yield False
        else:
            yield True
    finally:
        os.close(descriptor)


def _is_at(folder: Path, key: tuple[int, int]) -> bool:
    try:
        status = folder.stat()
    except FileNotFoundError:
        return False
    return (status.st_dev, status.st_ino) == key


def _key(descriptor: int) -> tuple[int, int]:
    status = os.fstat(descriptor)
    return status.st_dev, status.st_ino


@contextlib.contextmanager
def locked(slot: Slot, bar: TransferBar) -> Iterator[bool]:
    """Holds a dataset's lock; shows how far its holder is while it waits.

    Yields:
        Whether it had to wait.
    """
    waited = False

    def wait() -> None:
        nonlocal waited
        waited = True
        bar.update(_transfer(_standing_in(slot.progress_file), waiting=True))
        time.sleep(_POLL_S)

    with contextlib.ExitStack() as stack:
        try:
            slot.side.mkdir(parents=True, exist_ok=True)
            stack.enter_context(alone_at(slot.lock, wait=wait))
        except OSError as error:
            if error.errno in FULL:
                raise
            message = f"{slot.folder.parent} cannot be written to: {error.strerror or error}."
            hint = "Pass dest= in a folder that you may write to, or set COLABKIT_CACHE to one."
            raise StorageError(message, path=slot.folder, operation="write", hint=hint) from error
        yield waited


def run_with_progress(
    work: Callable[[], Result],
    *,
    watch: Watch,
    retrier: Retrier,
    bar: TransferBar,
    progress_file: Path | None = None,
) -> Result:
    """Does the work on a thread, while this one shows it, mounts again, and heeds Ctrl-C.

    Args:
        work: What to do; it passes ``watch`` often.
        watch: Says how far it is.
        retrier: Mounts again on this thread.
        bar: Shows it.
        progress_file: Where to note it for processes that wait.

    Raises:
        BaseException: What the work raised.
    """
    results: list[Result] = []
    failures: list[BaseException] = []
    # A join that Ctrl-C breaks marks the thread as ended although it runs (Python < 3.13).
    ended = threading.Event()

    def run() -> None:
        try:
            results.append(work())
        except BaseException as error:  # noqa: BLE001 - raised again on the caller's thread
            failures.append(error)
        finally:
            ended.set()

    worker = threading.Thread(target=run, name="colabkit-dataset", daemon=True)
    worker.start()
    noted_s = 0.0
    has_ended = False
    try:
        while not has_ended:
            has_ended = ended.wait(_POLL_S)
            standing = watch.standing()
            bar.update(_transfer(standing))
            if threading.current_thread() is threading.main_thread():
                retrier.tend()
            if progress_file is not None and time.monotonic() - noted_s > _TELL_PERIOD_S:
                noted_s = time.monotonic()
                _tell(progress_file, standing)
    except BaseException:
        watch.stopped.set()
        # What hangs in a dead mount is left behind: it may not publish any more.
        ended.wait(_STOP_TIMEOUT_S)
        raise
    finally:
        if progress_file is not None:
            with contextlib.suppress(OSError):
                progress_file.unlink()
    if failures:
        raise failures[0]
    return results[0]


def _transfer(standing: Standing, *, waiting: bool = False) -> Transfer:
    phase = standing.phase.value
    if waiting:
        phase = Phase.WAITING.value
        if standing.phase is not Phase.WAITING:
            phase += f" ({standing.phase.value})"
    return Transfer(
        phase,
        standing.bytes_done,
        standing.bytes_total,
        standing.files_done,
        standing.files_total,
        standing.trouble,
    )


def _tell(path: Path, standing: Standing) -> None:
    content = {
        "phase": standing.phase.name,
        "bytes": [standing.bytes_done, standing.bytes_total],
        "files": [standing.files_done, standing.files_total],
    }
    # Half of it read is nothing shown; written aside, a killed call would leave it there for ever.
    with contextlib.suppress(OSError):
        path.write_text(json.dumps(content))


def _standing_in(path: Path) -> Standing:
    try:
        content = json.loads(path.read_text())
        return Standing(Phase[content["phase"]], *content["bytes"], *content["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return Standing(Phase.WAITING)
