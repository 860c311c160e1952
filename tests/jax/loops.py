"""Hand-written loops over a Run of JAX that a resume must repeat bit for bit."""

from __future__ import annotations

import functools
import random
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax

import colabkit

Hook = Callable[[int], None]
EPOCHS, SAMPLES, BATCH = 3, 20, 8


class Moments(NamedTuple):
    mean: Any
    count: Any


def arrays() -> tuple[Any, Any]:
    chooser = np.random.default_rng(1)
    return chooser.normal(size=(SAMPLES, 6)).astype("float32"), chooser.integers(0, 3, SAMPLES)


def weights(key: Any) -> dict[str, Any]:
    one, two = jax.random.split(key)
    return {
        "hidden": {"kernel": jax.random.normal(one, (6, 8)), "bias": jnp.zeros(8)},
        "out": [jax.random.normal(two, (8, 3)) * 0.3],
    }


def loss_of(params: Any, x: Any, y: Any, key: Any) -> Any:
    hidden = jax.nn.relu(x @ params["hidden"]["kernel"] + params["hidden"]["bias"])
    hidden = hidden * jax.random.bernoulli(key, 0.8, hidden.shape)
    return optax.softmax_cross_entropy_with_integer_labels(hidden @ params["out"][0], y).mean()


def with_optax(folder: Path, save_every: Any, hook: Hook) -> colabkit.Run:
    """A dict of parameters, Adam on a schedule, a typed key and a raw one, donated at each step."""
    rate = optax.cosine_decay_schedule(0.05, 30)
    clipped = optax.chain(optax.clip_by_global_norm(1.0), optax.adamw(rate))
    params = weights(jax.random.key(2))
    state = {
        "params": params,
        "optimizer": clipped.init(params),
        "key": jax.random.key(5),
        "raw": jax.random.PRNGKey(6),
        "moments": Moments(jnp.zeros(6, jnp.bfloat16), 0),
        "scale": jnp.asarray(2.0),
    }

    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, x: Any, y: Any) -> Any:
        key, drop = jax.random.split(state["key"])
        raw, noise = jax.random.split(state["raw"])
        x = x + 0.1 * jax.random.normal(noise, x.shape)
        loss, grads = jax.value_and_grad(loss_of)(state["params"], x, y, drop)
        updates, optimizer = clipped.update(grads, state["optimizer"], state["params"])
        mean, count = state["moments"]
        mean = mean * jnp.bfloat16(0.9) + x.mean(0).astype(jnp.bfloat16) * state["scale"]
        return {
            "params": optax.apply_updates(state["params"], updates),
            "optimizer": optimizer,
            "key": key,
            "raw": raw,
            "moments": Moments(mean, count + 1),
            "scale": state["scale"] * 0.99,
        }, loss

    run = colabkit.Run(folder, state=state, save_every=save_every, progress=False)
    for _ in run.epochs(EPOCHS):
        for x, y in run.batches(arrays(), batch_size=BATCH):
            x = x * (1 + 0.01 * random.random()) + 0.01 * float(np.random.rand())
            run.state, loss = step(run.state, x, y)
            hook(run.step)
            run.log(loss=loss)
        run.log_epoch(val_loss=float(loss_of(run.state["params"], *arrays(), jax.random.key(0))))
    return run


def several(folder: Path, save_every: Any, hook: Hook) -> colabkit.Run:
    """Objects under names of their own, a kept value, and data that is read again."""
    params, rate = weights(jax.random.key(3)), optax.sgd(0.1, momentum=0.9)
    run = colabkit.Run(
        folder,
        params=params,
        opt_state=rate.init(params),
        key=jax.random.key(1),
        save_every=save_every,
        progress=False,
    )
    kept = run.state(total=jnp.zeros(()), seen=[])
    step = jax.jit(jax.value_and_grad(loss_of))

    def data() -> Any:
        x, y = arrays()
        for begin in range(0, SAMPLES, BATCH):
            noise = np.random.normal(size=(1, 6)).astype("float32")
            yield {"x": x[begin : begin + BATCH] + noise, "y": y[begin : begin + BATCH]}

    for _ in run.epochs(EPOCHS):
        for batch in run.batches(data):
            run.key, drop = jax.random.split(run.key)
            loss, grads = step(run.params, batch["x"], batch["y"], drop)
            updates, run.opt_state = rate.update(grads, run.opt_state)
            run.params = optax.apply_updates(run.params, updates)
            kept.total = kept.total + loss
            kept.seen.append(float(loss))
            hook(run.step)
            run.log(loss=loss)
    run.log_epoch(total=float(kept.total), seen=sum(kept.seen))
    return run


