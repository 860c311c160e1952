"""A run in a bucket: killed, resumed on another machine, and never held up by the network."""

from __future__ import annotations

import json
import threading
import uuid
from pathlib import Path
from typing import Any

import fsspec
import pytest
import torch
from fsspec.implementations.memory import MemoryFileSystem

import colabkit
from colabkit.errors import CheckpointNotFoundError, MissingPackageError, StorageError
from colabkit.storage import outages
from tests.torch.cases import arguments, network
from tests.torch.killing import KillAtStep, in_child, outcome

CASE = "arrays_shuffled_with_dropout"


def train(folder: str | Path, target: Path, killers: list[Any]) -> None:
    options = arguments(CASE, resumed=False)
    model, data = options.pop("model"), options.pop("data")
    history = colabkit.fit(model, data, folder, save_every=1, callbacks=killers, **options)
    outcome(folder, history, target)


def finish(folder: str | Path, tmp_path: Path) -> dict[str, Any]:
    target = tmp_path / f"{uuid.uuid4().hex}.json"
    assert in_child(lambda: train(folder, target, []), report=tmp_path / "error")
    return json.loads(target.read_text())


def test_a_run_in_a_bucket_that_is_killed_ends_with_the_same_bits(bucket, tmp_path, monkeypatch):
    expected = finish(tmp_path / "undisturbed", tmp_path)
    url = f"{bucket}/runs/cats"
    for step, machine in [(5, "first"), (9, "first"), (13, "second")]:
        monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / machine))
        killers = [KillAtStep(step)]
        assert not in_child(
            lambda killers=killers: train(url, tmp_path / "never", killers),
            report=tmp_path / "error",
        )
        assert step - 2 <= colabkit.checkpoints(url)[0].step < step
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "third"))
    assert finish(url, tmp_path) == expected
    there = colabkit.checkpoints(url, verify=True)
    assert {info.problem for info in there} == {""}
    assert 2 <= len(there) <= 3


def data() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(64, 4), torch.randint(0, 3, (64,))


def test_load_and_checkpoints_take_a_url(bucket):
    url = f"{bucket}/run"
    with pytest.raises(CheckpointNotFoundError, match="There is no run folder s3://"):
        colabkit.checkpoints(url)
    model = torch.nn.Linear(4, 3)
    colabkit.fit(model, data(), url, progress=False)
    other = torch.nn.Linear(4, 3)
    info = colabkit.load(other, url)
    assert torch.equal(other.weight, model.weight)
    assert all(str(file).startswith(f"{url}/shards/") for file in info.weights_files)
    with fsspec.open(info.weights_files[0]) as file:
        assert len(file.read()) > 0


class Held(MemoryFileSystem):
    """A service that takes nothing of a checkpoint until it is let go."""

    protocol = "held"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    began, may_go_on = threading.Event(), threading.Event()

    def _open(self, path: str, mode: str = "rb", **options: Any) -> Any:
        if "shards/" in path and mode == "wb":
            Held.began.set()
            assert Held.may_go_on.wait(300)
        return super()._open(path, mode, **options)


class CountsSteps:
    """Waits at a step until a checkpoint is on its way, then counts the steps beside it."""

    def __init__(self) -> None:
        self.steps_meanwhile = 0

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if step == 3:
            assert Held.began.wait(300)
        if Held.began.is_set() and not Held.may_go_on.is_set():
            self.steps_meanwhile += 1
        if step == 40:
            Held.may_go_on.set()


def test_training_goes_on_while_the_network_stands_still(tmp_path, monkeypatch):
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    fsspec.register_implementation("held", Held, clobber=True)
    counts = CountsSteps()
    x, y = torch.randn(320, 4), torch.randint(0, 3, (320,))
    colabkit.fit(
        torch.nn.Linear(4, 3), (x, y), "held://run", epochs=4, save_every=1, progress=False,
        callbacks=[counts],
    )  # fmt: skip
    assert counts.steps_meanwhile >= 37
    assert colabkit.checkpoints("held://run")[0].step == 40


class Unreachable(MemoryFileSystem):
    """A service that cannot be reached for the first calls of each kind."""

    protocol = "unreachable"
    store: dict[str, Any] = {}  # noqa: RUF012
    pseudo_dirs = [""]  # noqa: RUF012
    left: dict[str, list[Exception]] = {}  # noqa: RUF012

    def ls(self, path: str, **options: Any) -> Any:
        self._fail("ls")
        return super().ls(path, **options)

    def info(self, path: str, **options: Any) -> Any:
        self._fail("info")
        return super().info(path, **options)

    def _fail(self, call: str) -> None:
        if self.left.get(call):
            raise self.left[call].pop()


def test_a_network_that_is_gone_for_seconds_does_not_end_a_training(tmp_path, monkeypatch):
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(outages, "_PAUSES_S", (0.0,) * 3)
    fsspec.register_implementation("unreachable", Unreachable, clobber=True)
    again = data()
    for _ in range(2):
        Unreachable.left = {
            "ls": [OSError("Connection reset by peer"), OSError("503 Service Unavailable")],
            "info": [OSError("Network is unreachable"), TimeoutError("timed out")],
        }
        model = torch.nn.Linear(4, 3)
        colabkit.fit(model, again, "unreachable://run", epochs=2, progress=False)
        assert Unreachable.left == {"ls": [], "info": []}
        monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "another machine"))
    loaded = torch.nn.Linear(4, 3)
    colabkit.load(loaded, "unreachable://run")
    assert all(map(torch.equal, loaded.parameters(), model.parameters()))


# What goes wrong is said before the first step.


class Never:
    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        raise AssertionError("a step was trained")


@pytest.mark.parametrize(
    ("url", "error", "said"),
    [
        ("s3://no-such-bucket-here/run", StorageError, "there is no such bucket"),
        ("abfs://container/run", MissingPackageError, "needs the package adlfs"),
        ("rclone://unheard/run", StorageError, "nobody is signed in"),
    ],
)
def test_a_place_that_cannot_be_used_is_said_before_the_first_step(url, error, said, request):
    request.getfixturevalue("remote" if url.startswith("rclone") else "signed_in")
    with pytest.raises(error, match=said):
        colabkit.fit(network(), data(), url, progress=False, callbacks=[Never()])


def test_no_network_is_said_before_the_first_step(signed_in, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    monkeypatch.setenv("AWS_MAX_ATTEMPTS", "1")
    monkeypatch.setattr(outages, "_PAUSES_S", (0.0,))
    with pytest.raises(StorageError, match="the service cannot be reached"):
        colabkit.fit(network(), data(), "s3://bucket/run", progress=False, callbacks=[Never()])


def test_a_run_in_a_bucket_needs_a_cache_that_can_be_written_to_and_says_so(monkeypatch, tmp_path):
    monkeypatch.delenv("COLABKIT_CACHE", raising=False)
    home = tmp_path / "home"
    home.touch()
    monkeypatch.setenv("HOME", str(home))
    x = torch.zeros(8, 2)
    with pytest.raises(StorageError, match="Set COLABKIT_CACHE to a folder of this machine"):
        colabkit.fit(torch.nn.Linear(2, 1), (x, x[:, :1]), "memory://no-home", epochs=1)
