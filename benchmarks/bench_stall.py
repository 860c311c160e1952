"""How long one checkpoint of 600 MB holds the training thread, and until it is durable."""

from __future__ import annotations

import ctypes
import multiprocessing
import os
import shutil
import statistics
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from torch import nn

import colabkit
from benchmarks.measuring import show, timed

WIDTH, LAYERS, BATCH, EVERY, SAVES = 2236, 10, 512, 8, 6


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(*[nn.Linear(WIDTH, WIDTH, bias=False) for _ in range(LAYERS)])


class Stopwatch:
    """Notes the time of each step and how long saves have held the thread so far."""

    def __init__(self) -> None:
        self.ends_s: list[float] = []
        self.held_s: list[float] = []

    def on_batch_end(self, run: colabkit.Run, step: int, logs: object) -> None:
        del step, logs
        self.ends_s.append(time.perf_counter())
        self.held_s.append(run.checkpoint_wait_s)


class Peak:
    """The largest resident memory while it watches."""

    def __init__(self) -> None:
        self.bytes = 0
        self._stop = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def _watch(self) -> None:
        process = psutil.Process()
        while not self._stop.wait(0.005):
            self.bytes = max(self.bytes, process.memory_info().rss)

    def __enter__(self) -> Peak:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()


def raw_write(folder: Path, data: np.ndarray) -> None:
    descriptor = os.open(folder / "raw", os.O_WRONLY | os.O_CREAT | os.O_EXCL)
    view = data.data
    while view:
        view = view[os.write(descriptor, view[: 16 << 20]) :]
    os.fsync(descriptor)
    os.close(descriptor)


def _saved(saver: Any, sections: list[Any], step: int) -> None:
    from colabkit.checkpoint import SaveFacts

    saver.offer(sections, SaveFacts(step=step), is_guarded=lambda _: True)
    saver.flush()


def durable(folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer) -> float:
    """Seconds from asking for a save until it is on the disk, over a raw write of the same."""
    from colabkit.checkpoint import RunFolder, Section
    from colabkit.frameworks.torch import TorchBackend

    saver = RunFolder(folder / "durable").open_saver(TorchBackend(torch.device("cpu")))
    sections = [
        Section("model", dict(model.state_dict()), weights=True),
        Section("optimizer", optimizer.state_dict(), weights=False),
    ]
    size = sum(p.nbytes for p in model.parameters()) * 3
    raw = np.random.default_rng(0).integers(0, 256, size, np.uint8)
    ours_s, raw_s = [], []
    for step in range(13):
        with torch.no_grad():
            for tensor in [*model.parameters(), *states_of(optimizer)]:
                tensor.add_(1e-3)

        def save(step: int = step) -> None:
            os.sync()
            ours_s.append(timed(lambda: _saved(saver, sections, step)))
            saver.settle()

        def write() -> None:
            os.sync()
            raw_s.append(timed(lambda: raw_write(folder, raw)))
            (folder / "raw").unlink()

        # In turns: who comes after a removal finds memory for its pages at once.
        for each in (save, write) if step % 2 else (write, save):
            each()
    saver.close()
    return statistics.median(ours_s[1:]) / statistics.median(raw_s[1:])


def by_hand(model: nn.Module, optimizer: torch.optim.Optimizer, x: torch.Tensor) -> None:
    """Three steps without any checkpoint: the memory that training takes by itself."""
    for _ in range(3):
        nn.functional.mse_loss(model(x), x).backward()
        optimizer.step()
        optimizer.zero_grad()


def states_of(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    return [t for s in optimizer.state.values() for t in s.values() if t.ndim]


def memory(folder: Path) -> int:
    """Bytes that training with checkpoints takes at its peak beyond the plain loop."""
    # Blocks of 1 MB and more go back to the system at once, so that the resident memory
    # is what is in use and not what the allocator keeps for later.
    ctypes.CDLL(None).mallopt(-3, 1 << 20)
    # What the libraries themselves take when they are loaded is no checkpoint's memory.
    warm = (torch.rand(64, 8), torch.rand(64, 8))
    colabkit.fit(nn.Linear(8, 8), warm, folder / "warm", loss="mse", progress=False, device="cpu")
    model, x = network(), torch.randn(BATCH, WIDTH)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    with Peak() as before:
        by_hand(model, optimizer, x)
    with Peak() as during:
        colabkit.fit(
            model,
            [(x, x)] * 24,
            folder / "run",
            optimizer=optimizer,
            loss="mse",
            save_every=EVERY,
            progress=False,
            device="cpu",
        )
    return during.bytes - before.bytes


def main() -> None:
    torch.set_num_threads(max(1, (os.cpu_count() or 2) // 2))
    folder = Path(tempfile.mkdtemp(dir="."))
    try:
        measure(folder)
    finally:
        shutil.rmtree(folder)


def measure(folder: Path) -> None:
    model, x = network(), torch.randn(BATCH, WIDTH)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    watch = Stopwatch()
    data = [(x, x)] * (EVERY * (SAVES + 1) + 4)
    by_hand(model, optimizer, x)
    colabkit.fit(
        model,
        data,
        folder / "run",
        optimizer=optimizer,
        loss="mse",
        callbacks=[watch],
        save_every=EVERY,
        progress=False,
        device="cpu",
    )
    state_bytes = sum(p.nbytes for p in model.parameters()) * 3
    steps_s = np.diff(watch.ends_s)
    held_s = np.diff(watch.held_s)
    saves = np.arange(2 * EVERY - 1, len(steps_s), EVERY)
    plain = np.setdiff1d(np.arange(EVERY + 4, len(steps_s)), np.concatenate([saves, saves + 1]))
    buffer = [p.detach().clone() for p in (*model.parameters(), *states_of(optimizer))]
    everything = [*model.parameters(), *states_of(optimizer)]

    def bare_copy() -> None:
        for target, source in zip(buffer, everything, strict=True):
            target.copy_(source.detach())

    def torch_save() -> None:
        state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
        torch.save(state, folder / "torch.pt")

    copies_s = [timed(bare_copy) for _ in range(5)]
    saves_s = [timed(torch_save) for _ in range(5)]
    ratio = durable(folder, model, optimizer)
    with multiprocessing.get_context("spawn").Pool(1) as pool:
        extra = pool.apply(memory, (folder / "memory",)) / state_bytes
    show(
        f"stall: one checkpoint of {state_bytes / 1e6:.0f} MB (model and AdamW)",
        [
            ("an undisturbed step", f"{np.median(steps_s[plain]) * 1e3:.0f} ms", ""),
            ("a step with a checkpoint", f"{np.median(steps_s[saves]) * 1e3:.0f} ms", ""),
            (
                "  of it held by the checkpoint",
                f"{np.median(held_s[saves]) * 1e3:.1f} ms",
                "wanted <= 10 ms",
            ),
            ("torch.save holds it", f"{statistics.median(saves_s) * 1e3:.0f} ms", ""),
            ("a bare copy into warm memory", f"{statistics.median(copies_s) * 1e3:.0f} ms", ""),
            (
                "until durable, over a raw write and fsync",
                f"{ratio:.2f}",
                "wanted <= 1.2",
            ),
            ("peak extra memory, over the state", f"{extra:.2f}", "wanted <= 1.1"),
        ],
    )


if __name__ == "__main__":
    main()
