"""What fit adds to a hand-written DistributedDataParallel loop: 2 processes, a core for each."""

from __future__ import annotations

import json
import shutil
import statistics
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import torch
import torch.distributed as dist
from torch import nn
from torch.nn.parallel import DistributedDataParallel
from torch.utils.data import DataLoader, DistributedSampler, TensorDataset

import colabkit
from benchmarks.measuring import ratio, show
from benchmarks.several_processes import start_all

COUNT, BATCH = 2, 64
# Hidden width, steps of an epoch, rounds: about 2 ms a step, and about 100 ms. Shorter epochs would
# measure two saves of 120 MB and little else; at 2 ms what each ends with is seen as well.
SIZES = {
    "2 ms, epochs of 120": (384, 120, 5),
    "2 ms, epochs of 600": (384, 600, 5),
    "100 ms": (3072, 40, 3),
}
EPOCHS = 3


def data_for(steps: int) -> TensorDataset:
    made = torch.Generator().manual_seed(0)
    x = torch.randn(steps * BATCH, 128, generator=made)
    return TensorDataset(x, torch.randint(0, 10, (len(x),), generator=made))


def network(width: int) -> nn.Module:
    torch.manual_seed(0)
    hidden = [nn.Linear(width, width), nn.ReLU()]
    return nn.Sequential(nn.Linear(128, width), nn.ReLU(), *hidden, nn.Linear(width, 10))


class Clock:
    """Takes the time of each epoch but the first, in which everything is warmed up."""

    def __init__(self) -> None:
        self.ends_s: list[tuple[float, float]] = []

    def on_epoch_end(self, *_: object) -> None:
        self.ends_s.append((time.perf_counter(), time.process_time()))

    def step_ms(self, steps: int) -> tuple[float, float]:
        """Returns what a step takes, and how much of that the processor works for it."""
        begins_s, ends_s = self.ends_s[0], self.ends_s[-1]
        wall, busy = ((end - begin) * 1e3 for begin, end in zip(begins_s, ends_s, strict=True))
        return wall / (steps * (EPOCHS - 1)), busy / (steps * (EPOCHS - 1))


def by_hand(width: int, steps: int) -> tuple[float, float]:
    rows = data_for(steps)
    sampler: DistributedSampler[object] = DistributedSampler(rows)
    loader = DataLoader(rows, batch_size=BATCH // COUNT, sampler=sampler)
    model, loss_function, clock = network(width), nn.CrossEntropyLoss(), Clock()
    wrapped = DistributedDataParallel(model)
    optimizer = torch.optim.AdamW(model.parameters())
    for epoch in range(EPOCHS):
        sampler.set_epoch(epoch)
        for x, y in loader:
            optimizer.zero_grad()
            loss = loss_function(wrapped(x), y)
            loss.backward()
            optimizer.step()
        clock.on_epoch_end()
    return clock.step_ms(steps)


def fitted(width: int, steps: int, folder: str, *, loader: bool) -> tuple[float, float]:
    rows, model, clock = data_for(steps), network(width), Clock()
    data = DataLoader(rows, batch_size=BATCH, shuffle=True) if loader else rows.tensors
    colabkit.fit(
        model,
        data,
        folder,
        epochs=EPOCHS,
        batch_size=BATCH,
        optimizer=torch.optim.AdamW(model.parameters()) if loader else None,
        callbacks=[clock],
        progress=False,
        device="cpu",
    )
    return clock.step_ms(steps)


def train(target: Path) -> None:
    """In each of the processes: every contender in turn; the first one writes down the times."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo")
    found: dict[str, dict[str, list[tuple[float, float]]]] = {}
    for size, (width, steps, rounds) in SIZES.items():

        def fresh(*, loader: bool, width: int = width, steps: int = steps) -> tuple[float, float]:
            held = [tempfile.mkdtemp() if dist.get_rank() == 0 else ""]
            dist.broadcast_object_list(held)
            try:
                return fitted(width, steps, held[0], loader=loader)
            finally:
                dist.barrier()
                shutil.rmtree(held[0], ignore_errors=True)

        contenders: dict[str, Callable[[], tuple[float, float]]] = {
            "hand": lambda width=width, steps=steps: by_hand(width, steps),
            "loader": lambda: fresh(loader=True),
            "arrays": lambda: fresh(loader=False),
        }
        found[size] = in_turn(contenders, rounds=rounds)
    if dist.get_rank() == 0:
        target.write_text(json.dumps(found))
    dist.destroy_process_group()


def in_turn(
    contenders: dict[str, Callable[[], tuple[float, float]]], *, rounds: int
) -> dict[str, list[tuple[float, float]]]:
    """Runs each in turn, round after round; the first round is left out."""
    found: dict[str, list[tuple[float, float]]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            taken = run()
            if number:
                found[name].append(taken)
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        target = Path(folder) / "times"
        start_all("benchmarks.bench_several", COUNT, target)
        found = json.loads(target.read_text())
    rows = []
    for (size, results), wanted in zip(found.items(), (1.05, 1.05, 1.01), strict=True):
        wall = {name: [each[0] for each in values] for name, values in results.items()}
        busy = {name: [each[1] for each in values] for name, values in results.items()}
        hand = statistics.median(wall["hand"])
        rows.append((f"hand-written DDP loop, about {size} a step", f"{hand:.2f} ms", ""))
        for name, words in (
            ("loader", "fit(DataLoader, own optimizer)"),
            ("arrays", "fit((x, y))"),
        ):
            figure = f"{ratio(wall, name, 'hand'):.3f}"
            rows.append((f"  {words} over it", figure, f"wanted <= {wanted}"))
            rows.append(("    in processor time", f"{ratio(busy, name, 'hand'):.3f}", ""))
    show("several: 2 processes, one thread each, gloo", rows)


if __name__ == "__main__":
    if len(sys.argv) > 1:
        train(Path(sys.argv[1]))
    else:
        main()
