"""A source that fails in the middle is tried again, and read on at the byte where it broke."""

from __future__ import annotations

import errno
import itertools
import random
import threading
from pathlib import Path

import fsspec
import pytest
from fsspec import AbstractFileSystem

import colabkit
from colabkit import errors
from colabkit.datasets.cache.publishing import Staging
from colabkit.datasets.cache.slots import Slot
from colabkit.datasets.folders.listing import FolderReader, list_folder
from colabkit.datasets.folders.mirroring import mirror
from colabkit.datasets.reading.progress import StoppedError, Watch
from colabkit.datasets.reading.retrying import Retrier
from colabkit.errors import MountFailure
from colabkit.storage import RemountOutcome, RemountResult, may_pass
from tests.unit.datasets.sources import content_of, make_folder, make_tar, make_zip, some_files

FILES = some_files(60)
LOST, BROKEN = errno.ENOTCONN, errno.EIO


class Clock:
    def __init__(self) -> None:
        self.now_s = 0.0

    def __call__(self) -> float:
        return self.now_s


class Mount:
    """A mount that is lost until it is mounted again."""

    def __init__(self, *failures: errors.StorageError) -> None:
        self.alive = False
        self.mounts = 0
        self._failures = list(failures)

    def require(self) -> None:
        if not self.alive:
            message = "lost"
            raise errors.DriveLostError(message, path="/d", operation="read")

    def remount(self) -> RemountResult:
        if self.alive:
            return RemountResult(RemountOutcome.FINE)
        self.mounts += 1
        if self._failures:
            return RemountResult(RemountOutcome.REFUSED, error=self._failures.pop(0))
        self.alive = True
        return RemountResult(RemountOutcome.REMOUNTED)


def retrier(watch: Watch | None = None, **options) -> Retrier:
    options = {"location": "/d/cats.zip", "pauses_s": (0.0,), **options}
    return Retrier(watch or Watch(), **options)


class TestRetrier:
    @pytest.mark.parametrize("code", [LOST, BROKEN, errno.ESTALE, errno.ETIMEDOUT])
    def test_lets_a_failure_that_passes_be_tried_again(self, code):
        retrier().retry(OSError(code, "failed"))

    @pytest.mark.parametrize("code", [errno.EINVAL, errno.EACCES, errno.ENOENT])
    def test_passes_on_what_will_not_pass(self, code):
        with pytest.raises(OSError, match="failed"):
            retrier().retry(OSError(code, "failed"))

    def test_a_disk_filled_by_what_drive_keeps_on_it_is_told(self):
        with pytest.raises(errors.DiskFullError, match="Drive keeps what it reads on the disk"):
            retrier().retry(OSError(errno.ENOSPC, "full"))

    def test_takes_a_missing_file_for_a_lost_mount_when_the_mount_is_lost(self):
        mount = Mount()
        one = retrier(mount=mount)
        one.retry(FileNotFoundError(errno.ENOENT, "gone"))
        one.tend()
        assert mount.alive
        with pytest.raises(FileNotFoundError):
            one.retry(FileNotFoundError(errno.ENOENT, "gone"))

    def test_mounts_once_however_many_workers_met_the_loss(self):
        mount = Mount()
        one = retrier(mount=mount)
        for _ in range(32):
            one.retry(OSError(LOST, "lost"))
        one.tend()
        one.tend()
        one.retry(OSError(LOST, "lost"))
        one.tend()
        assert mount.mounts == 1

    def test_mounting_that_may_succeed_later_is_tried_later(self):
        nobody = errors.DriveMountError("nobody", cause=MountFailure.NOBODY_THERE)
        mount = Mount(nobody)
        one = retrier(mount=mount)
        for _ in range(2):
            one.retry(OSError(LOST, "lost"))
            one.tend()
        assert mount.alive

    def test_mounting_that_was_refused_ends_it(self):
        refused = errors.DriveMountError("denied", cause=MountFailure.DENIED)
        one = retrier(mount=Mount(refused))
        one.retry(OSError(LOST, "lost"))
        with pytest.raises(errors.DriveMountError):
            one.tend()

    def test_workers_that_fail_together_wait_together(self):
        clock = Clock()
        pauses: list[float] = []
        watch = Watch()
        watch.stopped.wait = pauses.append  # type: ignore[method-assign, assignment]
        one = retrier(watch, pauses_s=(1.0, 2.0, 4.0), clock=clock)
        for now_s in (0.0, 0.25, 0.5, 1.0, 1.5, 3.0):
            clock.now_s = now_s
            one.retry(OSError(BROKEN, "failed"))
        assert pauses == [1.0, 0.75, 0.5, 2.0, 1.5, 4.0]

    @pytest.mark.parametrize(
        ("facts", "advice"),
        [
            ({"mount": Mount()}, "Mount Drive"),
            ({}, "disk or mount"),
            ({"location": "gs://bucket/cats.zip"}, "address"),
        ],
    )
    def test_gives_up_after_its_patience_and_says_what_to_do(self, facts, advice):
        clock = Clock()
        one = retrier(clock=clock, patience_s=600.0, **facts)
        one.retry(OSError(BROKEN, "failed"))
        clock.now_s = 601.0
        expected = rf"could not be read for 10 min.*{advice}"
        with pytest.raises(errors.StorageError, match=expected):
            one.retry(OSError(BROKEN, "failed"))

    def test_is_patient_again_once_bytes_came(self):
        clock, watch = Clock(), Watch()
        one = retrier(watch, clock=clock, patience_s=600.0)
        for now_s in (0.0, 500.0, 1000.0):
            clock.now_s = now_s
            watch.add(nbytes=1)
            one.retry(OSError(BROKEN, "failed"))

    def test_ends_at_once_when_the_caller_wants_no_more(self):
        watch = Watch()
        watch.stopped.set()
        with pytest.raises(StoppedError):
            retrier(watch).retry(OSError(BROKEN, "failed"))


