"""Named threads that stop together; the first failure is raised on the caller's thread."""

from __future__ import annotations

import contextlib
import queue
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator
from concurrent.futures import Executor, Future
from typing import Any, Generic, TypeVar

# For all threads of a group together, counted from the first stop.
_JOIN_TIMEOUT_S = 1.5
_ITEMS_MAX = 1024

Item = TypeVar("Item")
Result = TypeVar("Result")


class WorkersStoppedError(Exception):
    """Another thread failed, or the caller gave up: end quietly."""


class WorkerGroup:
    """Threads with one owner.

    ``lock`` guards what they share, ``changed`` is notified when the owner should look.
    """

    def __init__(self) -> None:
        self.lock = threading.RLock()
        self.changed = threading.Condition(self.lock)
        self._conditions = [self.changed]
        self._threads: list[threading.Thread] = []
        self._running = 0
        self._failure: BaseException | None = None
        self._join_until_s: float | None = None
        self.stopped = False

    def condition(self) -> threading.Condition:
        """Returns a condition on the group's lock that is notified when the group stops."""
        condition = threading.Condition(self.lock)
        self._conditions.append(condition)
        return condition

    def start(self, name: str, work: Callable[[], None], *, awaited: bool) -> None:
        """Starts a thread; the group is done when all awaited ones are."""

        def run() -> None:
            try:
                work()
            except WorkersStoppedError:
                pass
            except BaseException as error:  # noqa: BLE001 - raised on the owner's thread
                self._fail(error)
            finally:
                with self.lock:
                    self._running -= awaited
                    self.changed.notify_all()

        thread = threading.Thread(target=run, name=f"colabkit-{name}", daemon=True)
        with self.lock:
            self._running += awaited
            self._threads.append(thread)
        thread.start()

    def do(self, work: Callable[[], None]) -> None:
        """Works on the owner's own thread, which ``done`` then raises the others' failures on."""
        with contextlib.suppress(WorkersStoppedError):
            work()

    def check(self) -> None:
        """Raises WorkersStoppedError once the workers has stopped; what takes long asks often."""
        if self.stopped:
            raise WorkersStoppedError

    def wait(self, condition: threading.Condition) -> None:
        """Waits for news; raises WorkersStoppedError once the group has stopped. Holds the lock."""
        self.check()
        condition.wait()
        self.check()

    def wait_for(self, condition: threading.Condition, ready: Callable[[], bool]) -> None:
        """Waits until something holds."""
        self.check()
        while not ready():
            self.wait(condition)

    def done(self, timeout_s: float) -> bool:
        """Waits for news on the owner's thread; raises a worker's failure."""
        with self.lock:
            if self._running and self._failure is None:
                self.changed.wait(timeout_s)
            if self._failure is not None:
                raise self._failure
            return not self._running

    def stop(self) -> None:
        """Ends all threads; one that hangs in a dead mount is left behind."""
        with self.lock:
            self.stopped = True
            for condition in self._conditions:
                condition.notify_all()
        if self._join_until_s is None:
            self._join_until_s = time.monotonic() + _JOIN_TIMEOUT_S
        for thread in self._threads:
            thread.join(max(0.0, self._join_until_s - time.monotonic()))

    def _fail(self, error: BaseException) -> None:
        with self.lock:
            if self._failure is None:
                self._failure = error
            self.stopped = True
            for condition in self._conditions:
                condition.notify_all()


class BoundedQueue(Generic[Item]):
    """Hands items from one thread of a group to others, within so many bytes."""

    def __init__(self, workers: WorkerGroup, nbytes_max: int) -> None:
        self._workers = workers
        self._nbytes_max = nbytes_max
        self._items: deque[tuple[Item, int]] = deque()
        self._nbytes = 0
        self._closed = False
        self._room = workers.condition()
        self._filled = workers.condition()

    def put(self, item: Item, nbytes: int) -> None:
        """Adds an item, waiting while there are too many bytes before it."""
        with self._workers.lock:
            self._workers.wait_for(self._room, lambda: not self._items or self._has_room())
            self._items.append((item, nbytes))
            self._nbytes += nbytes
            self._filled.notify()

    def close(self) -> None:
        """Says that no more will come."""
        with self._workers.lock:
            self._closed = True
            self._filled.notify_all()

    def __iter__(self) -> Iterator[Item]:
        while True:
            with self._workers.lock:
                self._workers.wait_for(self._filled, lambda: bool(self._items) or self._closed)
                if not self._items:
                    return
                item, nbytes = self._items.popleft()
                self._nbytes -= nbytes
                self._room.notify()
            yield item

    def _has_room(self) -> bool:
        return self._nbytes < self._nbytes_max and len(self._items) < _ITEMS_MAX


class Pool(Executor):
    """An executor whose threads nobody waits for when the process ends.

    Python's own are waited for there: one that hangs in a dead mount would keep a script for
    ever that Ctrl-C has ended.

    Args:
        threads: How many there are at most; each is started when there is work for it.
        name: What they are called.
    """

    def __init__(self, threads: int, name: str) -> None:
        self._threads_max = threads
        self._name = name
        self._threads: list[threading.Thread] = []
        self._tasks: queue.SimpleQueue[tuple[Future[Any], Callable[[], Any]] | None]
        self._tasks = queue.SimpleQueue()
        self._idle = threading.Semaphore(0)
        self._guard = threading.Lock()

    def submit(self, fn: Callable[..., Result], /, *args: Any, **kwargs: Any) -> Future[Result]:
        """Has a thread call a function; the future gets what that returns or raises."""
        future: Future[Result] = Future()
        with self._guard:
            self._tasks.put((future, lambda: fn(*args, **kwargs)))
            if not self._idle.acquire(blocking=False) and len(self._threads) < self._threads_max:
                name = f"{self._name}_{len(self._threads)}"
                thread = threading.Thread(target=self._work, name=name, daemon=True)
                self._threads.append(thread)
                thread.start()
        return future

    def shutdown(self, wait: bool = True, *, cancel_futures: bool = False) -> None:
        """Ends the threads when all is done, or what they are at; nothing is submitted then."""
        if cancel_futures:
            with contextlib.suppress(queue.Empty):
                while (task := self._tasks.get_nowait()) is not None:
                    task[0].cancel()
        for _ in self._threads:
            self._tasks.put(None)
        if wait:
            for thread in self._threads:
                thread.join()

    def _work(self) -> None:
        while (task := self._tasks.get()) is not None:
            _run_into(*task)
            del task
            self._idle.release()


def _run_into(future: Future[Any], call: Callable[[], Any]) -> None:
    if not future.set_running_or_notify_cancel():
        return
    try:
        result = call()
    except BaseException as error:  # noqa: BLE001 - raised where the result is asked for
        future.set_exception(error)
    else:
        future.set_result(result)
