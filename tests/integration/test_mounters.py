"""Drive through other programs: mounted for real, lost for real, and mounted again."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import torch

import colabkit
from colabkit.errors import (
    ArgumentError,
    DriveLostError,
    DriveMountError,
    MountFailure,
    StorageError,
)
from colabkit.storage import (
    ColabMounter,
    DriveMount,
    DriveVolume,
    FolderMounter,
    MountState,
    OcamlfuseMounter,
    RcloneMounter,
    RemountOutcome,
    is_mountpoint,
    mounter_for,
    use_mount,
    volume_at,
)
from tests.abilities import FUSE, FUSERMOUNT, RCLONE


def until(is_so: Callable[[], bool], *, timeout_s: float = 300.0) -> None:
    deadline_s = time.monotonic() + timeout_s
    while not is_so():
        assert time.monotonic() < deadline_s, "it did not come in time"
        time.sleep(0.02)


def blob(text: bytes) -> list[np.ndarray]:
    return [np.frombuffer(text, np.uint8)]


class Remote:
    """A folder that rclone takes for a service, and what mounts it."""

    def __init__(self, tmp_path: Path) -> None:
        self.cloud = tmp_path / "cloud"
        self.cloud.mkdir()
        self.mountpoint = tmp_path / "drive"
        self.config = tmp_path / "rclone.conf"
        self.config.write_text(f"[gdrive]\ntype = alias\nremote = {self.cloud}\n")
        self.mounter = RcloneMounter("gdrive", config=self.config)
        self.mount = DriveMount(self.mountpoint, self.mounter)

    def server(self) -> psutil.Process:
        """The rclone that serves the mountpoint."""
        return next(
            process
            for process in psutil.process_iter(["name", "cmdline"])
            if process.info["name"] == "rclone"
            and str(self.mountpoint) in (process.info["cmdline"] or [])
        )

    def kill(self, mount: DriveMount | None = None) -> None:
        """Kills what serves the mountpoint, and waits until a mount of it is seen to be lost."""
        server = self.server()
        server.send_signal(signal.SIGKILL)
        until(lambda: not server.is_running() or server.status() == psutil.STATUS_ZOMBIE)
        # The kernel may answer from what it remembers for a second.
        until(lambda: (mount or self.mount).probe() is MountState.LOST)


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Remote]:
    for need in (RCLONE, FUSERMOUNT, FUSE):
        need.require()
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    remote = Remote(tmp_path)
    yield remote
    use_mount(None)
    if is_mountpoint(remote.mountpoint):
        os.system(f"fusermount3 -u -z {remote.mountpoint}")


def test_rclone_mounts_and_what_is_written_arrives_before_it_is_confirmed(remote):
    assert remote.mount.mount() is MountState.MOUNTED
    use_mount(remote.mount)
    volume = volume_at("MyDrive/run")
    assert isinstance(volume, DriveVolume)
    names = [f"shards/{n}.bin" for n in range(3)]
    for name in names:
        volume.write(name, blob(name.encode() * 1000))
    until(lambda: bool(volume.confirmed(names)))
    for name in names:
        assert (remote.cloud / "run" / name).read_bytes() == name.encode() * 1000
        assert volume.read(name).tobytes() == name.encode() * 1000
    volume.delete(names[:2])
    assert volume.list("shards") == {"2.bin": 12 * 1000}


def test_unmounting_uploads_what_waits(remote):
    remote.mount.mount()
    volume = DriveVolume(remote.mount.root / "run", remote.mount)
    volume.write("a", blob(b"kept"))
    remote.mount.unmount(timeout_s=300)
    assert not is_mountpoint(remote.mountpoint)
    assert (remote.cloud / "run/a").read_bytes() == b"kept"


def test_what_cannot_be_uploaded_in_time_is_said_and_the_mount_stays(remote):
    remote.mounter.options = ("--vfs-write-back=1h",)
    remote.mount.mount()
    volume = DriveVolume(remote.mount.root / "run", remote.mount)
    volume.write("a", blob(b"waiting"))
    assert not volume.confirmed(["a"])
    with pytest.raises(StorageError, match=r"Not uploaded yet: 1 file in "):
        remote.mount.unmount(timeout_s=0)
    assert remote.mount.probe() is MountState.MOUNTED


def test_a_killed_rclone_is_lost_and_mounted_again_with_what_waited(remote):
    # It waits, and is not under way: what rclone makes of a broken-off upload is its own business.
    remote.mounter.options = ("--vfs-write-back=1h",)
    remote.mount.mount()
    volume = DriveVolume(remote.mount.root / "run", remote.mount)
    volume.write("a", blob(b"written before the kill"))
    remote.kill()
    with pytest.raises(DriveLostError):
        volume.write("b", blob(b"nowhere"))
    with pytest.raises(DriveLostError):
        volume.sweep()
    with pytest.raises(DriveLostError):
        DriveVolume(volume.root, remote.mount)
    remote.mounter.options = ()
    result = remote.mount.remount()
    assert result.outcome is RemountOutcome.REMOUNTED, result.error
    assert volume.read("a").tobytes() == b"written before the kill"
    volume.write("b", blob(b"later"))
    until(lambda: bool(volume.confirmed(["a", "b"])))
    assert (remote.cloud / "run/a").read_bytes() == b"written before the kill"


def test_a_remote_that_rclone_does_not_know_is_named_with_those_it_knows(remote):
    mount = DriveMount(remote.mountpoint, RcloneMounter("other:", config=remote.config))
    with pytest.raises(DriveMountError, match="no 'other:', only gdrive:") as caught:
        mount.mount()
    assert caught.value.cause is MountFailure.NOT_SIGNED_IN


def test_a_mountpoint_with_files_in_it_is_refused(remote):
    remote.mountpoint.mkdir()
    (remote.mountpoint / "mine.txt").touch()
    with pytest.raises(DriveMountError, match=r"holds 'mine\.txt'") as caught:
        remote.mount.mount()
    assert caught.value.cause is MountFailure.MOUNTPOINT_IN_USE


def test_what_rclone_complains_of_is_passed_on(remote):
    mounter = RcloneMounter("gdrive", config=remote.config, options=["--no-such-option"])
    with pytest.raises(DriveMountError, match="unknown flag: --no-such-option"):
        DriveMount(remote.mountpoint, mounter).mount()


def test_a_folder_mounted_by_hand_is_watched_and_never_mounted_by_us(remote):
    remote.mount.mount()
    folder = DriveMount(remote.mountpoint, FolderMounter())
    assert folder.mount() is MountState.MOUNTED
    DriveVolume(folder.root / "run", folder).write("a", blob(b"x"))
    remote.kill(folder)
    result = folder.remount()
    assert result.outcome is RemountOutcome.REFUSED
    assert isinstance(result.error, DriveMountError)
    assert result.error.cause is MountFailure.NOT_OURS
    remote.mount.remount()
    assert folder.remount().outcome is RemountOutcome.REMOUNTED
    with pytest.raises(StorageError, match="mounted by you"):
        folder.unmount(timeout_s=1)


def test_a_folder_is_drives_root_unless_it_has_my_drive(tmp_path):
    assert FolderMounter().root(tmp_path) == tmp_path
    (tmp_path / "MyDrive").mkdir()
    assert FolderMounter().root(tmp_path) == tmp_path / "MyDrive"
    mount = DriveMount(tmp_path / "nowhere", FolderMounter())
    with pytest.raises(DriveMountError, match=r"There is no folder: .*nowhere"):
        mount.mount()


# google-drive-ocamlfuse, by a program that mounts what it was told with rclone.

OCAMLFUSE = """#!/bin/sh
echo "$@" >> {log}
test -f "$HOME/.gdfuse/default/state" || {{ echo "not signed in" >&2; exit 1; }}
for mountpoint; do true; done
exec rclone mount {cloud} "$mountpoint" --daemon --allow-non-empty --vfs-cache-mode off
"""


@pytest.fixture
def ocamlfuse(
    remote: Remote, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[list[str]]:
    """A program by that name; the list is filled with the arguments it was started with."""
    programs, home = tmp_path / "bin", tmp_path / "home"
    programs.mkdir()
    home.mkdir()
    monkeypatch.setenv("PATH", f"{programs}:{os.environ['PATH']}")
    monkeypatch.setenv("HOME", str(home))
    program = programs / "google-drive-ocamlfuse"
    program.write_text(OCAMLFUSE.format(log=tmp_path / "log", cloud=remote.cloud))
    program.chmod(0o755)
    return tmp_path / "log"


def signed_in(tmp_path: Path) -> Path:
    settings = tmp_path / "gdfuse"
    settings.mkdir()
    (settings / "state").write_text("refresh_token=x\n")
    (settings / "config").write_text("client_id=y\n")
    return settings


def test_ocamlfuse_mounts_with_settings_from_another_computer(ocamlfuse, remote, tmp_path):
    mounter = OcamlfuseMounter(
        credentials=signed_in(tmp_path), client_id="id", client_secret="secret"
    )
    mount = DriveMount(remote.mountpoint, mounter)
    assert mount.mount() is MountState.MOUNTED
    state = tmp_path / "home/.gdfuse/default/state"
    assert state.stat().st_mode & 0o777 == 0o600
    remote.kill(mount)
    assert mount.remount().outcome is RemountOutcome.REMOUNTED
    first, second = ocamlfuse.read_text().splitlines()
    assert first == f"-headless -label default -id id -secret secret {remote.mountpoint}"
    assert "-o nonempty" in second
    mount.unmount(timeout_s=300)
    assert not is_mountpoint(remote.mountpoint)


def test_ocamlfuse_without_a_sign_in_is_not_even_started(ocamlfuse, remote):
    with pytest.raises(DriveMountError, match="has no sign-in") as caught:
        DriveMount(remote.mountpoint, OcamlfuseMounter()).mount()
    assert caught.value.cause is MountFailure.NOT_SIGNED_IN
    assert "credentials=" in caught.value.hint
    assert not ocamlfuse.exists()


def with_programs(folder: Path, monkeypatch: pytest.MonkeyPatch, **scripts: str) -> None:
    """Makes these the only programs there are."""
    folder.mkdir()
    monkeypatch.setenv("PATH", str(folder))
    for name, script in scripts.items():
        program = folder / name.replace("_", "-")
        program.write_text(f"#!/bin/sh\n{script}\n")
        program.chmod(0o755)


@pytest.mark.parametrize(
    ("backend", "how"), [("rclone", "apt-get install rclone"), ("ocamlfuse", "install=True")]
)
def test_a_missing_program_names_how_to_get_it(backend, how, tmp_path, monkeypatch):
    with_programs(tmp_path / "bin", monkeypatch)
    with pytest.raises(DriveMountError, match="is not installed") as caught:
        DriveMount(tmp_path / "drive", mounter_for(backend)).mount()
    assert caught.value.cause is MountFailure.NO_PROGRAM
    assert how in caught.value.hint


def test_ocamlfuse_is_installed_only_when_asked_for(tmp_path, monkeypatch):
    log = tmp_path / "log"
    says = f'echo "$0 $@" >> {log}'
    scripts = {"add_apt_repository": says, "apt_get": f"{says}\necho no network >&2; exit 100"}
    with_programs(tmp_path / "bin", monkeypatch, **scripts)
    with pytest.raises(DriveMountError, match="is not installed"):
        DriveMount(tmp_path / "drive", OcamlfuseMounter()).mount()
    assert not log.exists()
    with pytest.raises(DriveMountError, match=r"apt-get update -qq failed .*no network"):
        DriveMount(tmp_path / "drive", OcamlfuseMounter(install=True)).mount()
    ran = [line.removeprefix(f"{tmp_path}/bin/") for line in log.read_text().splitlines()]
    assert ran == ["add-apt-repository -y ppa:alessandro-strada/ppa", "apt-get update -qq"]


def test_without_ppas_it_is_installed_from_opam(tmp_path, monkeypatch):
    log = tmp_path / "log"
    says = f'echo "$0 $@" >> {log}'
    with_programs(tmp_path / "bin", monkeypatch, apt_get=says, opam=says)
    with pytest.raises(DriveMountError, match="is not installed"):
        DriveMount(tmp_path / "drive", OcamlfuseMounter(install=True)).mount()
    ran = [line.removeprefix(f"{tmp_path}/bin/") for line in log.read_text().splitlines()]
    ran = [line.split(" --")[0] for line in ran]
    assert ran[1:] == ["opam init", "opam install"]


def test_a_backend_is_chosen_by_name():
    assert isinstance(mounter_for("colab"), ColabMounter)
    assert mounter_for("rclone").remote == "drive:"
    assert isinstance(mounter_for("folder"), FolderMounter)
    mine = RcloneMounter("x:")
    assert mounter_for(mine) is mine
    with pytest.raises(ArgumentError, match="'colab', 'rclone', 'ocamlfuse', 'folder'"):
        mounter_for("onedrive")
    with pytest.raises(ArgumentError, match=r"'rclone' takes no label\. It takes remote, config"):
        mounter_for("rclone", label="x")
    with pytest.raises(ArgumentError, match="Only one of client_id and client_secret"):
        mounter_for("ocamlfuse", client_id="x")


class KillsRclone:
    """Kills what serves Drive in the middle of training."""

    def __init__(self, remote: Remote) -> None:
        self.remote = remote

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if step == 10:
            run.flush()
            self.remote.server().kill()
            until(lambda: self.remote.mount.probe() is MountState.LOST)


def test_a_run_whose_rclone_is_killed_goes_on_and_ends_with_the_same_bits(remote, tmp_path):
    def trained(folder: str | Path, *callbacks: Any) -> torch.nn.Module:
        torch.manual_seed(0)
        data = (torch.randn(160, 4), torch.randint(0, 3, (160,)))
        model = torch.nn.Linear(4, 3)
        colabkit.fit(
            model, data, folder, epochs=2, batch_size=8, save_every=5, progress=False,
            callbacks=callbacks,
        )  # fmt: skip
        return model

    expected = trained(tmp_path / "undisturbed")
    remote.mount.mount()
    use_mount(remote.mount)
    model = trained("MyDrive/run", KillsRclone(remote))
    assert remote.mount.probe() is MountState.MOUNTED
    assert remote.mount.times_lost == 1
    assert torch.equal(model.weight, expected.weight)
    remote.mount.unmount(timeout_s=300)
    newest = colabkit.checkpoints(remote.cloud / "run", verify=True)[0]
    assert (newest.step, newest.problem) == (40, "")
