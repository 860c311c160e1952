"""What fit adds to Keras' own fit, with and without its backups, and how long a save holds it."""

from __future__ import annotations

import importlib.util
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import warnings
from pathlib import Path
from time import perf_counter
from typing import Any

# Read when TensorFlow is loaded; the same for all that is compared here.
os.environ |= {"TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
os.environ.setdefault("KERAS_BACKEND", "tensorflow")
os.environ |= {"TF_NUM_INTRAOP_THREADS": "2", "TF_NUM_INTEROP_THREADS": "2"}

import keras
import numpy as np

import colabkit
from benchmarks.measuring import interleaved, ratio, show, timed

BACKEND = keras.backend.backend()
SAMPLES, EPOCHS, BATCH, ROUNDS, EVERY = 32_000, 4, 32, 7, 200
STEPS = EPOCHS * SAMPLES // BATCH
_RANDOM = np.random.default_rng(0)
X = _RANDOM.normal(size=(SAMPLES, 32)).astype("float32")
Y = _RANDOM.integers(0, 10, SAMPLES)
WIDTH, LAYERS, LARGE_BATCH, LARGE_EVERY, SAVES = 2236, 10, 256, 8, 6


def network() -> keras.Model:
    keras.backend.clear_session()
    keras.utils.set_random_seed(0)
    layers = [keras.layers.Dense(64, "relu"), keras.layers.Dense(10)]
    model = keras.Sequential([keras.Input((32,)), *layers])
    model.compile("adam", keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    return model


def in_keras(*, callbacks: tuple[Any, ...] = ()) -> float:
    model = network()
    train = lambda: model.fit(  # noqa: E731
        X, Y, epochs=EPOCHS, batch_size=BATCH, verbose=0, callbacks=list(callbacks)
    )
    return timed(train) / STEPS * 1e6


def with_backups() -> float:
    folder = tempfile.mkdtemp(dir=".")
    try:
        backup = keras.callbacks.BackupAndRestore(
            folder + "/backup", save_freq=EVERY, double_checkpoint=False
        )
        return in_keras(callbacks=(backup,))
    finally:
        shutil.rmtree(folder, ignore_errors=True)


def fitted(save_every: str | int) -> float:
    folder, model = tempfile.mkdtemp(dir="."), network()
    try:
        train = lambda: colabkit.fit(  # noqa: E731
            model, (X, Y), folder, epochs=EPOCHS, batch_size=BATCH, save_every=save_every
        )
        return timed(train) / STEPS * 1e6
    finally:
        shutil.rmtree(folder)


def speed() -> None:
    results = interleaved(
        {
            "keras": in_keras,
            "auto": lambda: fitted("auto"),
            "1s": lambda: fitted("1s"),
            "backup": with_backups,
            "steps": lambda: fitted(EVERY),
        },
        rounds=ROUNDS,
    )
    times = {name: f"{statistics.median(values):.0f} us" for name, values in results.items()}
    show(
        f"keras on {BACKEND}: microseconds a step of a small MLP, all of fit with its tracing",
        [
            ("model.fit, no callback", times["keras"], ""),
            ('fit, save_every="auto"', times["auto"], ""),
            ("  ratio", f"{ratio(results, 'auto', 'keras'):.2f}", "wanted <= 1.05"),
            ('fit, save_every="1s"', times["1s"], ""),
            ("  ratio", f"{ratio(results, '1s', 'keras'):.2f}", "wanted <= 1.05"),
            (f"model.fit with BackupAndRestore(save_freq={EVERY})", times["backup"], ""),
            (f"fit, save_every={EVERY}", times["steps"], ""),
            ("  ratio", f"{ratio(results, 'steps', 'backup'):.2f}", "wanted < 1"),
        ],
    )


class Stopwatch:
    """Notes when each step ended, and how long saves have held the thread so far."""

    def __init__(self) -> None:
        self.ends_s: list[float] = []
        self.held_s: list[float] = []

    def on_batch_end(self, run: colabkit.Run, step: int, logs: object) -> None:
        del step, logs
        self.ends_s.append(perf_counter())
        self.held_s.append(run.checkpoint_wait_s)


def stall(folder: Path) -> None:
    keras.backend.clear_session()
    layers = [keras.layers.Dense(WIDTH, use_bias=False) for _ in range(LAYERS)]
    model = keras.Sequential([keras.Input((WIDTH,)), *layers])
    model.compile("adam", "mse")
    x = _RANDOM.normal(size=(LARGE_BATCH * LARGE_EVERY * SAVES, WIDTH)).astype("float32")
    watch = Stopwatch()
    colabkit.fit(
        model,
        (x, x),
        folder / "run",
        batch_size=LARGE_BATCH,
        save_every=LARGE_EVERY,
        callbacks=[watch],
        progress=False,
    )
    nbytes = colabkit.checkpoints(folder / "run")[0].nbytes
    steps_s = np.diff(watch.ends_s)
    # The step after a save is the one that waits for it, and takes new memory.
    after = np.arange(LARGE_EVERY - 1, len(steps_s), LARGE_EVERY)
    late = [s for s in range(len(steps_s)) if s % LARGE_EVERY == LARGE_EVERY - 2]
    plain_s = statistics.median(steps_s[late])
    held_s = np.diff(watch.held_s)[after]
    lost_s = [
        float(np.sum(steps_s[at : at + LARGE_EVERY])) - LARGE_EVERY * plain_s
        for at in after[1:]
        if at + LARGE_EVERY <= len(steps_s)
    ]
    weights_s = [timed(lambda: model.save_weights(folder / "w.weights.h5")) for _ in range(4)]
    whole_s = [timed(lambda: model.save(folder / "w.keras")) for _ in range(4)]
    words = [
        ("held by one save", statistics.median(held_s[1:])),
        ("the step after a save takes longer by", statistics.median(steps_s[after][1:]) - plain_s),
        (f"the {LARGE_EVERY} steps after a save together", statistics.median(lost_s)),
        ("model.save_weights, the weights alone", statistics.median(weights_s[1:])),
        ("model.save, weights and optimizer", statistics.median(whole_s[1:])),
    ]
    if BACKEND == "jax":
        words.insert(1, ("  a copy of the state on its device", device_copy_s(model)))
    rows = [(what, f"{1e3 * seconds:.1f} ms", "") for what, seconds in words]
    what = f"a checkpoint of {nbytes / 1e6:.0f} MB beside a step of {1e3 * plain_s:.0f} ms"
    title = f"keras on {BACKEND}: {what}"
    show(title, rows)


def device_copy_s(model: keras.Model) -> float:
    """Returns what no save can do without: the next step overwrites the state that it is given."""
    import jax

    state = [
        v.value for v in {id(v): v for v in (*model.variables, *model.optimizer.variables)}.values()
    ]
    copy = jax.jit(lambda arrays: [jax.numpy.copy(each) for each in arrays])
    return statistics.median(
        [timed(lambda: jax.block_until_ready(copy(state))) for _ in range(6)][1:]
    )


def main() -> None:
    warnings.simplefilter("ignore")
    speed()
    folder = Path(tempfile.mkdtemp(dir="."))
    try:
        stall(folder)
    finally:
        shutil.rmtree(folder)
    if BACKEND == "tensorflow" and importlib.util.find_spec("jax") is not None:
        command = [sys.executable, "-m", "benchmarks.bench_keras"]
        subprocess.run(command, env={**os.environ, "KERAS_BACKEND": "jax"}, check=True)


if __name__ == "__main__":
    main()
