"""Whatever google.colab does wrong becomes one error that says the cause and the next step."""

from __future__ import annotations

import logging
import threading
import types
from pathlib import Path
from typing import Any

import pytest

from colabkit.errors import (
    ArgumentError,
    DriveMountError,
    MachineReleaseError,
    MountFailure,
    StorageError,
)
from colabkit.runtime import flush_and_unmount, mount, unassign


class Error(Exception):
    pass


class MessageError(Error):
    pass


class TIMEOUT(Exception):  # noqa: N818  # as pexpect names it
    pass


class RuntimeManagementError(Error):
    pass


class Colab:
    """google.colab on a machine whose Drive mounts, or fails in one way."""

    def __init__(self, error: Exception | None = None, *, mounts: bool = True) -> None:
        self.error = error
        self.mounts = mounts
        self.mounted = False
        self.now_s = 0.0
        self.takes_s = 3.0
        self.slept_s = 0.0
        self.calls: list[tuple[Any, ...]] = []

    def load(self, name: str) -> Any:
        modules = {
            "google.colab.drive": self,
            "google.colab.runtime": self,
            "google.colab._message": types.SimpleNamespace(MessageError=MessageError),
            "google.colab.errors": types.SimpleNamespace(Error=Error),
            "pexpect": types.SimpleNamespace(TIMEOUT=TIMEOUT),
        }
        if name not in modules:
            raise ImportError(name)
        return modules[name]

    def _called(self, *call: Any) -> None:
        self.calls.append(call)
        self.now_s += self.takes_s
        if self.error is not None:
            raise self.error

    def mount(
        self,
        mountpoint: str,
        force_remount: bool = False,
        timeout_ms: int = 120_000,
        readonly: bool = False,
    ) -> None:
        assert not force_remount, "it would take a mount down that lives"
        self._called("mount", mountpoint, timeout_ms, *(["readonly"] if readonly else []))
        print(f"Mounted at {mountpoint}")
        self.mounted = self.mounts

    def flush_and_unmount(self, timeout_ms: int) -> None:
        self._called("flush", timeout_ms)
        self.mounted = False

    def unassign(self) -> None:
        self._called("unassign")

    def sleep(self, seconds: float) -> None:
        self.slept_s += seconds

    def connect(self, mountpoint: str | Path, **options: Any) -> Any:
        return mount(
            mountpoint,
            is_mounted=lambda: self.mounted,
            load=self.load,
            clock=lambda: self.now_s,
            **options,
        )


def refused(colab: Colab, mountpoint: str | Path, **options: Any) -> DriveMountError:
    with pytest.raises(DriveMountError) as caught:
        colab.connect(mountpoint, **options)
    assert caught.value.hint.endswith(".")
    assert str(mountpoint) in caught.value.message
    assert isinstance(caught.value, OSError)
    return caught.value


def test_drive_is_mounted_with_words_of_our_own(tmp_path, capsys, caplog):
    colab = Colab()
    with caplog.at_level(logging.DEBUG):
        outcome = colab.connect(tmp_path / "drive", timeout_s=30.9)
    assert colab.calls == [("mount", str(tmp_path / "drive"), 30_000)]
    assert (outcome.was_mounted, outcome.took_s) == (False, 3.0)
    assert capsys.readouterr().out == ""
    assert "Mounted at" in caplog.text


def test_what_is_mounted_is_left_alone(tmp_path):
    colab = Colab()
    colab.mounted = True
    assert colab.connect(tmp_path).was_mounted
    assert colab.calls == []


FAILURES = [
    (
        NotImplementedError(
            "Mounting drive is unsupported in this environment. Use PyDrive2 instead."
        ),
        MountFailure.NOT_SUPPORTED,
    ),
    (
        NotImplementedError("google.colab.drive.mount is not supported in Colab Enterprise."),
        MountFailure.NOT_SUPPORTED,
    ),
    (KeyError("TBE_EPHEM_CREDS_ADDR"), MountFailure.NOT_SUPPORTED),
    (
        MessageError("Error: credential propagation was unsuccessful"),
        MountFailure.DENIED,
    ),
    (AttributeError("'NoneType' object has no attribute 'kernel'"), MountFailure.NO_KERNEL),
    (ValueError("mount failed"), MountFailure.FAILED),
    (
        ValueError("mount failed: timeout during initial read of root folder; for more info: x"),
        MountFailure.TIMED_OUT,
    ),
    (
        TIMEOUT(
            "Timeout exceeded.\nsearcher_re:\n    0: re.compile('google.colab.drive MOUNTED')\n"
            "    4: re.compile('The domain policy has disabled Drive File Stream')"
        ),
        MountFailure.TIMED_OUT,
    ),
    (
        ValueError("The domain policy has disabled Drive File Stream: https://x"),
        MountFailure.POLICY,
    ),
    (ValueError("Mountpoint must not already contain files"), MountFailure.MOUNTPOINT_IN_USE),
    (ValueError("Mountpoint must not be a symlink"), MountFailure.MOUNTPOINT_IN_USE),
    (TypeError("argument of type 'PosixPath' is not iterable"), MountFailure.FAILED),
    (OSError(107, "Transport endpoint is not connected"), MountFailure.FAILED),
    (AttributeError("module has no attribute 'x'"), MountFailure.FAILED),
]


