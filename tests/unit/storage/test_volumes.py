"""Every volume keeps the same contract: a name means whole content."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import fsspec
import numpy as np
import pytest
from fsspec.registry import _registry

from colabkit.errors import (
    ArgumentError,
    DiskFullError,
    DriveMountError,
    MissingPackageError,
    StorageError,
)
from colabkit.storage import (
    DriveMount,
    FsspecVolume,
    LocalVolume,
    MountedVolume,
    MountState,
    RcloneVolume,
    joined,
    locate,
    mounter_for,
    mounts,
    outages,
    url_of,
    volume_at,
)
from colabkit.storage.request_failures import failure_of
from tests.places import small_disk


def blob(content: bytes) -> np.ndarray:
    return np.frombuffer(content, np.uint8)


def volume_in(place: str) -> Any:
    """The volume there; fsspec's own for a file, in place of the quicker one it stands for."""
    return FsspecVolume(place) if place.startswith("file://") else volume_at(place)


def test_what_is_written_is_read_back_bit_for_bit(place):
    volume = volume_in(place)
    large = np.random.default_rng(0).integers(0, 256, 17 << 20, np.uint8)
    volume.write("shards/a", [blob(b"one"), blob(b""), blob(b"two")])
    volume.write("shards/b", [large[:5], large[5:]])
    volume.write("shards/empty", [])
    assert volume.read("shards/a").tobytes() == b"onetwo"
    read = volume.read("shards/b")
    assert np.array_equal(read, large)
    assert read.flags.writeable
    assert len(volume.read("shards/empty")) == 0
    assert volume.list("shards") == {"a": 6, "b": len(large), "empty": 0}


