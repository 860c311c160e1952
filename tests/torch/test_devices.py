"""Several devices from one call: processes that are started, handed all, watched, and ended."""

from __future__ import annotations

import inspect
import os
import signal
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil
import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.utils import data as torch_data

import colabkit
from colabkit.errors import ArgumentError, ProcessLostError
from colabkit.fitting.torch import TorchOptions
from colabkit.fitting.torch.devices import Devices, automatic, choose_devices, fit_on_devices
from colabkit.fitting.torch.fitting import fit_module
from colabkit.fitting.torch.handing_over import NotHandedOverError, packed, unpacked
from colabkit.runs.news import News
from colabkit.runtime import Platform
from tests.torch.cases import SAMPLES, Augmented, arrays, network
from tests.torch.killing import kill_self
from tests.torch.ranks import came_through, failure, killed, together
from tests.torch.several_ways import (
    QUIET,
    Broken,
    KillRanks,
    SignalAt,
    result,
    train,
    undisturbed_in,
)

WAY = "augmented_samples_and_validation"


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], dict[str, Any]]:
    """Gives what two processes end with that a launcher has started, by the way of training."""
    return undisturbed_in(2, tmp_path_factory)


class Tell:
    """Prints who it is after an epoch, and writes down its process."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def on_epoch_end(self, run: Any, epoch: int, logs: Any) -> None:
        print(f"epoch {epoch} of rank {dist.get_rank()}", flush=True)
        (self.folder / f"pid-{dist.get_rank()}").write_text(f"{os.getpid()}")


def test_one_call_gives_the_bits_of_a_launcher_and_leaves_nothing(undisturbed, tmp_path):
    def work(_: int) -> None:
        with (tmp_path / "said").open("w") as said:
            sys.stdout = said
            before = dict(os.environ), {each.name for each in threading.enumerate()}
            for way in ("dropout_and_arrays", WAY):  # twice in one kernel
                train(tmp_path / way, way, devices=2, callbacks=[Tell(tmp_path)])
                assert not dist.is_initialized()
                assert not psutil.Process().children()
            assert before == (dict(os.environ), {each.name for each in threading.enumerate()})

    came_through(work, 1, tmp_path)
    for way in ("dropout_and_arrays", WAY):
        assert result(tmp_path / way) == undisturbed(way)
        model = network()  # what the user's own holds is what was saved
        colabkit.load(model, tmp_path / way / "run")
        held = torch.load(tmp_path / way / "weights-0", weights_only=True)
        assert all(torch.equal(held[name], each) for name, each in model.state_dict().items())
    said = (tmp_path / "said").read_text().splitlines()
    for epoch in (0, 1):
        assert said.count(f"epoch {epoch} of rank 0") == 2
        assert said.count(f"process 1: epoch {epoch} of rank 1") == 2


def test_a_killed_helper_is_an_error_in_the_cell_and_one_device_goes_on(undisturbed, tmp_path):
    def dying(_: int) -> None:
        callbacks = [KillRanks(3, (1,))]
        with pytest.raises(ProcessLostError, match="Process 1 was ended by SIGKILL"):
            train(tmp_path, WAY, devices=2, callbacks=callbacks, save_every=1)
        assert not dist.is_initialized()
        train(tmp_path, WAY, max_steps=7)  # parts of two, in the same kernel
        train(tmp_path, WAY, devices=2)

    came_through(dying, 1, tmp_path)
    assert result(tmp_path) == undisturbed(WAY)


def _die_at(name: str) -> Tell:
    """Is made again in another process, which dies there where it is to meet the others."""
    setattr(dist, name, lambda *_, **__: kill_self())
    return Tell(Path())


class DyingAt:
    """A callback whose copies never come to the others."""

    def __init__(self, name: str) -> None:
        self.name = name

    def __reduce__(self) -> Any:
        return _die_at, (self.name,)


@pytest.mark.parametrize("name", ["init_process_group", "new_group"])
def test_a_helper_that_dies_before_it_has_joined_is_an_error_at_once(name, tmp_path):
    def work(_: int) -> None:
        with pytest.raises(ProcessLostError, match="Process 1 was ended by SIGKILL") as caught:
            train(tmp_path, WAY, devices=2, callbacks=[DyingAt(name)])
        # PyTorch would find out after two minutes, or after thirty.
        assert "ended before all had come together" in str(caught.value.__cause__)
        assert not dist.is_initialized()
        assert not psutil.Process().children()

    came_through(work, 1, tmp_path)
    assert not (tmp_path / "run").exists()


def test_an_interrupt_saves_and_returns_and_one_device_goes_on(undisturbed, tmp_path):
    def work(_: int) -> None:
        history = train(tmp_path, WAY, devices=2, callbacks=[SignalAt(4, signal.SIGINT, rank=0)])
        assert len(history.epochs) < 2
        assert not psutil.Process().children()

    came_through(work, 1, tmp_path)
    assert 4 <= colabkit.checkpoints(tmp_path / "run", verify=True)[0].step < 12
    came_through(lambda _: train(tmp_path, WAY), 1, tmp_path)
    assert result(tmp_path) == undisturbed(WAY)


READY_AT_ONCE = """#!/bin/sh
words=$(echo "$4" | cut -d, -f2)
echo '["READY", ""]' > /dev/fd/${words# }
exec cat
"""


def test_an_interrupt_as_all_is_handed_over_leaves_no_process(monkeypatch, tmp_path):
    program = tmp_path / "python"
    program.write_text(READY_AT_ONCE)
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))

    others = psutil.Process().children()  # other tests' warm parents

    def started() -> list[psutil.Process]:
        return [each for each in psutil.Process().children() if each not in others]

    def interrupting(frame: Any, event: str, _: Any) -> Any:
        name = frame.f_code.co_name
        if event == "return" and name == "packed" and started():
            sys.setprofile(None)
            raise KeyboardInterrupt

    sys.setprofile(interrupting)
    try:
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, devices=2)
    finally:
        sys.setprofile(None)
    assert not started()


def test_a_helper_that_dies_as_it_begins_is_told_as_such(monkeypatch, tmp_path, caplog):
    program = tmp_path / "python"
    program.write_text("#!/bin/sh\nexit 3\n")
    program.chmod(0o755)
    monkeypatch.setattr(sys, "executable", str(program))
    with pytest.raises(ProcessLostError, match="Process 1 ended with status 3"):
        train(tmp_path, devices=2)
    program.unlink()
    train(tmp_path, devices=2)
    assert "Trains on one device: another process cannot be started" in caplog.text


class NoteAll(Tell):
    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        # Whole or not at all: the kernel's death ends this process in mid-line.
        aside = self.folder / f"aside-{dist.get_rank()}"
        aside.write_text(f"{os.getpid()}")
        aside.rename(self.folder / f"pid-{dist.get_rank()}")


def test_a_killed_kernel_leaves_no_process_behind(undisturbed, tmp_path):
    def work(_: int) -> None:
        loader = torch_data.DataLoader(Augmented(), batch_size=8, shuffle=True, num_workers=1)
        callbacks = [NoteAll(tmp_path), KillRanks(3, (0,))]
        train(tmp_path, WAY, data=loader, devices=2, callbacks=callbacks, save_every=1)

    assert killed(together(work, 1, tmp_path)[0])
    group = int((tmp_path / "pid-1").read_text())
    deadline_s = time.monotonic() + 600
    while left := [each for each in psutil.pids() if _group_of(each) == group]:
        assert time.monotonic() < deadline_s, left
        time.sleep(0.05)
    came_through(lambda _: train(tmp_path, WAY), 1, tmp_path)
    assert result(tmp_path) == undisturbed(WAY)


def _group_of(process: int) -> int:
    try:
        return os.getpgid(process) if psutil.Process(process).status() != "zombie" else 0
    except (ProcessLookupError, PermissionError, psutil.Error):
        return 0


def test_an_error_in_a_helper_is_shown_in_the_cell_with_its_traceback(tmp_path):
    together(lambda _: train(tmp_path, data=Broken(), devices=2), 1, tmp_path)
    said = failure(tmp_path, 0)
    assert "ProcessLostError: Process 1 has failed: OSError: sample 7 cannot be read" in said
    assert "raise OSError(message)\nOSError: sample 7 cannot be read" in said  # where it was raised


class Locked(Augmented):
    def __init__(self) -> None:
        super().__init__()
        self.lock = threading.Lock()


def _hooked() -> nn.Module:
    model = network()
    next(model.parameters()).register_hook(lambda gradient: gradient)
    return model


HERE_ALONE: dict[str, tuple[Callable[[], dict[str, Any]], str]] = {
    "lock": (lambda: {"data": Locked()}, "cannot pickle '_thread.lock' object"),
    "hook": (lambda: {"model": _hooked()}, "a weight has hooks"),
}


@pytest.mark.parametrize("what", HERE_ALONE)
def test_what_cannot_be_handed_over_is_trained_on_one_device_and_said(what, tmp_path, capsys):
    make, words = HERE_ALONE[what]
    given = {"model": network(), "data": arrays(), **QUIET, **make(), "progress": True}
    model, data = given.pop("model"), given.pop("data")
    history = colabkit.fit(model, data, tmp_path / "run", devices=2, **given)
    assert len(history.epochs) == 2
    said = [each for each in capsys.readouterr().out.splitlines() if "one device" in each]
    assert len(said) == 1
    assert words in said[0]


def test_without_cloudpickle_one_device_trains_and_it_is_said(tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(sys.modules, "cloudpickle", None)
    quiet = {**QUIET, "progress": True}
    assert colabkit.fit(network(), arrays(), tmp_path / "run", devices=2, **quiet).epochs
    assert "pip install cloudpickle" in capsys.readouterr().out


def test_objects_come_over_as_they_are_and_large_ones_in_one_file():
    large = torch.arange(1 << 19, dtype=torch.float32)
    shared = nn.Linear(3, 3)
    tied = nn.Sequential(shared, nn.Linear(3, 3))
    tied[1].weight = shared.weight
    optimizer = torch.optim.SGD(tied.parameters(), lr=0.1)
    given = {
        "model": tied,
        "optimizer": optimizer,
        "views": (large[:5], large[5:].view(torch.int32)),
        "array": large.numpy().reshape(2, -1, order="F"),
        "empty": torch.empty(0, 3),
        "half": torch.ones(3, dtype=torch.bfloat16),
        "function": lambda x: x + large.shape[0],
    }
    with packed(given) as package:
        size = os.fstat(package.file).st_size
        there = unpacked(package)
    # The array shares the tensor's memory, which pickle cannot know: twice 2 MB, and a little.
    assert size < 5 << 20
    assert there["model"][0].weight is there["model"][1].weight
    assert there["optimizer"].param_groups[0]["params"][0] is there["model"][0].weight
    assert torch.equal(there["model"][0].weight, shared.weight)
    first, rest = there["views"]
    assert first.untyped_storage().data_ptr() == rest.untyped_storage().data_ptr()
    assert torch.equal(rest, given["views"][1])
    assert (there["array"] == given["array"]).all()
    there["array"][0, 0] = 7.0  # its own copy, once it is written to
    assert large[0] == 0
    assert there["empty"].shape == (0, 3)
    assert torch.equal(there["half"], given["half"])
    assert there["function"](1) == SAMPLES - SAMPLES + (1 << 19) + 1


def test_an_optimizer_with_hooks_is_not_handed_over():
    optimizer = torch.optim.SGD(network().parameters(), lr=0.1)
    optimizer.register_step_pre_hook(lambda *_: None)
    with pytest.raises(NotHandedOverError, match="the optimizer has hooks"), packed(optimizer):
        pass


T4, P100 = "Tesla T4, 15.0 GB", "Tesla P100, 16.0 GB"


@pytest.mark.parametrize(
    ("platform", "gpus", "count", "words"),
    [
        (Platform.KAGGLE, [T4, T4], 2, ""),
        (Platform.COLAB, [T4] * 4, 4, ""),
        (Platform.COLAB, [T4], 1, "there is 1 GPU here"),
        (Platform.KAGGLE, [], 1, "there is no GPU here"),
        (Platform.KAGGLE, [T4, P100], 1, "not alike (Tesla T4, 15.0 GB; Tesla P100"),
        (Platform.OTHER, [T4] * 8, 1, "where devices=8 says so"),
    ],
)
def test_auto_takes_gpus_that_are_alike_on_hosted_machines_alone(platform, gpus, count, words):
    found = automatic(platform, gpus)
    assert found.count == count
    assert words in found.why
    assert bool(found.why) == (count == 1)


@pytest.mark.parametrize("asked", [0, -1, True, 1.5, "2", "all", [0, 1]])
def test_what_is_no_number_of_devices_is_an_error(asked):
    with pytest.raises(ArgumentError, match=r'devices is .* Pass "auto" or a number'):
        choose_devices(asked, torch.device("cpu"))


def test_none_and_one_take_one_device_and_a_processor_takes_so_many_processes():
    assert [choose_devices(n, torch.device("cpu")).count for n in (None, 1, 3)] == [1, 1, 3]
    assert choose_devices("auto", torch.device("cpu")).why == "there is no GPU here"


def test_what_several_devices_cannot_share_is_trained_on_one_where_nobody_named_a_number(tmp_path):
    given = {
        name: each.default for name, each in inspect.signature(colabkit.fit).parameters.items()
    }
    for name in ("model", "data", "ckpt_dir", "notify", "keras_arguments"):
        del given[name]
    options = TorchOptions(**{**given, "devices": "auto", "device": "cpu", "news": News()})
    said, processes = [], []

    def training(*given: Any) -> Any:
        processes.append(dist.get_world_size() if dist.is_initialized() else 1)
        if processes[-1] > 1:
            raise ArgumentError("it is read as a stream.", argument="data")

    fit_on_devices(
        *(network(), arrays(), tmp_path, options),
        train=training,
        say=said.append,
        choose=lambda *_: Devices(2),
    )
    assert processes == [2, 1]
    assert said == ["Trains on one device: it is read as a stream."]


def coupled(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    """A loss of which no two parts give the whole, as contrastive ones are."""
    return functional.cross_entropy(output, target) + output.std()


def test_a_loss_that_does_not_add_up_is_trained_on_one_device_from_the_first_step_on(tmp_path):
    """It is found before anything is written, which would hold batches in two parts."""
    given = {
        name: each.default for name, each in inspect.signature(colabkit.fit).parameters.items()
    }
    for name in ("model", "data", "ckpt_dir", "notify", "keras_arguments"):
        del given[name]
    given |= {**QUIET, "loss": coupled, "devices": "auto", "save_every": 1}

    def work(_: int) -> None:
        found = {}
        for folder, count in (("auto", 2), ("alone", 1)):
            for steps in (4, 12):  # and again, from a checkpoint
                said: list[str] = []
                history = fit_on_devices(
                    *(network(), arrays(), tmp_path / folder),
                    TorchOptions(**{**given, "max_steps": steps, "news": News()}),
                    train=fit_module,
                    say=said.append,
                    choose=lambda *_, count=count: Devices(count),
                )
                assert len(said) == count - 1
                assert all("do not add up" in each for each in said)
            found[folder] = history.numbers()["steps"]["loss"].tolist()
        assert len(found["auto"]) == 12
        assert found["auto"] == found["alone"]

    came_through(work, 1, tmp_path)