@pytest.mark.parametrize(("error", "cause"), FAILURES, ids=lambda value: str(value)[:40])
def test_each_failure_has_its_cause(error, cause, tmp_path):
    caught = refused(Colab(error), tmp_path)
    assert caught.cause is cause
    assert caught.__cause__ is error
    assert cause.value in caught.message


def test_the_message_quotes_no_more_than_a_sentence(tmp_path):
    long = NotImplementedError(
        "Mounting drive is unsupported in this environment. Use PyDrive2 instead. See examples."
    )
    assert refused(Colab(long), tmp_path).message == (
        f"Drive is not mounted at {tmp_path}: this machine cannot mount Drive"
        ' ("Mounting drive is unsupported in this environment").'
    )
    unset = refused(Colab(KeyError("TBE_EPHEM_CREDS_ADDR")), tmp_path).message
    assert unset.endswith('("TBE_EPHEM_CREDS_ADDR is not set").')


def test_every_cause_has_a_next_step():
    from colabkit.runtime.mounting import Refusal, mount_error

    hints = {mount_error(Refusal(cause, "x"), "/m").hint for cause in MountFailure}
    assert len(hints) == len(MountFailure)
    passing = {cause for cause in MountFailure if cause.may_pass}
    assert passing == {MountFailure.NOBODY_THERE, MountFailure.TIMED_OUT, MountFailure.FAILED}


def test_nobody_there_is_told_by_the_time_it_took(tmp_path):
    colab = Colab(ValueError("mount failed"))
    colab.takes_s = 30.0
    assert refused(colab, tmp_path, timeout_s=30).cause is MountFailure.NOBODY_THERE
    silent = Colab(mounts=False)
    silent.takes_s = 30.0
    assert refused(silent, tmp_path, timeout_s=30).cause is MountFailure.NOBODY_THERE


