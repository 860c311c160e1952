"""What a call of fit sends to the person who is not at the keyboard, once it has ended."""

from __future__ import annotations

import functools
import importlib
import time
import urllib.parse
import urllib.request
from collections.abc import Callable
from typing import Any

from colabkit.errors import ArgumentError, MissingPackageError
from colabkit.frameworks.processes import speaks_for_all
from colabkit.runs.history import History
from colabkit.runs.news import News, Send

# Who started what ended sooner is still looking at it.
_WORTH_A_MESSAGE_S = 30.0
_WAIT_S, _REQUEST_TIMEOUT_S = 10.0, 8.0
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
    news: News,
    train: Callable[[], History],
    *,
    epochs: int,
    clock: Callable[[], float] = time.monotonic,
    wait_s: float = _WAIT_S,
) -> History:
    """Trains, and tells how it ended; a service that fails or hangs changes nothing of that.

    Args:
        news: Tells of the run.
        train: Trains, and returns the history.
        epochs: Epochs that were asked for.
        clock: Seconds that only grow.
        wait_s: Seconds that a message may take.
    """
    began_s = clock()
    try:
        history = train()
    except Exception as error:
        news.tell(f"{news.name} failed: {type(error).__name__}: {error}", wait_s=wait_s)
        raise
    if clock() - began_s >= _WORTH_A_MESSAGE_S:
        news.tell(f"{news.name} {_how_it_ended(history, epochs, news)}", wait_s=wait_s)
    return history


def _how_it_ended(history: History, epochs: int, news: News) -> str:
    values = ", ".join(f"{n} {value:.4g}" for n, value in history.newest_epoch_values().items())
    said = f": {values}" if values else ""
    if len(history) >= epochs:
        return f"has finished, {len(history):,} epochs{said}."
    done = f"after {len(history):,} of {epochs:,} epochs"
    if news.is_out_of_time:
        return f"has stopped for time {done} ({news.ended_early}); run it again to go on{said}."
    why = f" ({news.ended_early})" if news.ended_early else ""
    return f"has ended {done}{why}{said}."


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
