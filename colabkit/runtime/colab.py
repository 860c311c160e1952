"""google.colab behind typed functions: each of its failures becomes one of colabkit's."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib
import io
import logging
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

from colabkit.errors import MachineReleaseError, MountFailure, StorageError
from colabkit.runtime.mounting import (
    Refusal,
    check_mountpoint,
    has_logged_a_slow_read,
    mount_error,
    refusal_of,
    wrong_thread,
)

_logger = logging.getLogger(__name__)
_DAY_S = 24 * 3600.0
_END_S = 300.0


@dataclasses.dataclass(frozen=True, slots=True)
class MountOutcome:
    """What a call of ``mount`` did.

    Attributes:
        mountpoint: Where Drive is.
        was_mounted: Whether it was there already, so that nothing was done.
        took_s: How long the call took.
    """

    mountpoint: str
    was_mounted: bool
    took_s: float


def mount(
    mountpoint: str | Path,
    *,
    is_mounted: Callable[[], bool],
    timeout_s: float = 120.0,
    is_lost: bool = False,
    others: tuple[str, ...] = (),
    readonly: bool = False,
    load: Callable[[str], Any] = importlib.import_module,
    clock: Callable[[], float] = time.monotonic,
) -> MountOutcome:
    """Mounts Drive, after everything that can be wrong was looked at.

    Nothing is asked of google.colab while the call cannot succeed: it takes a live mount
    down before it checks its arguments. Whether it succeeded is read in the mount table,
    since it says nothing when nobody answers its question for access.

    Args:
        mountpoint: Where Drive is to be.
        is_mounted: Whether Drive is mounted there, and alive.
        timeout_s: How long to wait for the person, and again for Drive; whole seconds.
        is_lost: Whether a dead mount lies there: it is not looked at, which may take for ever.
        others: Where Drive is mounted besides; mounting here would cut it off there.
        readonly: Whether nothing is to be written to it.
        load: Imports a module by name, for tests.
        clock: Seconds that only grow.

    Raises:
        DriveMountError: Drive is not mounted; ``cause`` says why.
        ArgumentError: ``timeout_s`` is below a second, which google.colab takes for "for ever".
    """
    target = str(mountpoint)
    wrong_thread(target, threading.current_thread() is threading.main_thread())
    is_there = not is_lost and is_mounted()
    is_covered = is_there or is_lost
    # First: off Colab the default mountpoint cannot be used either, and that is not the reason.
    drive = None if is_there else _drive(load, target)
    check_mountpoint(target, timeout_s=timeout_s, is_covered=is_covered, others=others)
    began_s = clock()
    if drive is None:
        return MountOutcome(target, was_mounted=True, took_s=0.0)
    failures, was_slow = _failures(load), has_logged_a_slow_read()
    how = {"readonly": True} if readonly else {}
    with _stoppable(target):
        try:
            with _listening("drive.mount"), _nothing_cleared(load):
                drive.mount(target, timeout_ms=int(timeout_s) * 1000, **how)
        except failures as error:
            waited_s = clock() - began_s
            refusal = refusal_of(error, waited_s=waited_s, timeout_s=timeout_s, was_slow=was_slow)
            raise mount_error(refusal, target) from error
    took_s = clock() - began_s
    if not is_mounted():
        is_late = took_s >= int(timeout_s)
        cause = MountFailure.NOBODY_THERE if is_late else MountFailure.FAILED
        raise mount_error(Refusal(cause, "it is not in the mount table"), target)
    return MountOutcome(target, was_mounted=False, took_s=took_s)


def flush_and_unmount(
    mountpoint: str | Path,
    *,
    timeout_s: float = _DAY_S,
    load: Callable[[str], Any] = importlib.import_module,
) -> None:
    """Uploads what Drive's cache holds and takes the mount down; there is no other flush.

    Raises:
        DriveMountError: This is not the main thread, or not Colab.
        StorageError: It failed or took too long; what is not uploaded yet is at risk.
    """
    target = str(mountpoint)
    wrong_thread(target, threading.current_thread() is threading.main_thread())
    drive = _drive(load, target)
    try:
        with _listening("drive.flush_and_unmount"):
            drive.flush_and_unmount(timeout_ms=max(1, int(timeout_s)) * 1000)
    except _failures(load) as error:
        message = f'Drive at {target} could not be flushed and unmounted ("{error}").'
        hint = (
            "The machine is kept. Close the files that are open on Drive, which it does not"
            " upload, and look in drive.google.com for what has arrived."
        )
        raise StorageError(
            message, path=target, operation="flush and unmount", hint=hint
        ) from error


def unassign(
    *,
    load: Callable[[str], Any] = importlib.import_module,
    sleep: Callable[[float], None] = time.sleep,
) -> None:
    """Gives the machine back and waits for its end; what Drive has not uploaded by then is lost.

    google.colab returns at once, and the machine lives on for seconds: what a notebook does
    meanwhile it does for nothing, into a folder where Drive was.

    Args:
        load: Imports a module by name, for tests.
        sleep: Waits some seconds, for tests.

    Raises:
        MachineReleaseError: It could not be given back, or this is not Colab.
    """
    hint = "Runtime → Disconnect and delete runtime gives it back by hand."
    try:
        runtime = load("google.colab.runtime")
    except ImportError as error:
        message = "Only a machine of Google Colab can be given back, and this is none."
        raise MachineReleaseError(message) from error
    try:
        with _listening("runtime.unassign"):
            runtime.unassign()
    except _failures(load) as error:
        # Without a notebook there is no page to tell of it, after the end was asked for.
        if not (isinstance(error, AttributeError) and "kernel" in str(error)):
            message = f'The machine could not be given back ("{error}").'
            raise MachineReleaseError(message, hint=hint) from error
    sys.stdout.flush()
    sleep(_END_S)
    message = f"This machine was asked to end {_END_S / 60:.0f} min ago, and is still here."
    raise MachineReleaseError(message, hint=hint)


@contextlib.contextmanager
def _stoppable(mountpoint: str) -> Iterator[None]:
    """Lets an interrupt end the wait at once, also where a training holds interrupts back.

    Raises:
        DriveMountError: It came; who holds interrupts back has been told of it.
    """
    holder = signal.getsignal(signal.SIGINT)
    if not callable(holder) or holder is signal.default_int_handler:
        yield
        return
    signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    except KeyboardInterrupt as interrupt:
        holder(signal.SIGINT, None)
        refusal = Refusal(MountFailure.STOPPED, "the cell was interrupted")
        raise mount_error(refusal, mountpoint) from interrupt
    finally:
        signal.signal(signal.SIGINT, holder)


@contextlib.contextmanager
def _nothing_cleared(load: Callable[[str], Any]) -> Iterator[None]:
    """Keeps what the cell has shown: google.colab clears its question away after a mount.

    It marks what is meant with tags, which its own page alone looks at: any other client takes
    away all that the cell has shown.
    """
    try:
        output = load("google.colab.output")
        clear = output.clear
    except (ImportError, AttributeError):
        yield
        return
    output.clear = lambda *_, **__: None
    try:
        yield
    finally:
        output.clear = clear


def _drive(load: Callable[[str], Any], mountpoint: str) -> Any:
    try:
        return load("google.colab.drive")
    except ImportError as error:
        refusal = Refusal(MountFailure.NOT_SUPPORTED, "google.colab cannot be imported")
        raise mount_error(refusal, mountpoint) from error


def _failures(load: Callable[[str], Any]) -> tuple[type[BaseException], ...]:
    """Returns what google.colab is known to raise."""
    found: list[type[BaseException]] = [
        ValueError,
        KeyError,
        TypeError,
        NotImplementedError,
        AttributeError,
        OSError,
    ]
    for module, name in (
        ("google.colab._message", "MessageError"),
        ("google.colab.errors", "Error"),
        ("httplib2", "HttpLib2Error"),
        ("pexpect", "TIMEOUT"),
        ("pexpect", "EOF"),
    ):
        with contextlib.suppress(ImportError):
            kind = getattr(load(module), name, None)
            if isinstance(kind, type) and issubclass(kind, BaseException):
                found.append(kind)
    return tuple(found)


@contextlib.contextmanager
def _listening(call: str) -> Iterator[None]:
    """Sends what google.colab prints to the log; colabkit says it in its own words."""
    said = io.StringIO()
    try:
        with contextlib.redirect_stdout(said):
            yield
    finally:
        if said.getvalue():
            _logger.debug("%s said: %s", call, said.getvalue().strip())
