"""Two short trainings whose run folders, written by the first format, lie in tests/data.

Every sum in them is exact and every other operation rounded once, so that any machine gets the
same bits. They are written anew, on a version that is to be read forever, by
``python -m tests.torch.frozen``.
"""

from __future__ import annotations

import collections
import functools
import math
import random
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn

import colabkit
from tests.torch.killing import in_child, kill_self

FOLDER = Path(__file__).parents[1] / "data" / "format-1"
EPOCHS, STEPS_A_EPOCH = 3, 5
KILLED_AT = 9
KEPT_MAX = 3
DTYPES = (
    torch.float64, torch.float32, torch.float16, torch.bfloat16, torch.complex64,
    torch.float8_e4m3fn, torch.float8_e5m2, torch.bool, torch.int64, torch.int32, torch.int16,
    torch.int8, torch.uint64, torch.uint32, torch.uint16, torch.uint8,
)  # fmt: skip


class Gains(nn.Module):
    """Multiplies each column; counts, keeps buffers of two kinds, and draws from generators."""

    def __init__(self, columns: int = 4) -> None:
        super().__init__()
        self.gain = nn.Parameter(torch.arange(1.0, columns + 1))
        self.steps = 0
        self.mode = "first"
        self.register_buffer("largest", torch.zeros(columns))
        self.register_buffer("seen", torch.zeros((), dtype=torch.int64), persistent=False)
        self.own = np.random.default_rng(5)
        self.places = torch.Generator().manual_seed(7)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.training:
            self.steps += 1
            self.mode = f"step {self.steps}"
            self.seen += len(x)
            self.largest = torch.maximum(self.largest, x.detach().amax(0))
            x = x + int(self.own.integers(4))
            x = x + torch.randint(0, 4, x.shape, generator=self.places)
        return self.gain * x

    def get_extra_state(self) -> dict[str, Any]:
        return {"steps": self.steps}

    def set_extra_state(self, state: dict[str, Any]) -> None:
        assert state["steps"] >= 0


class Memory:
    """Holds a value of every kind that a state may hold, and what it got back."""

    def __init__(self) -> None:
        self.count = 0
        self.loaded: dict[str, Any] | None = None

    def state_dict(self) -> dict[str, Any]:
        return {
            "count": self.count,
            "numbers": [True, -1, 1 << 80, 0.1, -0.0, math.nan, -math.inf, 1 + 2j, None, "ß"],
            "tuple": (1, (2.5, "three")),
            "set": {1, 2, 3},
            "deque": collections.deque([1, 2], maxlen=2),
            "counter": collections.Counter("abba"),
            "keys": {1: "one", (2, 3): "pair", "$": "tag"},
            "bytes": b"\x00\xff",
            "scalar": np.float32(0.1),
            "arrays": [np.arange(3).astype(kind) for kind in ("i1", "u8", "f2", "c8", "b1")],
            "tensors": [(torch.arange(4) - 1).abs().to(kind) for kind in DTYPES],
            "empty": torch.zeros(0, 3),
            "zero_dim": torch.tensor(1.5),
            "wide": torch.arange(6.0).reshape(2, 3).T,
        }

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.count, self.loaded = state["count"], state


def data() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randint(-3, 4, (8 * STEPS_A_EPOCH, 4), generator=generator).float()
    return x, x[:, 0].long()


def loop(
    folder: Path, at_step: Callable[[colabkit.Run], None], memory: Memory | None = None
) -> str:
    """A hand-written loop: two optimizers of which one waits, a schedule, a list and a stream."""
    model, head, memory = Gains(), Gains(), memory or Memory()
    adam = torch.optim.Adam(model.parameters(), lr=0.25, betas=(0.5, 0.5))
    sgd = torch.optim.SGD(head.parameters(), lr=0.125, momentum=0.5)
    schedule = torch.optim.lr_scheduler.StepLR(adam, 2, gamma=0.5)
    draws = random.Random(5)
    run = colabkit.Run(
        folder, save_every=1, progress=False,
        model=model, head=head, memory=memory, adam=adam, sgd=sgd, schedule=schedule, draws=draws,
    )  # fmt: skip
    for _ in run.epochs(EPOCHS):
        for x, _ in run.batches(data(), batch_size=8):
            noise = torch.randint(0, 5, x.shape) + draws.randrange(3) + random.randrange(3)
            adam.zero_grad()
            model(x + noise + np.random.randint(3)).sum().backward()
            adam.step()
            head(x).sum().backward()
            memory.count += 1
            if memory.count % 3 == 0:
                sgd.step()
                sgd.zero_grad()
            run.log(sum=x.sum(), gain=model.gain[0].item())
            at_step(run)
        schedule.step()
        run.log_epoch(largest=float(model.largest.max()))
        for item in run.items(["a", "b"]):
            memory.count += ord(item) - ord("a")
    ended = {
        "model": model.state_dict(),
        "head": head.state_dict(),
        "buffers": dict(model.named_buffers()),
        "adam": adam.state_dict()["state"],
        "sgd": sgd.state_dict()["state"],
        "waiting": head.gain.grad,
        "schedule": schedule.get_last_lr(),
        "counted": [memory.count, model.steps, model.mode, draws.random()],
        "history": _rows(run.history),
    }
    return written(ended)


