"""What a call of fit sends to the person who is not at the keyboard, once it has ended."""

from __future__ import annotations

import functools
import importlib
import logging
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from colabkit.errors import ArgumentError, MissingPackageError
from colabkit.frameworks.processes import speaks_for_all
from colabkit.runs.history import History

_logger = logging.getLogger(__name__)

Send = Callable[[str], object]

# Who started what ended sooner is still looking at it.
_WORTH_A_MESSAGE_S = 30.0
_WAIT_S, _REQUEST_TIMEOUT_S = 10.0, 8.0
# What every service takes as one message.
_LENGTH_MAX = 1000
_NTFY = "https://ntfy.sh"


def sender(notify: Any) -> Send | None:
    """Returns what sends a sentence, None for nobody to tell.

    Args:
        notify: A function of one sentence; "ntfy://topic"; another URL of Apprise's; or None.

    Raises:
        ArgumentError: It is none of these.
        MissingPackageError: It is a URL for Apprise, which is not installed.
    """
    if notify is None or not speaks_for_all():
        return None
    if isinstance(notify, str) and "://" in notify:
        kind, _, rest = notify.partition("://")
        topic = rest.strip("/")
        if kind == "ntfy" and topic and not set(topic) & set("/@:?"):
            return functools.partial(_to_ntfy, topic)
        return _by_apprise(notify)
    if callable(notify) and not isinstance(notify, type):
        send: Send = notify
        return send
    hint = 'Pass a function of one sentence, "ntfy://your-topic", or a URL of Apprise\'s.'
    raise ArgumentError.of("notify", notify, hint)


def telling(
    send: Send | None,
    train: Callable[[], History],
    *,
    epochs: int,
    ckpt_dir: str | Path,
    clock: Callable[[], float] = time.monotonic,
    wait_s: float = _WAIT_S,
) -> History:
    """Trains, and tells how it ended; a service that fails or hangs changes nothing of that.

    Args:
        send: Sends a sentence, None for nobody to tell.
        train: Trains, and returns the history.
        epochs: Epochs that were asked for.
        ckpt_dir: Names the run.
        clock: Seconds that only grow.
        wait_s: Seconds that a message may take.
    """
    if send is None:
        return train()
    began_s, name = clock(), Path(str(ckpt_dir)).name
    try:
        history = train()
    except Exception as error:
        _send(send, f"{name} failed: {type(error).__name__}: {error}", wait_s)
        raise
    if clock() - began_s >= _WORTH_A_MESSAGE_S:
        _send(send, f"{name} {_how_it_ended(history, epochs)}", wait_s)
    return history


def _how_it_ended(history: History, epochs: int) -> str:
    values = ", ".join(f"{n} {value:.4g}" for n, value in history.newest_epoch_values().items())
    said = f": {values}" if values else ""
    if len(history) >= epochs:
        return f"has finished, {len(history):,} epochs{said}."
    return f"has ended after {len(history):,} of {epochs:,} epochs{said}."


def _send(send: Send, sentence: str, wait_s: float) -> None:
    """Sends on a thread that nothing waits for longer than the message is worth."""

    def work() -> None:
        try:
            send(sentence[:_LENGTH_MAX])
        except Exception:
            # Whatever a service answers, the training is over and must be returned.
            _logger.warning("The message could not be sent: %s", sentence, exc_info=True)

    thread = threading.Thread(target=work, name="notify", daemon=True)
    thread.start()
    thread.join(wait_s)


def _to_ntfy(topic: str, sentence: str) -> None:
    url = f"{_NTFY}/{urllib.parse.quote(topic)}"
    made = urllib.request.Request(url, sentence.encode(), {"Title": "colabkit"})  # noqa: S310
    with urllib.request.urlopen(made, timeout=_REQUEST_TIMEOUT_S):  # noqa: S310 - a constant
        pass


def _by_apprise(url: str) -> Send:
    try:
        apprise: Any = importlib.import_module("apprise")
    except ModuleNotFoundError as error:
        message = (
            f"notify is {url.partition('://')[0]}://…, which Apprise sends, and it is missing."
        )
        hint = "pip install apprise"
        raise MissingPackageError(message, package="apprise", hint=hint) from error
    service = apprise.Apprise()
    if not service.add(url):
        message = "notify is a URL that Apprise does not know."
        hint = "Look at Apprise's list of services for how its URL is written."
        raise ArgumentError(message, argument="notify", hint=hint)

    def send(sentence: str) -> None:
        if not service.notify(body=sentence, title="colabkit"):
            message = "Apprise could not send it"
            raise OSError(message)

    return send
