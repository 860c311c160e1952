"""What fit adds to, or takes from, the hand-written loop: a small MLP on one CPU thread."""

from __future__ import annotations

import shutil
import statistics
import tempfile
import time

import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import colabkit
from benchmarks.measuring import interleaved, ratio, show

SAMPLES, BATCH = 6400, 32
X, Y = torch.randn(SAMPLES, 32), torch.randint(0, 10, (SAMPLES,))
# Epochs, rounds. What a call takes before its first step counts in both.
LENGTHS = ((6, 9), (30, 5))


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))


def loader() -> DataLoader:
    return DataLoader(TensorDataset(X, Y), batch_size=BATCH, shuffle=True)


def by_hand(epochs: int) -> float:
    model, loss_function, batches = network(), nn.CrossEntropyLoss(), loader()
    optimizer = torch.optim.AdamW(model.parameters())
    began_s = time.perf_counter()
    for _ in range(epochs):
        for x, y in batches:
            optimizer.zero_grad()
            loss = loss_function(model(x), y)
            loss.backward()
            optimizer.step()
    return _step_us(time.perf_counter() - began_s, epochs)


def fitted(data: object, epochs: int, *, own_optimizer: bool) -> float:
    folder = tempfile.mkdtemp()
    model = network()
    optimizer = torch.optim.AdamW(model.parameters()) if own_optimizer else None
    try:
        began_s = time.perf_counter()
        colabkit.fit(
            model, data, folder, epochs=epochs, optimizer=optimizer, save_every="1s", device="cpu"
        )
        return _step_us(time.perf_counter() - began_s, epochs)
    finally:
        shutil.rmtree(folder)


def _step_us(taken_s: float, epochs: int) -> float:
    return taken_s / (epochs * SAMPLES // BATCH) * 1e6


def main() -> None:
    torch.set_num_threads(1)
    rows = []
    for epochs, rounds in LENGTHS:
        results = interleaved(
            {
                "hand": lambda epochs=epochs: by_hand(epochs),
                "loader": lambda epochs=epochs: fitted(loader(), epochs, own_optimizer=True),
                "arrays": lambda epochs=epochs: fitted((X, Y), epochs, own_optimizer=False),
            },
            rounds=rounds,
        )
        us = {name: f"{statistics.median(values):.0f} us" for name, values in results.items()}
        steps = f"{epochs * SAMPLES // BATCH:,} steps"
        rows.append((f"hand-written loop with DataLoader, {steps}", us["hand"], ""))
        for name, words in (
            ("loader", "fit(DataLoader, own optimizer)"),
            ("arrays", "fit((x, y))"),
        ):
            wanted = {"loader": 0.85, "arrays": 0.42}[name]
            rows.append((words, us[name], ""))
            rows.append(("  ratio", f"{ratio(results, name, 'hand'):.2f}", f"wanted <= {wanted}"))
    show("loop: microseconds a step, with bar, history and checkpoints on", rows)


if __name__ == "__main__":
    main()