def test_a_slow_read_of_an_earlier_call_explains_no_later_failure(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    said = "mount failed: timeout during initial read of root folder; for more info: x"
    colab = Colab(ValueError(said))
    assert refused(colab, tmp_path / "drive").cause is MountFailure.TIMED_OUT
    logs = tmp_path / ".config/Google/DriveFS/Logs"
    logs.mkdir(parents=True)
    (logs / "drive_fs.txt").write_text("I0101 QueryManager timed out\n")
    assert refused(colab, tmp_path / "drive").cause is MountFailure.FAILED
    colab.takes_s = 120.0
    assert refused(colab, tmp_path / "drive").cause is MountFailure.NOBODY_THERE


def test_a_mount_that_only_says_it_succeeded_is_not_believed(tmp_path):
    assert refused(Colab(mounts=False), tmp_path).cause is MountFailure.FAILED


def test_an_error_that_is_none_of_colabs_is_not_swallowed(tmp_path):
    with pytest.raises(ZeroDivisionError):
        Colab(ZeroDivisionError()).connect(tmp_path)


@pytest.fixture(params=["space", "relative", "file", "symlink", "full", "no parent"])
def unusable(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    (tmp_path / "file").touch()
    (tmp_path / "full").mkdir()
    (tmp_path / "full/stray").touch()
    (tmp_path / "folder").mkdir()
    (tmp_path / "symlink").symlink_to(tmp_path / "folder")
    return {
        "space": str(tmp_path / "my drive"),
        "relative": "drive",
        "file": str(tmp_path / "file"),
        "symlink": str(tmp_path / "symlink"),
        "full": str(tmp_path / "full"),
        "no parent": str(tmp_path / "no/parent/drive"),
    }[request.param]


def test_a_mountpoint_that_cannot_work_is_refused_before_colab_is_called(unusable):
    colab = Colab()
    assert refused(colab, unusable).cause is MountFailure.MOUNTPOINT_IN_USE
    assert colab.calls == []


def test_a_second_mountpoint_is_refused_before_it_cuts_the_first_off(tmp_path):
    colab = Colab()
    caught = refused(colab, tmp_path, others=("/content/drive",))
    assert caught.cause is MountFailure.MOUNTPOINT_IN_USE
    assert "/content/drive" in caught.message
    assert colab.calls == []
    assert colab.connect(tmp_path, others=(str(tmp_path),))


def test_read_only_is_asked_for_only_where_it_is_wanted(tmp_path):
    colab = Colab()
    colab.connect(tmp_path / "drive", readonly=True)
    assert [call[3:] for call in colab.calls] == [("readonly",)]


def test_a_folder_in_none_that_exists_is_answered_by_one_that_can_be_passed(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    colab = Colab()
    with pytest.raises(DriveMountError, match="the folder /no/such does not exist") as told:
        colab.connect("/no/such/drive")
    assert told.value.hint.endswith(f"such as '{tmp_path}/drive'.")
    assert colab.calls == []
    assert colab.connect(tmp_path / "drive")


def test_a_dead_mount_is_mounted_again_without_a_look_at_it(tmp_path):
    (tmp_path / "looks like a file of Drive").touch()
    colab = Colab()
    assert not colab.connect(tmp_path, is_lost=True).was_mounted


@pytest.mark.parametrize("timeout_s", [0, 0.9, -1, float("nan")])
def test_a_timeout_that_would_wait_for_ever_is_refused(timeout_s, tmp_path):
    colab = Colab()
    with pytest.raises(ArgumentError, match="timeout_s"):
        colab.connect(tmp_path, timeout_s=timeout_s)
    assert colab.calls == []


def test_only_the_main_thread_may_mount(tmp_path):
    colab, caught = Colab(), []

    def work() -> None:
        for call in (
            lambda: colab.connect(tmp_path),
            lambda: flush_and_unmount(tmp_path, load=colab.load),
        ):
            try:
                call()
            except DriveMountError as error:
                caught.append(error.cause)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert caught == [MountFailure.WRONG_THREAD] * 2
    assert colab.calls == []


def absent(name: str) -> Any:
    raise ModuleNotFoundError(name)


@pytest.mark.parametrize("place", ["", "missing/drive"])
def test_elsewhere_than_on_colab_nothing_can_be_mounted(place, tmp_path):
    with pytest.raises(DriveMountError) as caught:
        mount(tmp_path / place, is_mounted=lambda: False, load=absent)
    assert caught.value.cause is MountFailure.NOT_SUPPORTED
    with pytest.raises(DriveMountError):
        flush_and_unmount(tmp_path, load=absent)
    with pytest.raises(MachineReleaseError, match="Only a machine of Google Colab"):
        unassign(load=absent)


def test_flushing_waits_long_and_says_what_is_at_risk(tmp_path):
    colab = Colab()
    flush_and_unmount(tmp_path, load=colab.load)
    assert colab.calls == [("flush", 86_400_000)]
    with pytest.raises(StorageError, match=r"drive\.google\.com") as caught:
        flush_and_unmount(tmp_path, load=Colab(ValueError("flush_and_unmount failed")).load)
    assert (caught.value.path, caught.value.operation) == (str(tmp_path), "flush and unmount")


def test_a_machine_that_is_not_given_back_says_so():
    colab = Colab()
    with pytest.raises(MachineReleaseError, match="not allowed") as caught:
        unassign(load=Colab(RuntimeManagementError("not allowed")).load, sleep=colab.sleep)
    assert "Disconnect and delete runtime" in caught.value.hint
    assert colab.slept_s == 0
    for error in (OSError(101, "no route"), AttributeError("no 'unassign'")):
        with pytest.raises(MachineReleaseError, match="could not be given back"):
            unassign(load=Colab(error).load, sleep=colab.sleep)


@pytest.mark.parametrize(
    "error", [None, AttributeError("'NoneType' object has no attribute 'kernel'")]
)
def test_the_end_that_was_asked_for_is_waited_for(error):
    colab = Colab(error)
    with pytest.raises(MachineReleaseError, match="asked to end 5 min ago, and is still here"):
        unassign(load=colab.load, sleep=colab.sleep)
    assert colab.calls == [("unassign",)]
    assert colab.slept_s == 300
