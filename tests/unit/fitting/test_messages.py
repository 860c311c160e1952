"""What fit sends once it has ended."""

from __future__ import annotations

import http.server
import queue
import threading
from collections.abc import Iterator
from typing import Any

import pytest

from colabkit.errors import ArgumentError, MissingPackageError
from colabkit.fitting import messages
from colabkit.fitting.messages import sender, telling
from colabkit.runs.history import History
from colabkit.runs.news import News
from colabkit.storage import RemountOutcome, RemountResult


def trained(epochs: int) -> History:
    history = History()
    for epoch in range(epochs):
        history.append_epoch(epoch=epoch, step=epoch + 1, seconds=1.0, values={"loss": 0.5})
    return history


def clock(took_s: float) -> Any:
    return iter([0.0, took_s]).__next__


ENDS = {
    "finished": (3, 40.0, ["cats has finished, 3 epochs: loss 0.5."]),
    "ended early": (
        2,
        40.0,
        ["cats has ended after 2 of 3 epochs: loss 0.5."],
    ),
    "over at once": (3, 29.0, []),
}


@pytest.mark.parametrize("name", ENDS)
def test_it_tells_how_a_training_ended(name):
    done, took_s, sentences = ENDS[name]
    told: list[str] = []
    history = trained(done)
    given = {"epochs": 3, "clock": clock(took_s)}
    assert telling(News(told.append, "cats"), lambda: history, **given) is history
    assert told == sentences


def test_it_says_where_a_training_stopped_for_time():
    told: list[str] = []
    news = News(told.append, "cats")

    def train() -> History:
        news.ended_early, news.is_out_of_time = "max_time is 11h", True
        return trained(2)

    telling(news, train, epochs=3, clock=clock(60.0))
    assert len(told) == 1
    assert told[0].startswith(
        "cats has stopped for time after 2 of 3 epochs (max_time is 11h); run"
    )


def test_that_drive_is_lost_is_told_once_and_that_it_is_back():
    heard: queue.Queue[str] = queue.Queue()
    news = News(heard.put, "cats")
    refused = RemountResult(RemountOutcome.REFUSED)
    for outcome in (refused, refused, RemountResult(RemountOutcome.FINE), refused):
        news.remounted(outcome)
    assert heard.get(timeout=300).startswith("cats: Drive is lost and could not be mounted")
    news.remounted(RemountResult(RemountOutcome.REMOUNTED))
    assert heard.get(timeout=300).startswith("cats: Drive is back; what waits")
    news.remounted(RemountResult(RemountOutcome.REMOUNTED))
    assert heard.get(timeout=300).startswith("cats: Drive was lost and is mounted again;")
    assert heard.empty()


def test_a_failure_is_told_and_stays_one():
    told: list[str] = []

    def fail() -> History:
        message = "no room"
        raise OSError(message)

    with pytest.raises(OSError, match="no room"):
        telling(News(told.append, "cats"), fail, epochs=3)
    assert told == ["cats failed: OSError: no room"]


def test_a_service_that_fails_changes_nothing(caplog):
    def refuse(sentence: str) -> None:
        raise ConnectionError(sentence)

    given = {"epochs": 3, "clock": clock(60.0)}
    assert len(telling(News(refuse, "cats"), lambda: trained(3), **given)) == 3
    assert "could not be sent" in caplog.text


def test_of_several_processes_one_tells(monkeypatch):
    for name, value in {"RANK": "1", "WORLD_SIZE": "2", "MASTER_ADDR": "localhost"}.items():
        monkeypatch.setenv(name, value)
    assert sender(print) is None
    monkeypatch.setenv("RANK", "0")
    assert sender(print) is print


def test_a_long_error_is_cut():
    told: list[str] = []

    def fail() -> History:
        raise OSError("word " * 1000)

    with pytest.raises(OSError, match="word"):
        telling(News(told.append, "cats"), fail, epochs=3)
    assert len(told[0]) == 1000


def test_a_service_that_hangs_is_not_waited_for():
    may_go = threading.Event()
    given = {"epochs": 3, "clock": clock(60.0), "wait_s": 0.01}
    assert len(telling(News(lambda _: may_go.wait(), "cats"), lambda: trained(3), **given)) == 3
    may_go.set()


@pytest.fixture
def ntfy(monkeypatch) -> Iterator[list[tuple[str, str]]]:
    heard: list[tuple[str, str]] = []

    class Answers(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"])).decode()
            heard.append((self.path, body))
            self.send_response(200)
            self.end_headers()

        def log_message(self, *_: Any) -> None: ...

    server = http.server.HTTPServer(("127.0.0.1", 0), Answers)
    thread = threading.Thread(target=server.serve_forever)
    thread.start()
    monkeypatch.setattr(messages, "_NTFY", f"http://127.0.0.1:{server.server_port}")
    yield heard
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_topic_of_ntfy_gets_the_sentence(ntfy):
    send = sender("ntfy://my-cats")
    assert send is not None
    send("cats has finished — 3 epochs.")
    assert ntfy == [("/my-cats", "cats has finished — 3 epochs.")]


@pytest.mark.parametrize("notify", [5, "my-topic", dict, ["ntfy://cats"]])
def test_what_nobody_can_be_told_by_is_named(notify):
    with pytest.raises(ArgumentError, match="notify is") as caught:
        sender(notify)
    assert "ntfy://" in caught.value.hint


class Service:
    """Stands for Apprise."""

    works = True

    def __init__(self) -> None:
        self.urls: list[str] = []

    def add(self, url: str) -> bool:
        self.urls.append(url)
        return url.startswith("tgram://")

    def notify(self, *, body: str, title: str) -> bool:
        told.append((title, body))
        return self.works


told: list[tuple[str, str]] = []


def test_other_urls_are_sent_by_apprise(monkeypatch):
    module = type("apprise", (), {"Apprise": Service})
    monkeypatch.setattr(messages.importlib, "import_module", lambda name: module)
    send = sender("tgram://token/chat")
    assert send is not None
    send("cats has finished.")
    assert told == [("colabkit", "cats has finished.")]
    with pytest.raises(ArgumentError, match="does not know"):
        sender("pigeon://loft")
    monkeypatch.setattr(Service, "works", False)
    with pytest.raises(OSError, match="could not send"):
        send("again")


def test_without_apprise_it_is_named_before_the_training_and_no_secret_is_told(monkeypatch):
    def missing(name: str) -> Any:
        raise ModuleNotFoundError(name)

    monkeypatch.setattr(messages.importlib, "import_module", missing)
    with pytest.raises(MissingPackageError, match=r"tgram://…") as caught:
        sender("tgram://secret/chat")
    assert caught.value.package == "apprise"
    assert "secret" not in str(caught.value)
