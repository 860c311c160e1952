"""release(): gives the machine back when all that was saved is safe."""

from __future__ import annotations

from functools import partial

from colabkit.keeping import upload_all
from colabkit.notebook import say, stop_with_cell
from colabkit.other_names import answering
from colabkit.session.other_names import OF_RELEASE
from colabkit.storage import give_back


@answering(OF_RELEASE)
def release(*, timeout_s: float = 3600.0) -> None:
    """Waits until Drive has uploaded everything, unmounts it, and gives the machine back.

    A checkpoint that a broken-off training has left on the local disk is copied to Drive first,
    and so is what is new in a folder that ``keep`` keeps; what is not whole there is named.
    Off Colab it says that there is nothing to give back. A machine given back has lost its
    local disk and ends this kernel; compute units stop counting.

    Args:
        timeout_s: How long to wait for the upload, in seconds.

    Raises:
        StorageError: Drive did not take everything in time; the machine is kept.
        MachineReleaseError: The machine could not be given back.

    Example:
        >>> release()
        This machine is not lent by Colab: there is nothing to give back.
    """
    stop_with_cell("the machine is kept", once=False)
    give_back(say=say, upload=partial(upload_all, timeout_s=timeout_s), timeout_s=timeout_s)