def test_a_folder_stays_where_it_was_when_the_notebook_changes_its_own(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    volume = LocalVolume("run")
    volume.write("a/one", [np.ones(3, np.uint8)])
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    volume.write("a/two", [np.ones(3, np.uint8)])
    assert volume.list("a") == {"one": 3, "two": 3}
    assert (tmp_path / "run" / "a" / "two").exists()


@pytest.fixture
def mounted(tmp_path) -> Iterator[Path]:
    folder = tmp_path / "mount"
    folder.mkdir()
    with small_disk(folder, "size=200k"):
        yield folder


def test_nothing_is_written_to_the_bare_folder_of_what_was_mounted(mounted):
    volume = MountedVolume(mounted / "run")
    volume.write("shards/a", [blob(b"one")])
    subprocess.run(["umount", str(mounted)], check=True)
    for _ in range(3):
        with pytest.raises(StorageError, match="not mounted any more"):
            volume.write("shards/b", [blob(b"two")])
        with pytest.raises(StorageError, match="not mounted any more"):
            volume.list("shards")
    assert not list(mounted.iterdir())


@pytest.mark.parametrize(
    ("kind", "told"), [("fuse.rclone", None), ("fuse.google-drive-ocamlfuse", None), ("nfs4", True)]
)
def test_what_a_program_holds_in_its_cache_is_not_called_uploaded(
    tmp_path, monkeypatch, kind, told
):
    table = tmp_path / "mounts"
    table.write_text(f"remote: {tmp_path} {kind} rw 0 0\n")
    monkeypatch.setattr(mounts, "_TABLE", table)
    volume = volume_at(tmp_path / "run")
    assert isinstance(volume, MountedVolume)
    volume.write("one", [blob(b"1")])
    assert volume.confirmed(["one"]) is told


def test_what_the_mount_table_does_not_list_is_not_taken_for_gone(tmp_path, monkeypatch):
    table = tmp_path / "mounts"
    table.write_text("proc /proc proc rw 0 0\n")
    monkeypatch.setattr(mounts, "_TABLE", table)
    place = tmp_path / "drive"
    place.mkdir()
    assert mounts.mounted_below(place) is None
    assert mounts.filesystem_type(place) == ""
    mount = DriveMount(place, mounter_for("folder"))
    assert mount.mount() is MountState.MOUNTED
    MountedVolume(place / "run").write("one", [blob(b"1")])
    with small_disk(place, "size=200k"):
        assert mount.probe() is MountState.LOST
        with pytest.raises(DriveMountError, match="What you mounted there is gone"):
            mount.mount()
    assert mount.probe() is MountState.MOUNTED
    place.rename(tmp_path / "elsewhere")
    assert mount.probe() is MountState.LOST


def test_a_folder_that_cannot_be_looked_at_is_an_error_that_says_so(tmp_path):
    with pytest.raises(StorageError, match=r"Could not open .*: File name too long"):
        LocalVolume(tmp_path / ("x" * 300))


def test_a_second_write_replaces_the_first(place):
    volume, other = volume_in(place), volume_in(place)
    volume.write("lease.json", [blob(b"mine and long")])
    assert other.read("lease.json").tobytes() == b"mine and long"
    other.write("lease.json", [blob(b"theirs")])
    assert volume.read("lease.json").tobytes() == b"theirs"
    assert volume.list(".") == {"lease.json": 6}


def test_what_was_never_written_is_not_there(place):
    volume = volume_in(place)
    assert volume.list("shards") == {}
    assert volume.list(".") == {}
    with pytest.raises(StorageError, match="Could not read"):
        volume.read("shards/nothing")
    volume.delete(["shards/nothing"])


def test_deleting_removes_just_what_was_named(place):
    volume = volume_in(place)
    for name in ("a", "b", "c"):
        volume.write(f"shards/{name}", [blob(b"x")])
    volume.delete(["shards/a", "shards/missing", "shards/c"])
    assert volume.list("shards") == {"b": 1}
    assert volume.list(".") == {}


def test_what_is_removed_while_it_is_listed_hides_nothing_else(tmp_path, monkeypatch):
    volume = LocalVolume(tmp_path)
    names = [f"checkpoints/{number}" for number in range(5)]
    for name in names:
        volume.write(name, [blob(b"whole")])
    scan = os.scandir

    class Scanned(list):
        def __enter__(self):
            volume.delete(names[1:3])
            return self

        def __exit__(self, *_):
            return None

    monkeypatch.setattr(os, "scandir", lambda path: Scanned(scan(path)))
    assert sorted(volume.list("checkpoints")) == ["0", "3", "4"]


def test_a_name_that_leads_out_is_refused(place):
    volume = volume_in(place)
    for name in ("../elsewhere", "/etc/passwd", "shards/../../x"):
        with pytest.raises(StorageError, match="leads out of"):
            volume.write(name, [blob(b"x")])
        with pytest.raises(StorageError, match="leads out of"):
            volume.read(name)


class Breaking:
    """Content whose second half cannot be had, as when memory or a disk gives out."""

    def __init__(self, content: np.ndarray, at: int) -> None:
        self.content, self.at = content, at
        self.data = self

    def __len__(self) -> int:
        return len(self.content)

    def __getitem__(self, where: slice) -> np.ndarray:
        if where.stop > self.at:
            raise OSError("the second half is gone")
        return self.content[where]


@pytest.mark.parametrize("kind", ["file", "s3"])
def test_a_write_that_breaks_off_leaves_nothing(kind, tmp_path, request):
    content = np.random.default_rng(0).integers(0, 256, 40 << 20, np.uint8)
    url = f"file://{tmp_path}" if kind == "file" else request.getfixturevalue("bucket")
    volume = FsspecVolume(f"{url}/run", part_bytes=5 << 20)
    with pytest.raises(StorageError, match="the second half is gone"):
        volume.write("shards/a", [Breaking(content, 20 << 20)])
    assert volume.list("shards") == {}
    assert volume._listed("shards") == {}
    if kind == "s3":
        assert volume._files.list_multipart_uploads(url.removeprefix("s3://")) == []
    volume.write("shards/a", [content])
    assert np.array_equal(volume.read("shards/a"), content)


def test_a_stream_to_rclone_that_breaks_off_leaves_nothing(remote, tmp_path):
    volume = volume_at(f"{remote}/run")
    content = np.zeros(32 << 20, np.uint8)
    with pytest.raises(OSError, match="the second half is gone"):
        volume.write("shards/a", [Breaking(content, 16 << 20)])
    assert volume.list("shards") == {}
    assert not [path for path in (tmp_path / "remote").rglob("*") if path.is_file()]


def test_what_dead_writers_left_aside_is_swept_and_never_listed(tmp_path, remote):
    for url, folder in [(f"file://{tmp_path}/f", "f"), (f"{remote}/r", "remote/r")]:
        left = tmp_path / folder / "shards" / ".colabkit-tmp-0123456789ab-77-deadbeef"
        left.parent.mkdir(parents=True)
        left.write_bytes(b"half of it")
        volume = volume_in(url)
        assert volume.list("shards") == {}
        volume.sweep()
        assert not left.exists()


def test_what_lies_aside_goes_with_its_writer_though_its_number_is_given_again(tmp_path):
    held, aside = LocalVolume(tmp_path), []

    def content() -> Iterator[np.ndarray]:
        yield blob(b"half")
        LocalVolume(tmp_path).sweep()
        aside.extend(path.name for path in (tmp_path / "shards").iterdir())

    left = tmp_path / "shards" / f".colabkit-tmp-{os.getpid()}-1234-deadbeef"
    left.parent.mkdir()
    left.write_bytes(b"half of it")
    held.write("shards/whole", content())
    assert len(aside) == 1
    assert not left.exists()
    assert held.list("shards") == {"whole": 4}


def test_uploads_that_were_cut_off_are_given_up_and_those_of_other_runs_are_not(bucket):
    files = fsspec.filesystem("s3", skip_instance_cache=True)
    for run in ("cats", "dogs"):
        file = files.open(f"{bucket}/{run}/shards/a", "wb", block_size=5 << 20, autocommit=False)
        file.write(bytes(6 << 20))
        file.closed = True  # as if its process had died
    FsspecVolume(f"{bucket}/cats").sweep()
    left = files.list_multipart_uploads(bucket.removeprefix("s3://"))
    assert [upload["Key"] for upload in left] == ["dogs/shards/a"]


# What goes wrong is said, with what to do.


def refused(place: str) -> StorageError:
    with pytest.raises(StorageError) as listing:
        volume_at(place).list("checkpoints")
    with pytest.raises(StorageError) as writing:
        volume_at(place).write("lease.json", [blob(b"x")])
    assert listing.value.hint == writing.value.hint
    return listing.value


def test_a_bucket_that_does_not_exist_is_no_empty_run_folder(signed_in):
    error = refused("s3://no-such-bucket-here/run")
    assert "there is no such bucket" in error.message
    assert "'no-such-bucket-here'" in error.hint


def test_a_bucket_of_google_that_does_not_exist_is_no_empty_run_folder(gs_bucket):
    error = refused("gs://no-such-bucket-here/run")
    assert "there is no such bucket" in error.message


def test_a_large_blob_goes_to_google_in_parts(gs_bucket):
    content = np.random.default_rng(0).integers(0, 256, 5_000_001, np.uint8)
    volume = FsspecVolume(f"{gs_bucket}/run", part_bytes=1 << 20)
    volume.write("shards/a", [content[:7], content[7:]])
    assert np.array_equal(volume.read("shards/a"), content)


def test_without_credentials_it_says_where_to_put_them(signed_in, monkeypatch):
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", "/nonexistent")
    error = refused("s3://bucket/run")
    assert "nobody is signed in" in error.message
    assert "AWS_ACCESS_KEY_ID" in error.hint


def test_without_a_network_it_says_so(signed_in, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(outages, "_PAUSES_S", (0.0,))
    error = refused("s3://bucket/run")
    assert "cannot be reached" in error.message
    assert "network" in error.hint


@pytest.mark.parametrize("package", ["s3fs", "gcsfs"])
def test_a_missing_package_is_named_in_the_version_that_fits_fsspec(package, monkeypatch):
    monkeypatch.setitem(sys.modules, package, None)
    protocol = {"s3fs": "s3", "gcsfs": "gs"}[package]
    monkeypatch.delitem(_registry, protocol, raising=False)
    with pytest.raises(MissingPackageError) as caught:
        volume_at(f"{protocol}://bucket/run")
    assert caught.value.package == package
    assert f'pip install "{package}=={fsspec.__version__}"' in caught.value.hint


def test_an_unknown_protocol_is_refused():
    with pytest.raises(ArgumentError, match="fsspec does not know"):
        volume_at("gdrive3://x/y")
    with pytest.raises(ArgumentError, match="names no place"):
        volume_at("s3://")
    with pytest.raises(ArgumentError, match="chains"):
        volume_at("simplecache::s3://bucket/run")


def test_a_place_that_takes_no_files_says_so():
    with pytest.raises(StorageError, match="nothing can be written there"):
        FsspecVolume("http://127.0.0.1:9/run").write("a", [blob(b"x")])


def test_rclone_says_what_is_missing(remote, tmp_path, monkeypatch):
    with pytest.raises(StorageError, match="nobody is signed in") as caught:
        volume_at("rclone://unheard/of").list(".")
    assert "rclone config" in caught.value.hint
    with pytest.raises(ArgumentError, match="names no remote"):
        volume_at("rclone:///run")
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(MissingPackageError, match="rclone, which is not installed"):
        volume_at("rclone://gdrive/run")


def test_rclone_is_asked_again_when_the_network_was_gone(remote, tmp_path, monkeypatch):
    volume = volume_at("rclone://gdrive/run")
    volume.write("a", [blob(b"x")])
    monkeypatch.setattr(outages, "_PAUSES_S", (0.0, 0.0))
    programs, real = tmp_path / "bin", shutil.which("rclone")
    programs.mkdir()
    (programs / "rclone").write_text(
        f'#!/bin/sh\n[ -e "{tmp_path}/$1" ] && exec {real} "$@"\n'
        f': > "{tmp_path}/$1"; echo "dial tcp: lookup: no such host" >&2; exit 1\n'
    )
    (programs / "rclone").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    assert volume.list(".") == {"a": 1}
    assert volume.read("a").tobytes() == b"x"
    assert (tmp_path / "lsjson").exists()
    assert (tmp_path / "cat").exists()


@pytest.mark.parametrize(
    ("said", "refusal"),
    [
        ("An error occurred (503) when calling the PutObject operation (reached max)", "BUSY"),
        ("googleapi: Error 429: Quota exceeded for requests per minute, rateLimitExceeded", "BUSY"),
        ("HTTP status code: 502", "BUSY"),
        ("Connection reset by peer", "NO_NETWORK"),
        ("s3://b/x has 500 bytes instead of the 503 that were written.", "FAILED"),
        ("Error 403: The user's Drive storage quota has been exceeded.", "FULL"),
    ],
)
def test_a_service_that_is_busy_is_told_from_one_that_refuses(said, refusal):
    assert failure_of(said).name == refusal


def test_what_will_not_pass_is_asked_once(monkeypatch):
    asked = []

    def refuse():
        asked.append(1)
        raise StorageError("Access was denied.", path="s3://bucket")

    monkeypatch.setattr(outages, "_PAUSES_S", (0.0, 0.0))
    with pytest.raises(StorageError, match="denied"):
        outages.patiently(refuse)
    assert len(asked) == 1


def test_a_remote_without_room_is_a_full_disk(remote, tmp_path, monkeypatch):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "rclone").write_text(
        "#!/bin/sh\ncat >/dev/null\n"
        "echo \"googleapi: Error 403: The user's Drive storage quota has been exceeded.,"
        ' storageQuotaExceeded" >&2\nexit 1\n'
    )
    (programs / "rclone").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}:/usr/bin:/bin")
    with pytest.raises(DiskFullError, match="no room left"):
        volume_at("rclone://gdrive/run").write("a", [blob(b"x")])


