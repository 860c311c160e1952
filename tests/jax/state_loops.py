"""Loops of JAX whose state takes the other forms that people give it."""

from __future__ import annotations

import dataclasses
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax

import colabkit
from tests.jax.loops import EPOCHS, Hook, arrays, loss_of, weights

Step = Callable[..., Any]


def trained(folder: Path, save_every: Any, hook: Hook, state: Any, step: Step) -> colabkit.Run:
    """Has a step take batch after batch, and returns the run."""
    run = colabkit.Run(folder, state=state, save_every=save_every, progress=False)
    for _ in run.epochs(EPOCHS):
        for x, y in run.batches(arrays(), batch_size=8):
            run.state, loss = step(run.state, x, y)
            hook(run.step)
            run.log(loss=loss)
    return run


def plain_step(tx: Any) -> Step:
    @functools.partial(jax.jit, donate_argnums=0)
    def step(state: Any, x: Any, y: Any) -> Any:
        params, moments, key = state
        key, drop = jax.random.split(key)
        loss, grads = jax.value_and_grad(loss_of)(params, x, y, drop)
        updates, moments = tx.update(grads, moments, params)
        return (optax.apply_updates(params, updates), moments, key), loss

    return step


@functools.partial(
    jax.tree_util.register_dataclass,
    data_fields=["kernel", "bias", "inner"],
    meta_fields=["activation", "width"],
)
@dataclasses.dataclass(frozen=True)
class Layer:
    """A module as Equinox makes them: a frozen tree, with functions and sizes beside the arrays."""

    kernel: Any
    bias: Any
    inner: Any
    activation: Any
    width: int

    def __call__(self, x: Any) -> Any:
        inner = x if self.inner is None else self.inner(x)
        return self.activation(inner @ self.kernel + self.bias)


def as_equinox_does(folder: Path, save_every: Any, hook: Hook) -> colabkit.Run:
    """A module that is a tree, with gradients gathered over three batches and a schedule."""
    one, two = jax.random.split(jax.random.key(2))
    inner = Layer(jax.random.normal(one, (6, 8)), jnp.zeros(8), None, jax.nn.relu, 8)
    model = Layer(jax.random.normal(two, (8, 3)), jnp.zeros(3), inner, lambda x: x, 3)
    rate = optax.warmup_cosine_decay_schedule(0.0, 0.1, 1, 4)
    tx = optax.MultiSteps(optax.adam(rate), every_k_schedule=2)

    @jax.jit
    def step(state: Any, x: Any, y: Any) -> Any:
        model, moments, average = state

        def loss_of_model(model: Any) -> Any:
            return optax.softmax_cross_entropy_with_integer_labels(model(x), y).mean()

        loss, grads = jax.value_and_grad(loss_of_model)(model)
        updates, moments = tx.update(grads, moments, model)
        model = optax.apply_updates(model, updates)
        return (model, moments, optax.incremental_update(model, average, 0.1)), loss

    return trained(folder, save_every, hook, (model, tx.init(model), model), step)


def in_chunks(folder: Path, save_every: Any, hook: Hook) -> colabkit.Run:
    """Several steps in one call, over items that are numbers alone; some steps are skipped."""
    x, y = map(jnp.asarray, arrays())
    tx = optax.apply_if_finite(optax.adam(0.05), 5)
    params = weights(jax.random.key(2))
    keys = (jax.random.key(4, impl="rbg"), jax.random.PRNGKey(7))
    state = {"params": params, "moments": tx.init(params), "keys": keys}

    def one(state: Any, number: Any) -> Any:
        key, old = state["keys"]
        at = jax.random.randint(jax.random.fold_in(key, number), (8,), 0, len(x))
        old, drop = jax.random.split(old)
        loss, grads = jax.value_and_grad(loss_of)(state["params"], x[at], y[at], drop)
        grads = jax.tree.map(lambda g: jnp.where(number % 3 == 1, jnp.nan, g), grads)
        updates, moments = tx.update(grads, state["moments"], state["params"])
        params = optax.apply_updates(state["params"], updates)
        return {"params": params, "moments": moments, "keys": (key, old)}, loss

    @functools.partial(jax.jit, donate_argnums=0)
    def chunk(state: Any, first: Any) -> Any:
        return jax.lax.scan(one, state, first + jnp.arange(4))

    run = colabkit.Run(folder, state=state, save_every=save_every, progress=False)
    for number in run.items(range(9)):
        run.state, losses = chunk(run.state, 4 * number)
        hook(run.step)
        run.log(loss=losses.mean(), last=losses[-1])
    return run


def over_four_devices(folder: Path, save_every: Any, hook: Hook) -> colabkit.Run:
    """Weights and moments in parts on four devices, the batch as well."""
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    mesh = Mesh(np.array(jax.devices()).reshape(2, 2), ("data", "model"))
    tx = optax.adamw(0.05)
    params = weights(jax.random.key(2))
    spread = NamedSharding(mesh, PartitionSpec(None, "model"))
    params["hidden"]["kernel"] = jax.device_put(params["hidden"]["kernel"], spread)
    rows = NamedSharding(mesh, PartitionSpec("data"))
    everywhere = NamedSharding(mesh, PartitionSpec())
    state = (params, tx.init(params), jax.random.key(9))

    def laid_out(each: Any) -> Any:
        is_spread = len(each.sharding.device_set) > 1
        return each if is_spread else jax.device_put(each, everywhere)

    state = jax.tree.map(laid_out, state)
    inner = plain_step(tx)

    def step(state: Any, x: Any, y: Any) -> Any:
        return inner(state, jax.device_put(x, rows), jax.device_put(y, rows))

    return trained(folder, save_every, hook, state, step)


