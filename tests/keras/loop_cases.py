"""Loops of one's own over Keras and TensorFlow, as the guides write them, through ``Run``."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

import colabkit
from tests.keras.around import dying_run
from tests.keras.cases import BATCH, SAMPLES, arrays

LOOP_EPOCHS = 3
layers = keras.layers
crossentropy = keras.losses.SparseCategoricalCrossentropy(from_logits=True)


def pipeline() -> tf.data.Dataset:
    return tf.data.Dataset.from_tensor_slices(arrays()).shuffle(SAMPLES).batch(BATCH)


def network() -> keras.Model:
    hidden = [layers.Dense(12, activation="relu"), layers.Dropout(0.2)]
    return keras.Sequential([keras.Input((6,)), *hidden, layers.Dense(3)])


def descend(model: Any, optimizer: Any, x: Any, y: Any) -> Any:
    with tf.GradientTape() as tape:
        loss = crossentropy(y, model(x, training=True))
    weights = model.trainable_variables
    optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
    return loss


def guide(run_of: Callable[..., Any]) -> Any:
    """Metrics that are reset as each epoch begins, a counter, generators of both kinds."""
    data, model, optimizer = pipeline(), network(), keras.optimizers.Adam(1e-2)
    mean, accuracy = keras.metrics.Mean(), keras.metrics.SparseCategoricalAccuracy()
    seen, seeds = tf.Variable(0), keras.random.SeedGenerator(4)
    own = tf.random.Generator.from_seed(5)

    @tf.function
    def step(x: Any, y: Any) -> Any:
        noise = keras.random.normal(tf.shape(x), seed=seeds) + own.normal(tf.shape(x))
        counted = tf.cast(tf.stack([seen, 1]), tf.int32)
        x += tf.random.stateless_normal(tf.shape(x), seed=counted) + 0.1 * noise
        loss = descend(model, optimizer, x, y)
        mean.update_state(loss)
        accuracy.update_state(y, model(x, training=False))
        seen.assign_add(1)
        return loss

    run = run_of(
        model=model, optimizer=optimizer, metrics=[mean, accuracy], seen=seen, seeds=seeds, own=own
    )
    for _ in run.epochs(LOOP_EPOCHS):
        mean.reset_state()
        accuracy.reset_state()
        for x, y in run.batches(data):
            run.log(loss=step(x, y))
        run.log_epoch(mean=float(mean.result()), accuracy=float(accuracy.result()))
    return run


def gan(run_of: Callable[..., Any]) -> Any:
    """The tutorial's: two models, two optimizers, one tf.train.Checkpoint of all."""
    x, _ = arrays()
    data = tf.data.Dataset.from_tensor_slices(x).shuffle(SAMPLES).batch(BATCH)
    generator = keras.Sequential(
        [keras.Input((4,)), layers.Dense(8), layers.BatchNormalization(), layers.Dense(6)]
    )
    discriminator = keras.Sequential(
        [keras.Input((6,)), layers.Dense(8), layers.Dropout(0.2), layers.Dense(1)]
    )
    g_optimizer, d_optimizer = keras.optimizers.Adam(1e-3), keras.optimizers.Adam(1e-3)
    judge = keras.losses.BinaryCrossentropy(from_logits=True)

    @tf.function
    def step(real: Any) -> Any:
        noise = keras.random.normal((tf.shape(real)[0], 4))
        with tf.GradientTape() as g_tape, tf.GradientTape() as d_tape:
            made = discriminator(generator(noise, training=True), training=True)
            found = discriminator(real, training=True)
            g_loss = judge(tf.ones_like(made), made)
            d_loss = judge(tf.ones_like(found), found) + judge(tf.zeros_like(made), made)
        for tape, loss, model, optimizer in (
            (g_tape, g_loss, generator, g_optimizer),
            (d_tape, d_loss, discriminator, d_optimizer),
        ):
            weights = model.trainable_variables
            optimizer.apply_gradients(zip(tape.gradient(loss, weights), weights, strict=True))
        return d_loss

    checkpoint = tf.train.Checkpoint(
        generator_optimizer=g_optimizer,
        discriminator_optimizer=d_optimizer,
        generator=generator,
        discriminator=discriminator,
    )
    run = run_of(checkpoint=checkpoint)
    for _ in run.epochs(LOOP_EPOCHS):
        for batch in run.batches(data):
            run.log(loss=step(batch))
    return run


