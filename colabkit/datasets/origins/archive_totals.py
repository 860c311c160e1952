"""How far archives are that are unpacked side by side."""

from __future__ import annotations

import threading
from collections.abc import Sequence

from colabkit.datasets.archives.planning import Plan
from colabkit.datasets.reading.progress import Phase, Standing
from colabkit.datasets.reading.transfer_progress import Progress


class Totals:
    """Adds up the progress of archives that are unpacked side by side.

    Args:
        plans: What each holds.

    Attributes:
        given_up: Set when one has failed: the others may end.
    """

    def __init__(self, plans: Sequence[Plan]) -> None:
        self._guard = threading.Lock()
        self._news: dict[int, Progress] = {}
        self._nbytes: int | None = None
        self._files: int | None = None
        if all(plan.nbytes is not None for plan in plans):
            self._nbytes = sum(plan.nbytes or 0 for plan in plans)
            self._files = sum(plan.n_files or 0 for plan in plans)
        self._archive_bytes = sum(plan.archive_bytes for plan in plans)
        self.given_up = threading.Event()

    def standing(self, number: int, now: Progress) -> Standing:
        """Returns how far all are, one of them being as far as said."""
        with self._guard:
            self._news[number] = now
            news = list(self._news.values())
        files = sum(one.files_done for one in news)
        if self._nbytes is None:
            # What it unpacks to is not known: how much of the archives was unpacked is.
            used = sum(one.bytes_used for one in news)
            return Standing(Phase.UNPACKING, used, self._archive_bytes, files, None)
        written = sum(one.bytes_written for one in news)
        return Standing(Phase.UNPACKING, written, self._nbytes, files, self._files)
