"""One process works on a dataset; the others wait and show how far it is."""

from __future__ import annotations

import contextlib
import json
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TypeVar

from colabkit.datasets.cache.locks import alone_at
from colabkit.datasets.cache.slots import Slot
from colabkit.datasets.reading.progress import Phase, Standing, Watch
from colabkit.datasets.reading.retrying import Retrier
from colabkit.errors import StorageError
from colabkit.notebook import Transfer, TransferBar
from colabkit.storage import write_whole

Result = TypeVar("Result")

_POLL_S = 0.1
_TELL_PERIOD_S = 0.5
_STOP_TIMEOUT_S = 4.0


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
        bar.update(_transfer(_told(slot.doing), waiting=True))
        time.sleep(_POLL_S)

    with contextlib.ExitStack() as stack:
        try:
            slot.side.mkdir(parents=True, exist_ok=True)
            stack.enter_context(alone_at(slot.lock, wait=wait))
        except OSError as error:
            message = f"{slot.folder.parent} cannot be written to: {error.strerror or error}."
            hint = "Pass dest= in a folder that you may write to, or set COLABKIT_CACHE to one."
            raise StorageError(message, path=slot.folder, operation="write", hint=hint) from error
        yield waited


def attended(
    work: Callable[[], Result],
    *,
    watch: Watch,
    retrier: Retrier,
    bar: TransferBar,
    doing: Path | None = None,
) -> Result:
    """Does the work on a thread, while this one shows it, mounts again, and heeds Ctrl-C.

    Args:
        work: What to do; it passes ``watch`` often.
        watch: Says how far it is.
        retrier: Mounts again on this thread.
        bar: Shows it.
        doing: Where to note it for processes that wait.

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
    told_s = 0.0
    has_ended = False
    try:
        while not has_ended:
            has_ended = ended.wait(_POLL_S)
            standing = watch.standing()
            bar.update(_transfer(standing))
            if threading.current_thread() is threading.main_thread():
                retrier.tend()
            if doing is not None and time.monotonic() - told_s > _TELL_PERIOD_S:
                told_s = time.monotonic()
                _tell(doing, standing)
    except BaseException:
        watch.stopped.set()
        # What hangs in a dead mount is left behind: it may not publish any more.
        ended.wait(_STOP_TIMEOUT_S)
        raise
    finally:
        if doing is not None:
            with contextlib.suppress(OSError):
                doing.unlink()
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
    # Nothing depends on it but what another process shows while it waits.
    with contextlib.suppress(OSError):
        write_whole(path, json.dumps(content).encode(), durable=False)


def _told(path: Path) -> Standing:
    try:
        content = json.loads(path.read_text())
        return Standing(Phase[content["phase"]], *content["bytes"], *content["files"])
    except (OSError, ValueError, KeyError, TypeError):
        return Standing(Phase.WAITING)