def test_rclone_tells_how_much_room_is_left(remote):
    assert volume_at(f"{remote}/run").free_bytes() > 0


# What a path means.


def test_a_url_leads_to_the_volume_that_fits(tmp_path, remote):
    assert isinstance(volume_at("memory://x"), FsspecVolume)
    assert isinstance(volume_at(f"{remote}/x"), RcloneVolume)
    here = volume_at(f"file://{tmp_path}/my%20run")
    assert isinstance(here, LocalVolume)
    assert here.root == tmp_path / "my run"


@pytest.mark.parametrize("spoiled", [Path("gs://bucket/run"), "s3:/bucket/run"])
def test_a_url_that_lost_a_slash_is_no_folder_of_this_machine(spoiled):
    with pytest.raises(ArgumentError, match="has lost a slash") as caught:
        volume_at(spoiled)
    assert "://bucket/run" in caught.value.hint


def test_a_url_is_no_place_on_this_machine():
    with pytest.raises(ArgumentError, match="no place on this machine"):
        locate("gs://bucket/run")
    assert url_of("S3://Bucket/Run/") == "s3://Bucket/Run"
    assert url_of("C:/runs") is None
    assert url_of("runs:2/cats") is None
    assert joined("s3://bucket/run", "a/b") == "s3://bucket/run/a/b"
    assert joined("runs/cats", "a") == Path("runs/cats/a")


@pytest.fixture(autouse=True)
def memory_is_emptied() -> Iterator[None]:
    yield
    fsspec.filesystem("memory").store.clear()
