"""Runs a program whose output is shown as it comes, and which an interrupt ends gently."""

from __future__ import annotations

import contextlib
import os
import selectors
import shutil
import signal
import subprocess
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import IO

import psutil

from colabkit.errors import ScriptError
from colabkit.notebook import show_output
from colabkit.projects.masking import MaskedText
from colabkit.runtime import start_program

_LOOK_S = 0.2
_READ_BYTES = 1 << 16
# fit saves a checkpoint when it is interrupted, and that may take a while on Drive.
_GENTLE_S = 60.0
_FIRM_S = 5.0
_LINGER_S = 1.0
_TAIL_CHARS = 2_000


class ShownProcess:
    """A program that runs.

    Args:
        command: What to run, with its arguments.
        folder: Where it works.
        environ: Its environment.
        secrets: Values that are not shown.
        tick: Called on this thread a few times a second.
    """

    def __init__(
        self,
        command: Sequence[str],
        *,
        folder: Path,
        environ: Mapping[str, str],
        secrets: tuple[str, ...],
        tick: Callable[[], None],
    ) -> None:
        self._tick = tick
        self._tail = ""
        try:
            self._process = start_program(
                command,
                cwd=folder,
                env=dict(environ),
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                # A Ctrl-C in a terminal would otherwise reach it twice.
                start_new_session=True,
            )
        except OSError as error:
            message = f"{command[0]} could not be started: {error.strerror}."
            hint = "Install the package that brings it anew: its interpreter may be gone."
            raise ScriptError(message, path=command[0], returncode=127, hint=hint) from error
        try:
            self._ward = _ward_of(self._process.pid)
        except BaseException:
            self._kill()
            raise
        self._streams: dict[IO[bytes], MaskedText] = {}
        for pipe in (self._process.stdout, self._process.stderr):
            assert pipe is not None, "both are pipes"  # noqa: S101
            self._streams[pipe] = MaskedText(secrets)

    @property
    def last_words(self) -> str:
        """The last line that it complained with, "" when it said nothing."""
        lines = [line.strip() for line in self._tail.splitlines() if line.strip()]
        return lines[-1] if lines else ""

    def wait(self) -> int:
        """Shows what it writes until it ends; returns its exit status.

        Raises:
            KeyboardInterrupt: The cell was interrupted; the program has ended too.
        """
        try:
            with selectors.DefaultSelector() as selector:
                for pipe in self._streams:
                    selector.register(pipe, selectors.EVENT_READ)
                try:
                    return self._pump(selector)
                except KeyboardInterrupt:
                    self._stop(selector)
                    # What it had started is interrupted as well, as in a terminal.
                    self._signal(signal.SIGKILL)
                    raise
        finally:
            self._kill()
            for pipe in self._streams:
                pipe.close()
            if self._ward is not None:
                self._ward.kill()
                self._ward.communicate()

    def _pump(self, selector: selectors.BaseSelector, until_s: float | None = None) -> int:
        ended_s: float | None = None
        while selector.get_map():
            ready = selector.select(_LOOK_S)
            for key, _ in ready:
                self._read(selector, key.fileobj)  # type: ignore[arg-type]
            now_s = time.monotonic()
            self._tick()
            if self._process.poll() is not None:
                # What it left in the background may hold the pipes open for ever.
                ended_s = now_s if ready or ended_s is None else ended_s
                if now_s - ended_s > _LINGER_S:
                    break
            if until_s is not None and now_s > until_s:
                raise TimeoutError
        while self._process.poll() is None:
            self._tick()
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._process.wait(_LOOK_S)
            if until_s is not None and time.monotonic() > until_s:
                raise TimeoutError
        return self._process.returncode

    def _read(self, selector: selectors.BaseSelector, pipe: IO[bytes]) -> None:
        data = os.read(pipe.fileno(), _READ_BYTES)
        stream = self._streams[pipe]
        text = stream.feed(data) if data else stream.end()
        if not data:
            selector.unregister(pipe)
        is_error = pipe is self._process.stderr
        if text:
            show_output(text, is_error=is_error)
        if is_error:
            self._tail = (self._tail + text)[-_TAIL_CHARS:]

    def _stop(self, selector: selectors.BaseSelector) -> None:
        for number, patience_s in ((signal.SIGINT, _GENTLE_S), (signal.SIGTERM, _FIRM_S)):
            self._signal(number)
            try:
                self._pump(selector, time.monotonic() + patience_s)
            except (TimeoutError, KeyboardInterrupt):
                continue
            return

    def _kill(self) -> None:
        if self._process.poll() is None:
            started = _descendants_of(self._process.pid)
            self._signal(signal.SIGKILL)
            self._process.wait()
            for each in started:
                # torchrun's workers have sessions of their own, and outlive it.
                with contextlib.suppress(psutil.Error):
                    each.kill()

    def _signal(self, number: signal.Signals) -> None:
        # Once it is reaped, a process of its number is somebody else's, and so is the group.
        if self._process.returncode is not None and psutil.pid_exists(self._process.pid):
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._process.pid, number)


# When this process dies, however it does, its end of the pipe is closed.
# The group is a number above 1: "-1" would be every process of this machine.
_WARD = """
[ "$1" -gt 1 ] || exit 1
read _
kill -s TERM -- "-$1"
left=$2
while [ "$left" -gt 0 ]; do kill -s 0 -- "-$1" || exit 0; sleep 1; left=$((left - 1)); done
kill -s KILL -- "-$1"
"""


def _ward_of(group: int) -> subprocess.Popen[bytes] | None:
    """Starts what ends a program whose notebook was killed: nobody else could, or keeps its output.

    A program that is told to end has as long as after an interrupt.
    """
    shell = shutil.which("sh")
    if shell is None:
        return None
    return start_program(
        [shell, "-c", _WARD, "colabkit-ward", str(group), str(int(_GENTLE_S))],
        stdin=subprocess.PIPE,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
        start_new_session=True,
    )


def _descendants_of(pid: int) -> list[psutil.Process]:
    try:
        return psutil.Process(pid).children(recursive=True)
    except psutil.Error:
        return []
