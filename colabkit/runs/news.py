"""What happens to a run that a person who is not at the keyboard wants to know."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable

from colabkit.storage import RemountOutcome, RemountResult

_logger = logging.getLogger(__name__)

Send = Callable[[str], object]

# What every service takes as one message.
_LENGTH_MAX = 1000


class News:
    """Sends sentences about one run, none of which it ever waits for unless asked to.

    Args:
        send: Sends a sentence, None for nobody to tell.
        name: What the run is called.

    Attributes:
        name: What the run is called.
        ended_early: Why the loop ended before its last epoch, "" where it did not.
        is_out_of_time: Whether that was for time.
    """

    def __init__(self, send: Send | None = None, name: str = "") -> None:
        self._send, self.name = send, name
        self._is_lost = False
        self.ended_early, self.is_out_of_time = "", False

    def remounted(self, result: RemountResult) -> None:
        """Tells once that Drive is lost, and that it is back."""
        if result.outcome is RemountOutcome.REMOUNTED:
            was_told, self._is_lost = self._is_lost, False
            lost = "is back" if was_told else "was lost and is mounted again"
            self.tell(
                f"{self.name}: Drive {lost}; what waits on the machine is being copied there."
            )
        elif result.outcome is RemountOutcome.REFUSED and not self._is_lost:
            self._is_lost = True
            self.tell(
                f"{self.name}: Drive is lost and could not be mounted again. Training goes on, and"
                " checkpoints are kept on the machine, with which they would go."
            )

    def tell(self, sentence: str, *, wait_s: float = 0.0) -> None:
        """Sends a sentence on a thread of its own.

        Args:
            sentence: What is told.
            wait_s: Seconds that it may take.
        """
        send = self._send
        if send is None:
            return

        def work() -> None:
            try:
                send(sentence[:_LENGTH_MAX])
            except Exception:
                # Whatever a service answers, it is not the training's.
                _logger.warning("The message could not be sent: %s", sentence, exc_info=True)

        thread = threading.Thread(target=work, name="notify", daemon=True)
        thread.start()
        if wait_s > 0:
            thread.join(wait_s)
