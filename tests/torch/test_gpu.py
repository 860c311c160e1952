"""On a real GPU: the same promises as on the CPU, and what setup says of the machine."""

from __future__ import annotations

import dataclasses
import gc
import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn

import colabkit
from colabkit.runtime import (
    DeviceKind,
    NvmlDriver,
    SmiDriver,
    TorchFramework,
    detect_device,
    read_driver,
)
from tests.abilities import GPU
from tests.torch.cases import EPOCHS, arrays
from tests.torch.gpu_training import REPOSITORY, Job, network, run_job

pytestmark = [pytest.mark.gpu, pytest.mark.timeout(600)]

STATE_BYTES = 600_000_000
STALL_MAX_S = 0.010


@pytest.fixture(autouse=True)
def a_gpu_that_works() -> None:
    # Asked when a test runs, not when it is collected: asking starts CUDA in this process.
    if not torch.cuda.is_available():
        pytest.skip(f"{GPU}; PyTorch finds no CUDA device here")


def outcome_of(job: Job) -> dict[str, Any]:
    assert run_job(job)
    return json.loads(Path(job.target).read_text())


def outcome_after_kills(job: Job, steps: tuple[int, ...]) -> dict[str, Any]:
    for step in steps:
        assert not run_job(dataclasses.replace(job, die_at=step)), "it ended before the kill"
    return outcome_of(job)


@pytest.mark.parametrize("precision", ["fp32", "bf16", "fp16"])
def test_a_run_killed_on_the_gpu_ends_with_the_same_bits(precision, tmp_path):
    if precision == "bf16" and not torch.cuda.is_bf16_supported(including_emulation=False):
        pytest.skip("this GPU has no bfloat16 of its own")
    alone = Job(str(tmp_path / "alone"), str(tmp_path / "alone.json"), precision=precision)
    killed = Job(str(tmp_path / "killed"), str(tmp_path / "killed.json"), precision=precision)
    assert outcome_after_kills(killed, (2, 7, 12)) == outcome_of(alone)


def test_the_number_of_workers_changes_nothing_after_a_kill_on_the_gpu(tmp_path):
    alone = Job(str(tmp_path / "alone"), str(tmp_path / "alone.json"), workers=2)
    killed = Job(str(tmp_path / "killed"), str(tmp_path / "killed.json"))
    assert outcome_after_kills(killed, (5,)) == outcome_of(alone)


def same_tensors(one: nn.Module, other: nn.Module) -> bool:
    pairs = zip(one.state_dict().values(), other.state_dict().values(), strict=True)
    return all(torch.equal(a.cpu(), b.cpu()) for a, b in pairs)


@pytest.mark.parametrize("precision", ["fp32", "auto"])
def test_a_run_goes_from_gpu_to_cpu_and_back(precision, tmp_path):
    def train(device: str, epochs: int) -> tuple[nn.Module, colabkit.History]:
        model = network()
        history = colabkit.fit(
            model,
            arrays(),
            tmp_path,
            epochs=epochs,
            batch_size=8,
            device=device,
            precision=precision,
            progress=False,
        )
        return model, history

    on_gpu, _ = train("cuda", 1)
    read_on_cpu = network()
    colabkit.load(read_on_cpu, tmp_path)
    assert same_tensors(on_gpu, read_on_cpu)
    on_cpu, moved = train("cpu", 2)
    assert "device was" in str(moved.verdict)
    read_on_gpu = network().to("cuda")
    colabkit.load(read_on_gpu, tmp_path)
    assert same_tensors(on_cpu, read_on_gpu)
    back, history = train("cuda", EPOCHS)
    assert next(back.parameters()).is_cuda
    assert len(history.epochs) == EPOCHS
    assert all(torch.isfinite(p).all() for p in back.parameters())


class Stalls:
    """Waits for the GPU after each step, so that what a save holds is told from the GPU's work."""

    def __init__(self) -> None:
        self.held_s: list[float] = []
        self.ends_s: list[float] = []

    def on_batch_end(self, run: colabkit.Run, step: int, logs: object) -> None:
        torch.cuda.synchronize()
        self.held_s.append(run.checkpoint_wait_s)
        self.ends_s.append(time.perf_counter())


def test_a_save_of_600_mb_holds_the_training_thread_for_no_more_than_10_ms(tmp_path, capsys):
    width, every, saves = 2236, 16, 5
    model = nn.Sequential(*[nn.Linear(width, width, bias=False) for _ in range(10)])
    assert sum(p.nbytes for p in model.parameters()) * 3 == pytest.approx(STATE_BYTES, rel=0.01)
    x = torch.randn(8192, width, device="cuda")
    watch = Stalls()
    colabkit.fit(
        model,
        [(x, x)] * (every * (saves + 1) + 2),
        tmp_path,
        optimizer="adamw",
        loss="mse",
        callbacks=[watch],
        save_every=every,
        precision="fp32",
        device="cuda",
        progress=False,
    )
    held_s, steps_s = np.diff(watch.held_s), np.diff(watch.ends_s)
    # The first save touches the pinned memory; the ones after it reuse it.
    places = np.arange(2 * every - 1, len(held_s), every)
    with capsys.disabled():
        print(
            f"\nstall of a save of {STATE_BYTES / 1e6:.0f} MB on"
            f" {torch.cuda.get_device_name()}: median {np.median(held_s[places]) * 1e3:.1f} ms,"
            f" worst {held_s[places].max() * 1e3:.1f} ms;"
            f" a step {np.median(steps_s) * 1e3:.1f} ms, with a save"
            f" {np.median(steps_s[places]) * 1e3:.1f} ms"
        )
    assert np.median(held_s[places]) <= STALL_MAX_S