class Watching:
    """A callback with a state of its own."""

    def __init__(self, at_step: Callable[[colabkit.Run], None]) -> None:
        self.at_step, self.batches = at_step, 0

    def on_batch_end(self, run: colabkit.Run, step: int, logs: Any) -> None:
        self.batches += 1
        self.at_step(run)

    def state_dict(self) -> dict[str, Any]:
        return {"batches": self.batches}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.batches = state["batches"]


def largest(output: torch.Tensor, target: torch.Tensor) -> torch.Tensor:
    del target
    return output.max()


def fitted(folder: Path, at_step: Callable[[colabkit.Run], None]) -> str:
    """``fit`` with a schedule, validation, patience, a metric and a callback."""
    model, watching = Gains(), Watching(at_step)
    adam = torch.optim.Adam(model.parameters(), lr=0.25, betas=(0.5, 0.5))
    schedule = torch.optim.lr_scheduler.StepLR(adam, 1, gamma=0.5)
    history = colabkit.fit(
        model, data(), folder, epochs=EPOCHS, batch_size=8, optimizer=adam, scheduler=schedule,
        loss=largest, validation_data=data(), monitor="val_loss", callbacks=[watching],
        save_every=1, progress=False, device="cpu", precision="fp32",
    )  # fmt: skip
    ended = {
        "model": model.state_dict(),
        "adam": adam.state_dict()["state"],
        "schedule": schedule.get_last_lr(),
        "counted": [watching.batches, model.steps, model.mode],
        "history": _rows(history),
    }
    return written(ended)


def written(value: Any) -> str:
    """Returns text that tells two states apart by any bit and by the type of anything in them."""
    kind = type(value).__name__
    if isinstance(value, dict):
        return f"{kind}({', '.join(f'{k!r}: {written(each)}' for k, each in value.items())})"
    if isinstance(value, list | tuple | collections.deque):
        return f"{kind}({', '.join(map(written, value))})"
    if isinstance(value, torch.Tensor):
        flat = value.detach().contiguous().reshape(-1).view(torch.uint8)
        return f"{value.dtype}{list(value.shape)}:{flat.numpy().tobytes().hex()}"
    if isinstance(value, np.ndarray | np.generic):
        return f"{kind}:{value.dtype.str}{list(value.shape)}:{value.tobytes().hex()}"
    return f"{kind}:{value.hex() if isinstance(value, float) else value!r}"


def _rows(history: colabkit.History) -> list[dict[str, float]]:
    numbers = history.numbers()["epochs"]
    return [{k: float(v) for k, v in row.items() if k != "seconds"} for row in numbers]


TRAININGS = {"loop": loop, "fit": fitted}


def killed_at(step: int, folder: Path) -> Callable[[colabkit.Run], None]:
    """Returns what kills the process at a step, that place saved and all else pruned."""

    def at_step(run: colabkit.Run) -> None:
        run.flush()
        if run.step == step:
            while len(colabkit.checkpoints(folder)) > KEPT_MAX:
                time.sleep(0.1)
            kill_self()

    return at_step


def untouched(run: colabkit.Run) -> None:
    del run


def freeze() -> None:
    """Writes the folders, and beside each what it ended with."""
    FOLDER.mkdir(parents=True)
    for name, train in TRAININGS.items():
        kill = functools.partial(train, FOLDER / name, killed_at(KILLED_AT, FOLDER / name))
        with tempfile.TemporaryDirectory() as scratch:
            assert not in_child(kill, report=Path(scratch) / "error.txt")
            ended = train(Path(scratch) / "alone", untouched)
        (FOLDER / f"{name}.txt").write_text(ended.replace(", ", ",\n") + "\n")


if __name__ == "__main__":
    freeze()
