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

SAMPLES, EPOCHS, ROUNDS = 6400, 6, 9
X, Y = torch.randn(SAMPLES, 32), torch.randint(0, 10, (SAMPLES,))
STEPS = EPOCHS * SAMPLES // 32


def network() -> nn.Module:
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(32, 64), nn.ReLU(), nn.Linear(64, 10))


def loader() -> DataLoader:
    return DataLoader(TensorDataset(X, Y), batch_size=32, shuffle=True)


def by_hand() -> float:
    model, loss_function, batches = network(), nn.CrossEntropyLoss(), loader()
    optimizer = torch.optim.AdamW(model.parameters())
    began_s = time.perf_counter()
    for _ in range(EPOCHS):
        for x, y in batches:
            optimizer.zero_grad()
            loss = loss_function(model(x), y)
            loss.backward()
            optimizer.step()
    return (time.perf_counter() - began_s) / STEPS * 1e6


def fitted(data: object, *, own_optimizer: bool) -> float:
    folder = tempfile.mkdtemp()
    model = network()
    optimizer = torch.optim.AdamW(model.parameters()) if own_optimizer else None
    try:
        began_s = time.perf_counter()
        colabkit.fit(
            model, data, folder, epochs=EPOCHS, optimizer=optimizer, save_every="1s", device="cpu"
        )
        return (time.perf_counter() - began_s) / STEPS * 1e6
    finally:
        shutil.rmtree(folder)


def main() -> None:
    torch.set_num_threads(1)
    results = interleaved(
        {
            "hand": by_hand,
            "loader": lambda: fitted(loader(), own_optimizer=True),
            "arrays": lambda: fitted((X, Y), own_optimizer=False),
        },
        rounds=ROUNDS,
    )
    by_name = {name: statistics.median(values) for name, values in results.items()}
    show(
        "loop: microseconds a step, with bar, history and checkpoints on",
        [
            ("hand-written loop with DataLoader", f"{by_name['hand']:.0f} us", ""),
            ("fit(DataLoader, own optimizer)", f"{by_name['loader']:.0f} us", ""),
            ("  ratio", f"{ratio(results, 'loader', 'hand'):.2f}", "wanted <= 1.02"),
            ("fit((x, y))", f"{by_name['arrays']:.0f} us", ""),
            ("  ratio", f"{ratio(results, 'arrays', 'hand'):.2f}", "wanted <= 0.45"),
        ],
    )


if __name__ == "__main__":
    main()
