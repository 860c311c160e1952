"""Processes that a call of ``fit`` starts to train along, seen from the notebook's kernel."""

from __future__ import annotations

import contextlib
import datetime
import json
import os
import selectors
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import torch
import torch.distributed

from colabkit.errors import ProcessLostError
from colabkit.fitting.helper_words import Event, Orders, Word
from colabkit.fitting.torch.handing_over import (
    NotHandedOverError,
    Package,
    Surroundings,
    packed,
)
from colabkit.frameworks.torch.connections import Connections
from colabkit.frameworks.torch.world import device_of_rank, join, leave, tell_lost
from colabkit.notebook import show_output
from colabkit.runtime import start_program

# It names its stores without exporting them.
dist: Any = torch.distributed
HOST = "127.0.0.1"
# A disk that is read for the first time gives PyTorch slowly.
JOIN_TIMEOUT = datetime.timedelta(seconds=120)
_LOOK_EVERY_S = 0.1
# Who fails says why before it ends, and callbacks may take their time after the last step.
_SAY_WHY_S, _END_S = 5.0, 60.0
_AGAIN = "Run the cell again: training goes on from the newest checkpoint."


class TracebackOfProcess(Exception):  # noqa: N818  # it is one, and no error of its own
    """Stands for an error in another process, whose traceback is its text."""


@contextlib.contextmanager
def helped(count: int, arguments: tuple[Any, ...], *, backend: str) -> Iterator[None]:
    """Has others train along with what this process trains meanwhile, as number 0 of them.

    Args:
        count: How many train in all.
        arguments: What the others are to train: model, data, folder and options.
        backend: How they meet: "gloo" or "nccl".

    Raises:
        NotHandedOverError: The arguments cannot be handed to them. Nothing was done.
        ProcessLostError: One of them has failed or died.
    """
    opened = Connections()
    store = dist.TCPStore(HOST, 0, is_master=True, wait_for_workers=False, timeout=JOIN_TIMEOUT)
    # Ctrl-C may come anywhere, also as the package is closed: nothing is started before the try.
    helpers = Helpers(count, port=store.port, backend=backend)
    try:
        with packed((Surroundings.here(), arguments)) as package:
            helpers.start(package)
            helpers.wait_until_ready()
        try:
            with _joined(store, helpers, opened, count, backend):
                yield
                # They end before what they have met at does.
                helpers.wait_for_end()
        except ProcessLostError as error:
            lost, cause = helpers.why_lost(error)
            raise lost from cause
    finally:
        helpers.end()


@contextlib.contextmanager
def _joined(
    store: Any, helpers: Helpers, opened: Connections, count: int, backend: str
) -> Iterator[None]:
    """Makes this process number 0 of so many, and afterwards what it was before."""
    device = torch.cuda.current_device() if backend == "nccl" else None

    def meet() -> None:
        try:
            dist.init_process_group(
                backend, store=store, rank=0, world_size=count, timeout=JOIN_TIMEOUT
            )
        except RuntimeError as error:
            message = f"The {count} processes have not come together: {error}"
            raise ProcessLostError(message, hint=_AGAIN) from error
        join(device_of_rank("cuda") if backend == "nccl" else torch.device("cpu"))

    try:
        helpers.unless_one_ends(meet, opened)
        yield
    finally:
        leave()
        if device is not None:
            torch.cuda.set_device(device)


class _Helper:
    """One such process.

    Attributes:
        rank: Its number, from 1.
        process: The process.
        word: What it has said last.
        code: How it has ended; None as long as it lives.
    """

    def __init__(self, orders: Orders, said: int) -> None:
        self.rank = orders.rank
        self.said = said
        self.word: Word | None = None
        self.code: int | None = None
        self.process = start_program(
            [
                *(sys.executable, "-P", "-m", "colabkit.fitting.helper_process"),
                json.dumps(orders),
            ],
            env=_environment(orders),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            pass_fds=(orders.words, orders.package),
            # The notebook's stop button is for number 0, which tells the others.
            start_new_session=True,
        )

    @property
    def event(self) -> Event | None:
        return self.word.event if self.word else None

    def how_it_ended(self) -> str:
        """Returns what is known of an end that it has said nothing of."""
        name = f"Process {self.rank}"
        code = self.code or 0
        if code < 0:
            why = ": its memory may have run out" if -code == signal.SIGKILL else ""
            return f"{name} was ended by {signal.Signals(-code).name}{why}."
        return f"{name} ended with status {code}, and said nothing."


