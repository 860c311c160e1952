"""How long a save holds 2 processes that train together, beside PyTorch's distributed one.

Each holds a copy of the model, or with PIECES=1 half of it, as ``fully_shard`` deals weights out.
WIDTH=4096 makes the state four times as large.
"""

from __future__ import annotations

import io
import json
import os
import shutil
import statistics
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
import torch.distributed as dist
import torch.distributed.checkpoint as dcp
from torch import nn
from torch.distributed.fsdp import fully_shard
from torch.nn.parallel import DistributedDataParallel

import colabkit
from benchmarks.measuring import show
from benchmarks.several_processes import start_all
from colabkit.runs import several_managers

# 2,048 wide: 101 MB with AdamW's moments.
COUNT, WIDTH, BATCH = 2, int(os.environ.get("WIDTH", "2048")), 64
STEPS, EVERY, ROUNDS = 30, 6, int(os.environ.get("ROUNDS", "4"))
PIECES = bool(os.environ.get("PIECES"))
Figures = dict[str, list[float]]


def network() -> nn.Module:
    torch.manual_seed(0)
    hidden = [nn.Linear(WIDTH, WIDTH), nn.ReLU(), nn.Linear(WIDTH, WIDTH), nn.ReLU()]
    model = nn.Sequential(nn.Linear(64, WIDTH), nn.ReLU(), *hidden, nn.Linear(WIDTH, 10))
    if PIECES:
        for layer in model:
            if isinstance(layer, nn.Linear):
                fully_shard(layer)
        fully_shard(model)
    return model


def data() -> tuple[torch.Tensor, torch.Tensor]:
    made = torch.Generator().manual_seed(0)
    x = torch.randn(STEPS * BATCH, 64, generator=made)
    return x, torch.randint(0, 10, (len(x),), generator=made)


def peak_memory(since: float | None = None) -> float:
    """Returns the bytes that this process has held at most since the last call of it."""
    status = Path("/proc/self/status").read_text()
    peak, now = (
        1024.0 * int(line.split()[1])
        for name in ("VmHWM:", "VmRSS:")
        for line in status.splitlines()
        if line.startswith(name)
    )
    Path("/proc/self/clear_refs").write_text("5")
    return now if since is None else peak - since


class Watch:
    """Takes the time of each step of ``fit``, and how long saves hold the thread within it.

    It is written down as text: lists that a callback fills would be part of each checkpoint.
    """

    def __init__(self, model: nn.Module) -> None:
        self._notes = io.StringIO()
        self._run: colabkit.Run | None = None
        model.register_forward_pre_hook(lambda *_: self._note("begin"))

    def _note(self, what: str) -> None:
        wait_s = self._run.checkpoint_wait_s if self._run is not None else 0.0
        self._notes.write(f"{what} {time.perf_counter()} {wait_s}\n")

    def _noted(self, what: str) -> list[tuple[float, float]]:
        lines = [line.split() for line in self._notes.getvalue().splitlines()]
        return [(float(at_s), float(wait_s)) for name, at_s, wait_s in lines if name == what]

    def on_batch_end(self, run: colabkit.Run, step: int, logs: object) -> None:
        del logs
        self._run = run
        if step % EVERY == EVERY - 1:  # what was begun is written by the next save
            run.flush()
            status = run.save_status
            if status is not None and status.timings is not None:
                taken_s = status.timings.copy_s + status.timings.write_s
                self._notes.write(f"save {taken_s} 0\n")
        self._note("end")

    def figures(self) -> Figures:
        begins, ends = self._noted("begin"), self._noted("end")
        gaps, steps, waits = [], [], []
        for end, begin, next_end in zip(ends, begins[1:], ends[1:], strict=False):
            gaps.append(begin[0] - end[0])
            steps.append(next_end[0] - end[0])
            waits.append(next_end[1] - begin[1])
        # After step EVERY, 2 * EVERY and so on: a save; the first two are not shared out yet.
        saved = range(3 * EVERY - 1, len(gaps), EVERY)
        usual = [place for place in range(EVERY, len(gaps)) if place % EVERY in {1, 2, 3}]
        gap, step = (statistics.median(each[u] for u in usual) for each in (gaps, steps))
        return {
            "stall": [gaps[place] - gap + waits[place] for place in saved],
            "stall and step": [steps[place] for place in saved],
            "step": [step],
            "save": [taken_s for taken_s, _ in self._noted("save")][3:],
        }