def eager_module(run_of: Callable[..., Any]) -> Any:
    """A tf.Module without Keras, whose eager loop draws from TensorFlow's global stream."""

    class Linear(tf.Module):
        def __init__(self) -> None:
            self.parts = {"w": tf.Variable(tf.zeros((6, 3))), "b": [tf.Variable(tf.zeros(3))]}

    model = Linear()
    run = run_of(module=model)
    for _ in run.epochs(LOOP_EPOCHS):
        for x, y in run.batches(arrays(), batch_size=BATCH):
            noisy = x + tf.random.normal(x.shape) + tf.random.uniform(x.shape, seed=3)
            with tf.GradientTape() as tape:
                logits = noisy @ model.parts["w"] + model.parts["b"][0]
                loss = tf.reduce_mean(
                    tf.nn.sparse_softmax_cross_entropy_with_logits(labels=y, logits=logits)
                )
            for variable, slope in zip(
                model.trainable_variables,
                tape.gradient(loss, model.trainable_variables),
                strict=True,
            ):
                variable.assign_sub(0.1 * slope)
            run.log(loss=loss)
    return run


def on_batch(run_of: Callable[..., Any]) -> Any:
    model = network()
    model.compile("adam", crossentropy, metrics=["accuracy"])
    run = run_of(model=model)
    for _ in run.epochs(LOOP_EPOCHS):
        for x, y in run.batches(arrays(), batch_size=BATCH):
            run.log(**model.train_on_batch(x, y, return_dict=True))
    return run


def compiled_metrics(run_of: Callable[..., Any]) -> Any:
    """A step of one's own that feeds the compiled metrics, which Keras makes within it."""
    model = network()
    model.compile("adam", crossentropy, metrics=["accuracy"])
    run = run_of(model=model)

    @tf.function
    def step(x: Any, y: Any) -> Any:
        descend(model, model.optimizer, x, y)
        return model.compute_metrics(x, y, model(x, training=False))

    for _ in run.epochs(LOOP_EPOCHS):
        model.reset_metrics()
        for x, y in run.batches(pipeline()):
            run.log(accuracy=step(x, y)["accuracy"])
    return run


def scaled(run_of: Callable[..., Any]) -> Any:
    """Loss scaling and averages of weights in a step compiled by XLA, with a schedule."""
    data, model = pipeline(), network()
    rate = keras.optimizers.schedules.ExponentialDecay(1e-2, 5, 0.9)
    inner = keras.optimizers.AdamW(rate, use_ema=True, gradient_accumulation_steps=2)
    optimizer = keras.optimizers.LossScaleOptimizer(inner, dynamic_growth_steps=3)

    @tf.function(jit_compile=True)
    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = crossentropy(y, model(x, training=True))
            scaled_loss = optimizer.scale_loss(loss)
        weights = model.trainable_variables
        optimizer.apply(tape.gradient(scaled_loss, weights), weights)
        return loss

    run = run_of(model=model, optimizer=optimizer)
    for _ in run.epochs(LOOP_EPOCHS):
        for x, y in run.batches(data):
            run.log(loss=step(x, y))
    return run


def two_phases(run_of: Callable[..., Any]) -> Any:
    """A head, then all, with a metric that each epoch resets and a count over both."""
    data, model = pipeline(), network()
    mean, seen = keras.metrics.Mean(), tf.Variable(0)
    model.layers[0].trainable = False
    for epochs, rate in ((1, 1e-1), (3, 1e-2)):
        optimizer = keras.optimizers.Adam(rate)
        run = run_of(model=model, optimizer=optimizer, mean=mean, seen=seen)
        for _ in run.epochs(epochs):
            mean.reset_state()
            for x, y in run.batches(data):
                seen.assign_add(1)
                loss = descend(model, optimizer, x * tf.cast(seen, "float32"), y)
                mean.update_state(loss)
                run.log(loss=loss)
            run.log_epoch(mean=float(mean.result()))
        model.layers[0].trainable = True
    return run


LOOPS: dict[str, Callable[[Callable[..., Any]], Any]] = {
    each.__name__: each
    for each in (guide, gan, eager_module, on_batch, compiled_metrics, scaled, two_phases)
}


def loop(name: str, folder: Any, kill_at: int | None, kill: Callable[[], None]) -> dict[str, Any]:
    """Runs a loop, and returns everything it ended with in a form that compares bitwise."""
    keras.utils.set_random_seed(11)

    run = LOOPS[name](dying_run(folder, kill_at, kill))
    newest = colabkit.checkpoints(folder)[0]
    numbers = run.history.numbers()
    return {
        "hashes": {k: v for k, v in newest.hashes.items() if not k.startswith("run.")},
        "epochs": [{k: float(v).hex() for k, v in row.items()} for row in numbers["epochs"]],
        "steps": {k: v.view(np.uint64).tolist() for k, v in numbers["steps"].items()},
        "step": newest.step,
        "verdict": str(run.verdict),
    }