def with_a_world_beside(folder: Path, save_every: Any, hook: Hook) -> colabkit.Run:
    """Plays in a world of NumPy that is changed in place, and keeps what it saw in a ring."""
    world = {"place": np.zeros(3, "float32"), "ring": np.zeros((5, 3), "float32"), "at": 0}
    policy = {"w": jnp.ones((3, 3))}
    tx = optax.lbfgs(memory_size=2)

    def cost(policy: Any, seen: Any) -> Any:
        return jnp.mean((seen @ policy["w"] - 1) ** 2)

    @jax.jit
    def learn(policy: Any, moments: Any, seen: Any) -> Any:
        value, grad = optax.value_and_grad_from_state(lambda p: cost(p, seen))(
            policy, state=moments
        )
        updates, moments = tx.update(
            grad, moments, policy, value=value, grad=grad, value_fn=lambda p: cost(p, seen)
        )
        return optax.apply_updates(policy, updates), moments, value

    run = colabkit.Run(
        folder,
        policy=policy,
        moments=tx.init(policy),
        world=world,
        key=jax.random.key(0),
        save_every=save_every,
        progress=False,
    )
    for _ in run.items(range(9)):
        run.key, noise = jax.random.split(run.key)
        world = run.world
        world["place"] += np.asarray(jax.random.normal(noise, (3,))) + np.random.rand()
        world["ring"][world["at"]] = world["place"]
        world["at"] = (world["at"] + 1) % 5
        run.policy, run.moments, value = learn(run.policy, run.moments, world["ring"].copy())
        hook(run.step)
        run.log(cost=value)
    return run


def that_evaluates(folder: Path, save_every: Any, hook: Hook) -> colabkit.Run:
    """As Flax teaches: train(), eval(), and means that are reset between the two passes."""
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self, rngs: Any) -> None:
            self.first = nnx.Linear(6, 8, rngs=rngs)
            self.norm = nnx.BatchNorm(8, rngs=rngs)
            self.drop = nnx.Dropout(0.2, rngs=rngs)
            self.last = nnx.Linear(8, 3, rngs=rngs)

        def __call__(self, x: Any) -> Any:
            return self.last(self.drop(nnx.relu(self.norm(self.first(x)))))

    model = Network(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adamw(0.01, 0.9), wrt=nnx.Param)
    means = nnx.MultiMetric(accuracy=nnx.metrics.Accuracy(), loss=nnx.metrics.Average("loss"))

    def loss_of_model(model: Any, x: Any, y: Any) -> Any:
        logits = model(x)
        return optax.softmax_cross_entropy_with_integer_labels(logits, y).mean(), logits

    @nnx.jit
    def step(model: Any, optimizer: Any, means: Any, x: Any, y: Any) -> Any:
        (loss, logits), grads = nnx.value_and_grad(loss_of_model, has_aux=True)(model, x, y)
        means.update(loss=loss, logits=logits, labels=y)
        optimizer.update(model, grads)
        return loss

    @nnx.jit
    def evaluate(model: Any, means: Any, x: Any, y: Any) -> None:
        loss, logits = loss_of_model(model, x, y)
        means.update(loss=loss, logits=logits, labels=y)

    objects = {"model": model, "optimizer": optimizer, "means": means}
    run = colabkit.Run(folder, save_every=save_every, progress=False, **objects)
    x, y = arrays()
    for _ in run.epochs(EPOCHS):
        model.train()
        for rows in run.batches((x, y), batch_size=8):
            loss = step(model, optimizer, means, *rows)
            hook(run.step)
            run.log(loss=loss)
        run.log_epoch(train_accuracy=float(means.compute()["accuracy"]))
        means.reset()
        model.eval()
        for rows in run.batches((x, y), batch_size=8, shuffle=False):
            evaluate(model, means, *rows)
            run.flush()
            hook(run.step)
        run.log_epoch(**{f"val_{k}": float(v) for k, v in means.compute().items()})
        means.reset()
    return run


def with_all_of_it_kept(folder: Path, save_every: Any, hook: Hook) -> colabkit.Run:
    """A run that is passed nothing of JAX, in a program that has no PyTorch."""
    tx = optax.adam(0.05)
    step, params = plain_step(tx), weights(jax.random.key(2))
    run = colabkit.Run(folder, save_every=save_every, progress=False)
    kept = run.state(of=(params, tx.init(params), jax.random.PRNGKey(5)), seen=0)
    for _ in run.epochs(EPOCHS):
        for x, y in run.batches(arrays(), batch_size=8):
            kept.of, loss = step(kept.of, x, y)
            kept.seen += len(x)
            hook(run.step)
            run.log(loss=loss, seen=kept.seen)
    run.of = kept.of
    return run


STATE_LOOPS = {
    "with_all_of_it_kept": with_all_of_it_kept,
    "that_evaluates": that_evaluates,
    "as_equinox_does": as_equinox_does,
    "in_chunks": in_chunks,
    "over_four_devices": over_four_devices,
    "with_a_world_beside": with_a_world_beside,
}