@pytest.mark.parametrize("restarts", [False, True])
def test_what_is_read_again_from_its_begin_is_no_progress(restarts):
    clock, watch = Clock(), Watch()
    one = retrier(watch, clock=clock, patience_s=600.0)
    for now_s in (0.0, 500.0, 601.0):
        clock.now_s = now_s
        watch.add(nbytes=10)
        if not restarts:
            one.retry(OSError(BROKEN, "failed"))
            continue
        # Half of a file came, as before; then the count begins anew.
        if now_s > 600:
            with pytest.raises(errors.StorageError, match="could not be read"):
                one.retry(OSError(BROKEN, "failed"))
        else:
            one.retry(OSError(BROKEN, "failed"))
        watch.add(nbytes=-10)


@pytest.mark.parametrize(
    "name",
    [
        *("ECONNRESET", "ECONNABORTED", "EHOSTUNREACH", "ENETUNREACH", "ENETDOWN", "ETIMEDOUT"),
        *("EPIPE", "EIO", "ENOTCONN", "ESTALE", "ENODEV", "ESHUTDOWN", "EAGAIN", "EREMOTEIO"),
    ],
)
def test_what_a_network_or_a_mount_answers_while_it_is_away_may_pass(name):
    assert may_pass(OSError(getattr(errno, name), name))


@pytest.mark.parametrize(
    "name", ["ENOENT", "EACCES", "ENOSPC", "EISDIR", "EOPNOTSUPP", "ENAMETOOLONG", "EROFS"]
)
def test_what_a_disk_answers_for_good_does_not_pass(name):
    assert not may_pass(OSError(getattr(errno, name), name))


class OnceFailing(AbstractFileSystem):
    """Files on this machine, one read of which fails once."""

    protocol = "once"
    cachable = False
    guard = threading.Lock()
    reads = 0
    failing, code = 0, 0

    def info(self, path, **_options):
        return {"name": path, "size": Path(path).stat().st_size, "type": "file", "mtime": 1}

    def cat_file(self, path, start=None, end=None, **_options):
        with self.guard:
            type(self).reads += 1
            if self.reads == self.failing:
                raise OSError(self.code, "the network blinked")
        return Path(path).read_bytes()[start:end]