class Helpers:
    """Those processes, which a thread watches; what they print is printed here.

    Args:
        count: How many train in all, this process included.
        port: Where they meet.
        backend: How they meet.
    """

    def __init__(self, count: int, *, port: int, backend: str) -> None:
        self._count, self._port, self._backend = count, port, backend
        self._changed = threading.Condition()
        self._is_over = False
        self._helpers: list[_Helper] = []
        self._thread = threading.Thread(target=self._watch, name="colabkit-helpers", daemon=True)

    def start(self, package: Package) -> None:
        """Starts them, with what they are to train.

        Raises:
            NotHandedOverError: This machine starts no more programs.
        """
        for rank in range(1, self._count):
            said, words = os.pipe()
            try:
                size, port = self._count, self._port
                orders = Orders(os.getpid(), words, *package, rank, size, port, self._backend)
                self._helpers.append(_Helper(orders, said))
            except BaseException as error:
                os.close(said)
                if isinstance(error, OSError):
                    message = f"another process cannot be started ({error})"
                    raise NotHandedOverError(message) from error
                raise
            finally:
                os.close(words)
        self._thread.start()

    def wait_until_ready(self) -> None:
        """Waits until each has what it is to train.

        Raises:
            NotHandedOverError: It cannot be made again in another process.
            ProcessLostError: One has ended, or has not come so far in time.
        """
        self._wait(lambda each: each.event is not None, JOIN_TIMEOUT.total_seconds())
        for helper in self._helpers:
            if helper.word is not None and helper.event is Event.UNFIT:
                message = (
                    f"what was passed cannot be made again in another process ({helper.word.text})"
                )
                raise NotHandedOverError(message)
        for helper in self._helpers:
            if helper.event is not Event.READY:
                message = f"Process {helper.rank} has not begun in time."
                if helper.code is not None:
                    message = helper.how_it_ended()
                raise ProcessLostError(message, hint=_AGAIN)

    def unless_one_ends(self, work: Callable[[], None], opened: Connections) -> None:
        """Does what waits for them, and gives up as soon as it waits in vain.

        Args:
            work: What may wait for them.
            opened: What it waits on has been opened since.

        Raises:
            ProcessLostError: One has ended meanwhile.
        """
        outcome: list[BaseException | None] = []

        def run() -> None:
            error: BaseException | None = None
            try:
                work()
            except BaseException as raised:  # noqa: BLE001  # raised again by who waits
                error = raised
            with self._changed:
                outcome.append(error)
                self._changed.notify_all()

        thread = threading.Thread(target=run, name="colabkit-meeting", daemon=True)
        thread.start()
        try:
            with self._changed:
                while not (outcome or any(each.code is not None for each in self._helpers)):
                    self._changed.wait(_LOOK_EVERY_S)
        finally:
            if is_in_vain := not outcome:
                opened.note()
                opened.end()
            thread.join(_SAY_WHY_S)
        if is_in_vain:
            message = "Another process has ended before all had come together."
            raise ProcessLostError(message, hint=_AGAIN)
        if outcome[0] is not None:
            raise outcome[0]

    def wait_for_end(self) -> None:
        """Waits until each has done all, once this process has.

        Raises:
            ProcessLostError: One has failed after the last step that all take.
        """
        self._wait(lambda _: False, _END_S)
        if any(each.event is not Event.DONE for each in self._helpers):
            message = "All is trained and saved, and another process has not come to its end."
            raise ProcessLostError(message)

    def why_lost(self, error: ProcessLostError) -> tuple[ProcessLostError, BaseException]:
        """Returns what is known of a loss: the error to raise, and what has led to it."""
        self._wait(lambda each: each.event is not Event.READY, _SAY_WHY_S)
        for helper in self._helpers:
            if helper.word is not None and helper.event is Event.FAILED:
                last = helper.word.text.strip().splitlines()[-1]
                message = f"Process {helper.rank} has failed: {last}"
                cause = TracebackOfProcess(f"process {helper.rank}\n{helper.word.text}")
                return ProcessLostError(message, hint=_AGAIN), cause
        for helper in self._helpers:
            if helper.code is not None and helper.event is Event.READY:
                return ProcessLostError(helper.how_it_ended(), hint=_AGAIN), error
        return ProcessLostError(error.message, hint=_AGAIN), error

    def end(self) -> None:
        """Leaves no process behind, and nothing unsaid."""
        self._is_over = True
        for helper in self._helpers:
            if helper.code is None:
                # With the processes that load its data; it leads a group of its own.
                with contextlib.suppress(ProcessLookupError, PermissionError):
                    os.killpg(helper.process.pid, signal.SIGKILL)
        if self._thread.ident is None:
            self._thread.start()  # it closes what has been opened to them
        self._thread.join()

    def _wait(self, is_enough: Callable[[_Helper], bool], timeout_s: float) -> None:
        """Waits until each has said enough or has ended, or one cannot go on."""
        deadline_s = time.monotonic() + timeout_s
        with self._changed:
            while time.monotonic() < deadline_s:
                if all(each.code is not None or is_enough(each) for each in self._helpers):
                    return
                if any(each.event in {Event.UNFIT, Event.FAILED} for each in self._helpers):
                    return
                self._changed.wait(_LOOK_EVERY_S)

    def _watch(self) -> None:
        """Reads what they say and print, and notes who has ended."""
        with selectors.DefaultSelector() as selector:
            lines = [each for helper in self._helpers for each in self._lines_of(helper)]
            for each in lines:
                selector.register(each.source, selectors.EVENT_READ, each)
            while True:
                ended = [
                    each
                    for each in self._helpers
                    if each.code is None and each.process.poll() is not None
                ]
                wait_s = 0.0 if ended or self._all_ended() else _LOOK_EVERY_S
                has_read = _read(selector, wait_s)
                for helper in ended:
                    self._note_end(helper)
                if self._all_ended() and not (has_read or ended):
                    break
        for each in lines:
            each.close()
        for helper in self._helpers:
            for stream in (helper.process.stdin, helper.process.stdout, helper.process.stderr):
                if stream is not None:
                    stream.close()
            os.close(helper.said)

    def _lines_of(self, helper: _Helper) -> list[_Lines]:
        def hear(line: bytes) -> None:
            with self._changed:
                helper.word = Word.read(line)
                self._changed.notify_all()

        def show(line: bytes, *, is_error: bool) -> None:
            # What a progress bar has overwritten is left out.
            text = line.decode(errors="replace").rstrip("\r\n").rpartition("\r")[2]
            with contextlib.suppress(OSError, ValueError):
                show_output(f"process {helper.rank}: {text}\n", is_error=is_error)

        process = helper.process
        assert process.stdout is not None  # noqa: S101  # asked for above
        assert process.stderr is not None  # noqa: S101  # asked for above
        return [
            _Lines(helper.said, hear),
            _Lines(process.stdout.fileno(), lambda line: show(line, is_error=False)),
            _Lines(process.stderr.fileno(), lambda line: show(line, is_error=True)),
        ]

    def _note_end(self, helper: _Helper) -> None:
        with self._changed:
            helper.code = helper.process.returncode
            self._changed.notify_all()
        if helper.event is Event.READY and not self._is_over:
            tell_lost(helper.how_it_ended())

    def _all_ended(self) -> bool:
        return all(helper.code is not None for helper in self._helpers)