class Deep(nn.Module):
    """Keeps 256 times its input for backward."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(3)
        self.layers = nn.ModuleList(nn.Linear(256, 256) for _ in range(256))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        for layer in self.layers:
            x = x + layer(torch.relu(x))
        return x


def test_a_batch_too_large_for_the_gpu_is_trained_in_parts(tmp_path):
    free_bytes, _ = torch.cuda.mem_get_info()
    # Whole, the activations would take 1.5 times what is free; a quarter fits with room to spare.
    samples = int(1.5 * free_bytes / (256 * 256 * 4))
    x = torch.randn(samples, 256) / 16
    options = {"optimizer": "sgd", "loss": "mse", "precision": "fp32", "progress": False}

    def train(folder: str, microbatch: int | str | None) -> tuple[nn.Module, colabkit.History]:
        model = Deep()
        history = colabkit.fit(
            model, [(x, x)] * 3, tmp_path / folder, microbatch=microbatch, device="cuda", **options
        )
        torch.cuda.empty_cache()
        return model, history

    with pytest.raises(torch.OutOfMemoryError):
        train("whole", None)
    gc.collect()
    torch.cuda.empty_cache()
    halved, first = train("auto", "auto")
    small, second = train("eighths", -(-samples // 8))
    assert first.steps["loss"] == pytest.approx(second.steps["loss"], rel=1e-4)
    for one, other in zip(halved.parameters(), small.parameters(), strict=True):
        assert torch.allclose(one, other, rtol=1e-4, atol=1e-6)


def test_snapshots_are_staged_in_pinned_memory_on_a_stream_of_their_own():
    from colabkit.frameworks.torch import TorchBackend

    backend = TorchBackend(torch.device("cuda", torch.cuda.current_device()))
    assert backend.overlaps
    block = backend.allocate(1 << 20)
    assert torch.from_numpy(block).is_pinned()
    source = torch.arange(1 << 18, dtype=torch.int32, device="cuda")
    wait = backend.copy([source], [block])
    wait()
    assert torch.equal(torch.from_numpy(block).view(torch.int32), source.cpu())


def test_the_device_is_the_one_that_pytorch_uses():
    device = detect_device("require")
    properties = torch.cuda.get_device_properties(torch.cuda.current_device())
    assert device.kind is DeviceKind.CUDA
    assert device.name == properties.name
    assert device.confirmed_by == ("PyTorch",)
    assert device.compute_capability == (properties.major, properties.minor)
    native = torch.cuda.is_bf16_supported(including_emulation=False)
    assert device.precision == ("bf16" if native else "fp16")
    assert device.count == torch.cuda.device_count()
    assert device.memory_bytes >= properties.total_memory * 0.9
    assert 0 < device.free_bytes <= device.memory_bytes


def test_every_way_to_ask_the_driver_gives_the_same():
    reports = [driver.report() for driver in (NvmlDriver(), SmiDriver())]
    told = [report for report in reports if report is not None]
    if not told:
        pytest.skip("neither nvidia-ml-py nor nvidia-smi is installed here")
    for report in told:
        assert not report.failure
        assert report.version == told[0].version
        assert report.cuda_version == told[0].cuda_version
        assert [(g.name, g.uuid, g.compute_capability) for g in report.gpus] == [
            (g.name, g.uuid, g.compute_capability) for g in told[0].gpus
        ]
    assert read_driver() is not None


def test_a_hidden_gpu_is_told_apart_from_no_gpu():
    if read_driver() is None:
        pytest.skip("neither nvidia-ml-py nor nvidia-smi tells of the driver here")
    code = "from colabkit.runtime import detect_device; print(detect_device().fault.name)"
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=REPOSITORY,
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=True,
    )
    assert done.stdout.strip() == "HIDDEN"


def test_memory_that_earlier_cells_hold_is_told_from_that_of_others():
    device = torch.cuda.current_device()
    held = []
    size = 1 << 30
    while size >= 1 << 9:
        try:
            held.append(torch.empty(size, dtype=torch.uint8, device=device))
        except torch.OutOfMemoryError:
            size //= 2
    try:
        report = TorchFramework().probe()
        told = detect_device()
    finally:
        held.clear()
        torch.cuda.empty_cache()
    assert report.own_bytes > 0
    said = [told.reason, *told.notices]
    assert any("earlier cells of this session hold" in sentence for sentence in said), said