def with_nnx(folder: Path, save_every: Any, hook: Hook) -> colabkit.Run:
    """A module of NNX with dropout and batch norm, its optimizer, and a metric; all in place."""
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.first = nnx.Linear(6, 8, rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.drop = nnx.Dropout(0.2, rngs=rngs)
            self.last = nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.last(self.drop(nnx.relu(self.norm(self.first(x)))))

    model = Network(nnx.Rngs(0, dropout=3))
    optimizer = nnx.Optimizer(model, optax.adam(0.01), wrt=nnx.Param)
    metric = nnx.metrics.Average("loss")

    @nnx.jit
    def step(model: Any, optimizer: Any, metric: Any, x: Any, y: Any) -> Any:
        def loss_of(model: Any) -> Any:
            return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

        loss, grads = nnx.value_and_grad(loss_of)(model)
        optimizer.update(model, grads)
        metric.update(loss=loss)
        return loss

    run = colabkit.Run(
        folder,
        model=model,
        optimizer=optimizer,
        metric=metric,
        save_every=save_every,
        progress=False,
    )
    assert run.model is model
    for _ in run.epochs(EPOCHS):
        for x, y in run.batches(arrays(), batch_size=BATCH):
            loss = step(model, optimizer, metric, x, y)
            hook(run.step)
            run.log(loss=loss)
        run.log_epoch(mean=float(metric.compute()))
    return run


def with_train_state(folder: Path, save_every: Any, hook: Hook) -> colabkit.Run:
    """Flax's TrainState, which begins to count from a plain 0."""
    from flax import linen
    from flax.training.train_state import TrainState

    network = linen.Sequential([linen.Dense(8), linen.relu, linen.Dense(3)])
    x, _ = arrays()
    params = network.init(jax.random.key(0), x[:1])["params"]
    made = TrainState.create(apply_fn=network.apply, params=params, tx=optax.adam(0.01))

    @jax.jit
    def step(state: Any, x: Any, y: Any) -> Any:
        def loss_of(params: Any) -> Any:
            logits = state.apply_fn({"params": params}, x)
            return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean()

        loss, grads = jax.value_and_grad(loss_of)(state.params)
        return state.apply_gradients(grads=grads), loss

    run = colabkit.Run(folder, train=made, save_every=save_every, progress=False)
    for _ in run.epochs(EPOCHS):
        for x, y in run.batches(arrays(), batch_size=BATCH):
            run.train, loss = step(run.train, x, y)
            hook(run.step)
            run.log(loss=loss)
    return run


LOOPS = {
    "with_optax": with_optax,
    "several": several,
    "with_nnx": with_nnx,
    "with_train_state": with_train_state,
}


def loop(name: str, folder: Path, kill_at: int | None, kill: Callable[[], None]) -> dict[str, Any]:
    """Runs a loop, and returns everything it ended with in a form that compares bitwise."""
    from tests.jax.state_loops import STATE_LOOPS  # which builds on this module

    def hook(step: int) -> None:
        if kill_at is not None and step >= kill_at:
            kill()

    run = {**LOOPS, **STATE_LOOPS}[name](folder, 1 if kill_at is None or kill_at % 2 else 2, hook)
    newest = colabkit.checkpoints(folder)[0]
    numbers = run.history.numbers()
    return {
        "hashes": {k: v for k, v in newest.hashes.items() if not k.startswith("run.")},
        "epochs": [{k: float(v).hex() for k, v in row.items()} for row in numbers["epochs"]],
        "steps": {k: v.view(np.uint64).tolist() for k, v in numbers["steps"].items()},
        "step": newest.step,
        "verdict": str(run.verdict),
    }