class _Lines:
    """What comes from one open file, handed on line by line.

    Args:
        source: Number of the open file.
        take: Called with each line.
    """

    def __init__(self, source: int, take: Callable[[bytes], None]) -> None:
        self.source = source
        self._take = take
        self._begun = b""

    def read(self) -> bool:
        """Reads what is there; returns whether there was anything."""
        content = os.read(self.source, 1 << 16)
        *whole, self._begun = (self._begun + content).split(b"\n")
        for line in whole:
            self._take(line)
        return bool(content)

    def close(self) -> None:
        """Hands on what has no end of line."""
        if self._begun:
            self._take(self._begun)


def _read(selector: selectors.BaseSelector, wait_s: float) -> bool:
    """Reads what has come; returns whether anything has."""
    has_read = False
    for key, _ in selector.select(wait_s):
        if key.data.read():
            has_read = True
        else:
            selector.unregister(key.fileobj)
    return has_read


def _environment(orders: Orders) -> dict[str, str]:
    """Returns this process's own, with the modules that it finds and the number of a GPU."""
    path = os.pathsep.join(part or str(Path.cwd()) for part in sys.path)
    own = {"PYTHONPATH": path, "PYTHONUNBUFFERED": "1", "LOCAL_RANK": f"{orders.rank}"}
    return {**os.environ, **own}
