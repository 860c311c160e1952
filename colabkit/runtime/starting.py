"""Starts other programs: the one door, so that a mount that hangs never holds this process."""

from __future__ import annotations

import contextlib
import os
import subprocess
import threading
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

_lent = threading.Lock()


def start_program(
    command: Sequence[str | os.PathLike[str]],
    *,
    pass_fds: Collection[int] = (),
    cwd: str | os.PathLike[str] | None = None,
    env: Mapping[Any, Any] | None = None,
    stdin: Any = None,
    stdout: Any = None,
    stderr: Any = None,
    text: bool = False,
    start_new_session: bool = False,
) -> subprocess.Popen[Any]:
    """Starts a program; as ``subprocess.Popen``, but that only its caller ever waits for it.

    Until the new process runs its program, nobody in this one gets the interpreter (``vfork``).
    What Python closes there meanwhile may lie on a mount that hangs, and with it would all of the
    notebook, its stop button included. So nothing is closed there: the kernel does it as the
    program begins, when this process runs on. Files that Python opens are never inherited; what
    others have made inheritable is, as by ``os.fork``.

    Args:
        command: The program and its arguments; there is no shell.
        pass_fds: Files of this process that it is to have under their numbers.
        cwd: Where it works.
        env: Its environment, None for that of this process.
        stdin: As of ``subprocess.Popen``, and so are the others.
        stdout: Where it writes.
        stderr: Where it complains.
        text: Whether its streams are text.
        start_new_session: Whether a Ctrl-C in the terminal is not for it.

    Raises:
        OSError: It cannot be started.
    """
    with _lent_to_one(pass_fds):
        return subprocess.Popen(  # noqa: S603  # no shell
            [os.fspath(each) for each in command],
            cwd=cwd,
            env=env,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr,
            text=text,
            errors="replace" if text else None,
            start_new_session=start_new_session,
            close_fds=False,
        )


@contextlib.contextmanager
def _lent_to_one(descriptors: Collection[int]) -> Iterator[None]:
    """Makes files inheritable for the one program that begins now, and for no other."""
    with _lent:
        before = {each: os.get_inheritable(each) for each in descriptors}
        try:
            for each in before:
                os.set_inheritable(each, True)
            yield
        finally:
            for each, was_inheritable in before.items():
                os.set_inheritable(each, was_inheritable)


def _forget_who_starts() -> None:
    """Opens the door in a process that was forked while another thread stood in it."""
    global _lent  # a lock cannot be opened by who has not closed it
    _lent = threading.Lock()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_forget_who_starts)


def run_to_end(
    command: Sequence[str | os.PathLike[str]], *, timeout_s: float, **options: Any
) -> subprocess.CompletedProcess[Any]:
    """Runs a program and waits for its end; it is killed when its time is up.

    Args:
        command: The program and its arguments.
        timeout_s: How long it may take, in seconds.
        options: As of ``start_program``.

    Raises:
        OSError: It cannot be started.
        subprocess.TimeoutExpired: Its time was up.
    """
    with start_program(command, **options) as running:
        try:
            said, complained = running.communicate(timeout=timeout_s)
        except BaseException:
            running.kill()
            raise
    return subprocess.CompletedProcess(running.args, running.returncode, said, complained)