def fitted(folder: Path, *, together: bool) -> Figures:
    several_managers.WRITE_TOGETHER = together
    several_managers.WRITE_PIECES = several_managers.READ_PIECES = together
    model = network()
    watch = Watch(model)
    colabkit.fit(
        model,
        data(),
        folder,
        epochs=1,
        batch_size=BATCH,
        optimizer=torch.optim.AdamW(model.parameters()),
        callbacks=[watch],
        save_every=EVERY,
        progress=False,
        device="cpu",
    )
    return watch.figures()


def by_dcp(folder: Path, group: Any) -> Figures:
    model, (x, y), rank = network(), data(), dist.get_rank()
    wrapped = model if PIECES else DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters())
    found: Figures = {"stall": [], "stall and step": [], "step": [], "save": []}
    began_s = stall_s = 0.0
    saving = None
    for step, at in enumerate(range(0, len(x), BATCH), 1):
        place = at + rank * (BATCH // COUNT)
        step_s = time.perf_counter()
        optimizer.zero_grad()
        part = slice(place, place + BATCH // COUNT)
        nn.functional.cross_entropy(wrapped(x[part]), y[part]).backward()
        optimizer.step()
        taken_s = time.perf_counter() - step_s
        if step % EVERY == 1 and step > 3 * EVERY:
            found["stall and step"].append(stall_s + taken_s)
        elif step % EVERY in {2, 3, 4} and step > EVERY:
            found["step"].append(taken_s)
        if step % EVERY == EVERY - 1 and saving is not None:
            saving.result()
        if step % EVERY == 0:
            state = {"model": model.state_dict(), "optimizer": optimizer.state_dict()}
            began_s = time.perf_counter()
            saving = dcp.async_save(state, checkpoint_id=folder / f"{step}", process_group=group)
            stall_s = time.perf_counter() - began_s
            saving.add_done_callback(
                lambda _, begun=began_s: found["save"].append(time.perf_counter() - begun)
            )
            if step > 2 * EVERY:
                found["stall"].append(stall_s)
    if saving is not None:
        saving.result()
    return found


def train(target: Path) -> None:
    """In each of the processes: every contender in turn; the first one writes down the times."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    group = dist.new_group(backend="gloo")
    found: dict[str, list[Figures]] = {"together": [], "alone": [], "async_save": []}
    for number in range(ROUNDS + 1):
        for name, rounds in found.items():
            held = [tempfile.mkdtemp(dir=target.parent) if dist.get_rank() == 0 else ""]
            dist.broadcast_object_list(held)
            folder = Path(held[0])
            before = peak_memory()
            if name == "async_save":
                figures = by_dcp(folder, group)
            else:
                figures = fitted(folder, together=name == "together")
            figures["memory"] = [peak_memory(before)]
            dist.barrier()
            shutil.rmtree(folder, ignore_errors=True)
            if number:
                rounds.append(figures)
    if dist.get_rank() == 0:
        target.write_text(json.dumps(found))
    dist.destroy_process_group()


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "times"
        start_all("benchmarks.bench_several_saves", COUNT, target)
        found: dict[str, list[Figures]] = json.loads(target.read_text())

    def median(name: str, what: str) -> float:
        return statistics.median(each for figures in found[name] for each in figures[what])

    words = {
        "together": "fit, each process writes its share",
        "alone": "fit, process 0 writes alone",
        "async_save": f"hand-written {'FSDP2' if PIECES else 'DDP'} loop with DCP async_save",
    }
    rows = []
    for name, said in words.items():
        rows.append((said, "", ""))
        every = ("step", "stall", "stall and step", "save")
        rows += [(f"  {what}", f"{1e3 * median(name, what):.1f} ms", "") for what in every]
        rows.append(("  memory at most", f"{median(name, 'memory') / 1e6:.0f} MB", ""))
    for name in ("together", "alone"):
        for what, wanted in (("stall", 0.25), ("stall and step", 1.1), ("save", 0.0)):
            figure = f"{median(name, what) / median('async_save', what):.2f}"
            target_words = f"wanted <= {wanted}" if wanted else ""
            rows.append((f"{name}, {what} over async_save", figure, target_words))
    parameters = 64 * WIDTH + 2 * WIDTH**2 + 10 * WIDTH + 3 * WIDTH + 10
    size = f"{12 * parameters / 1e6:.0f} MB"
    held = f"half of {size} each" if PIECES else size
    show(f"several saves: {COUNT} processes, {held}, process 0, {ROUNDS} rounds in turn", rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(Path(sys.argv[1]))
    else:
        main()