@pytest.mark.parametrize("code", [errno.EIO, errno.ENETUNREACH, errno.ENOTCONN])
@pytest.mark.parametrize("failing", [1, 4])
def test_what_passes_while_planning_passes_while_unpacking(
    tmp_path, cache, monkeypatch, code, failing
):
    monkeypatch.setitem(Retrier.__init__.__kwdefaults__, "pauses_s", (0.001,))
    monkeypatch.setattr(OnceFailing, "reads", 0)
    monkeypatch.setattr(OnceFailing, "failing", failing)
    monkeypatch.setattr(OnceFailing, "code", code)
    fsspec.register_implementation("once", OnceFailing, clobber=True)
    large = {f"large/{n}": random.Random(n).randbytes(3 << 20) for n in range(4)}
    archive = make_zip(tmp_path / "a.zip", large)
    assert content_of(colabkit.dataset(f"once://{archive}", progress=False)) == large
    assert OnceFailing.reads > failing


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_a_small_archive_is_whole_whichever_of_its_reads_fails(tmp_path, cache, monkeypatch, make):
    monkeypatch.setitem(Retrier.__init__.__kwdefaults__, "pauses_s", (0.001,))
    monkeypatch.setattr(OnceFailing, "code", errno.EIO)
    fsspec.register_implementation("once", OnceFailing, clobber=True)
    small = some_files(9)
    archive = make(tmp_path / "archive", small)
    for failing in itertools.count(1):
        monkeypatch.setattr(OnceFailing, "reads", 0)
        monkeypatch.setattr(OnceFailing, "failing", failing)
        made = colabkit.dataset(f"once://{archive}", refresh=True, progress=False)
        assert content_of(made) == small
        if OnceFailing.reads < failing:
            break
    assert failing > 3


class FaultyFileSystem(AbstractFileSystem):
    """Files on this machine, every third read of which fails as a mount does that dies."""

    protocol = "faulty"
    cachable = False
    reads = 0
    failures = 0
    guard = threading.Lock()

    def info(self, path, **_options):
        self._call()
        return {"name": path, "size": Path(path).stat().st_size, "type": "file", "mtime": 1}

    def cat_file(self, path, start=None, end=None, **_options):
        self._call()
        return Path(path).read_bytes()[start:end]

    def _call(self) -> None:
        kind = type(self)
        with kind.guard:
            kind.reads += 1
            if kind.reads % 3 == 0:
                kind.failures += 1
                raise OSError(LOST if kind.reads % 2 else BROKEN, "the mount died")


@pytest.mark.parametrize("make", [make_zip, make_tar])
def test_archive_is_whole_although_every_third_read_fails(tmp_path, cache, monkeypatch, make):
    monkeypatch.setitem(Retrier.__init__.__kwdefaults__, "pauses_s", (0.001,))
    fsspec.register_implementation("faulty", FaultyFileSystem, clobber=True)
    large = {f"large/{n}": random.Random(n).randbytes(5 << 20) for n in range(4)}
    archive = make(tmp_path / "archive", {**FILES, **large})
    FaultyFileSystem.reads, FaultyFileSystem.failures = 0, 0
    made = colabkit.dataset(f"faulty://{archive}", progress=False)
    assert content_of(made) == {**FILES, **large}
    assert FaultyFileSystem.failures >= 3


class FaultyReader(FolderReader):
    """Fails every fourth call, in the middle of files too, and reads at most 1000 bytes."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._calls = 0
        self.bytes_read = 0

    def _call(self) -> None:
        with self._guard:
            self._calls += 1
            if self._calls % 4 == 0:
                raise OSError(LOST if self._calls % 8 else BROKEN, "the mount died")

    def scan(self, path: Path):
        self._call()
        return super().scan(path)

    def status(self, path: Path):
        self._call()
        return super().status(path)

    def open(self, path: Path) -> int:
        self._call()
        return super().open(path)

    def read(self, descriptor: int, nbytes: int, offset: int) -> bytes:
        self._call()
        data = super().read(descriptor, min(nbytes, 1000), offset)
        with self._guard:
            self.bytes_read += len(data)
        return data


def test_folder_goes_on_at_the_byte_where_it_broke(tmp_path):
    root = make_folder(tmp_path / "photos", FILES)
    watch, reader = Watch(), FaultyReader()
    one = retrier(watch)
    listing = list_folder(root, reader=reader, retry=one.retry)
    slot = Slot(tmp_path / "out")
    slot.side.mkdir(parents=True)
    with Staging(slot, key="folder", planned=listing.files) as staging:
        mirror(root, listing, staging, watch=watch, reader=reader, retry=one.retry)
        assert content_of(staging.tree) == FILES
    assert reader.bytes_read == sum(map(len, FILES.values()))
