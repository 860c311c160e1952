"""Which errors may pass, and how long they are waited for: one table for whoever tries again."""

from __future__ import annotations

import errno
import time
from collections.abc import Callable
from typing import TypeVar

from colabkit.errors import DriveLostError, StorageError

T = TypeVar("T")

LOST = frozenset({errno.ENOTCONN, errno.ENODEV, errno.ESTALE, errno.ESHUTDOWN})
"""What a mount answers whose program is gone."""

PASSING = LOST | {
    *(errno.EIO, errno.ETIMEDOUT, errno.ENXIO, errno.EPIPE, errno.EREMOTEIO, errno.EAGAIN),
    *(errno.ECONNRESET, errno.ECONNABORTED, errno.EHOSTUNREACH, errno.ENETUNREACH, errno.ENETDOWN),
}
"""What may be over in a while."""

FULL = frozenset({errno.ENOSPC, errno.EDQUOT})
"""What a disk answers that has no room left."""

# Drive has answered this to right paths, too: github.com/googlecolab/colabtools/issues/1807.
_OF_MOUNTS = frozenset({errno.EINVAL})
_PAUSES_S = (0.5, 2.0, 5.0)
# A try that itself waits for time-outs is not repeated for minutes.
_LONGEST_S = 30.0


def may_pass(error: OSError) -> bool:
    """Whether an error may be over in a while, as when a mount or a connection was lost.

    Example:
        >>> may_pass(ConnectionResetError()), may_pass(PermissionError())
        (True, False)
    """
    return error.errno in PASSING or isinstance(error, ConnectionError | TimeoutError)


def patiently(call: Callable[[], T], *, sleep: Callable[[float], None] = time.sleep) -> T:
    """Returns what a call on a mount or a service comes to, tried again for some seconds.

    Args:
        call: What is tried; it raises a StorageError, caused by what the system said.
        sleep: Waits some seconds, for tests.
    """
    began = time.monotonic()
    for pause_s in _PAUSES_S:
        try:
            return call()
        except StorageError as error:
            waited_s = time.monotonic() - began
            if waited_s > _LONGEST_S or isinstance(error, DriveLostError) or not _passes(error):
                raise
            sleep(pause_s)
    return call()


def _passes(error: StorageError) -> bool:
    cause = error.__cause__
    if isinstance(cause, OSError) and (may_pass(cause) or cause.errno in _OF_MOUNTS):
        return True
    return error.may_pass
