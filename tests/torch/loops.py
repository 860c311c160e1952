"""Hand-written loops over a Run that a resume must repeat bit for bit."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

import colabkit
from tests.torch.cases import Augmented, arrays, generated, loader, network

Hook = Callable[[int], None]
Loop = Callable[[Path, str | int | None, Hook], colabkit.Run]


def _run(folder: Path, save_every: str | int | None, **objects: Any) -> colabkit.Run:
    return colabkit.Run(folder, save_every=save_every, progress=False, **objects)


def _adam(module: nn.Module) -> torch.optim.Optimizer:
    return torch.optim.Adam(module.parameters(), lr=0.01)


def gan(folder: Path, save_every: str | int | None, hook: Hook) -> colabkit.Run:
    """Two networks, two optimizers, two loaders side by side, noise from three streams."""
    torch.manual_seed(2)
    maker, judge = nn.Sequential(nn.Linear(4, 8), nn.Dropout(0.1), nn.Linear(8, 6)), network()
    make, judging = _adam(maker), _adam(judge)
    run = _run(folder, save_every, maker=maker, judge=judge, make=make, judging=judging)
    real, other = loader(), loader(Augmented(), num_workers=1)
    for _ in run.epochs(2):
        for (x, _), (second, _) in zip(run.batches(real), run.batches(other), strict=True):
            noise = torch.rand(len(x), 4) + random.random() + float(np.random.rand())
            false = functional.softplus(judge(maker(noise).detach())).mean()
            judged = false + functional.softplus(-judge(x + 0.1 * second)).mean()
            judging.zero_grad()
            judged.backward()
            judging.step()
            fooled = functional.softplus(-judge(maker(noise))).mean()
            make.zero_grad()
            fooled.backward()
            make.step()
            hook(run.step)
            run.log(judged=judged, fooled=fooled)
    return run


def phases(folder: Path, save_every: str | int | None, hook: Hook) -> colabkit.Run:
    """Trains on one loader, then another, then validates on a shuffled one, in each epoch."""
    model = network(norm=True)
    optimizer = _adam(model)
    run = _run(folder, save_every, model=model, optimizer=optimizer)
    first, second, held_out = loader(), loader(), loader()
    for _ in run.epochs(2):
        for data in (first, second):
            model.train()
            for x, y in run.batches(data):
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(x + torch.rand(6) * 0.1), y)
                loss.backward()
                optimizer.step()
                hook(run.step)
                run.log(loss=loss)
        model.eval()
        with torch.no_grad():
            losses = [functional.cross_entropy(model(x), y) for x, y in held_out]
        run.log_epoch(val_loss=float(torch.stack(losses).mean()))
    return run


def scaled(folder: Path, save_every: str | int | None, hook: Hook) -> colabkit.Run:
    """A gradient scaler that meets overflows, a schedule per step, a generator of one's own."""
    model = network()
    optimizer = _adam(model)
    scaler = torch.amp.GradScaler("cpu", init_scale=2.0**60, growth_interval=3)
    scheduler = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    noise = torch.Generator().manual_seed(8)
    objects = {"model": model, "optimizer": optimizer, "scaler": scaler, "noise": noise}
    run = _run(folder, save_every, scheduler=scheduler, **objects)
    data = loader()
    for _ in run.epochs(2):
        for x, y in run.batches(data):
            optimizer.zero_grad()
            with torch.autocast("cpu", torch.float16):
                output = model(x + 0.1 * torch.rand(x.shape, generator=noise))
                loss = functional.cross_entropy(output, y)
            scaler.scale(loss).backward()
            before = scaler.get_scale()
            scaler.step(optimizer)
            scaler.update()
            if scaler.get_scale() >= before:
                scheduler.step()
            hook(run.step)
            run.log(loss=loss, scale=scaler.get_scale())
    return run


def accumulated(folder: Path, save_every: str | int | None, hook: Hook) -> colabkit.Run:
    """Gradients gathered over four batches, left over from one epoch to the next."""
    model = network()
    optimizer = _adam(model)
    run = _run(folder, save_every, model=model, optimizer=optimizer)
    data = loader()
    for _ in run.epochs(3):
        for x, y in run.batches(data):
            loss = functional.cross_entropy(model(x), y) / 4
            loss.backward()
            if run.step % 4 == 3:
                optimizer.step()
                optimizer.zero_grad()
            hook(run.step)
            run.log(loss=loss)
    return run


def items(folder: Path, save_every: str | int | None, hook: Hook) -> colabkit.Run:
    """A long loop over plain items, with a model that learns from each."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    run = _run(folder, save_every, model=model, optimizer=optimizer)
    x, y = arrays()
    for place in run.items(range(24)):
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x[place : place + 4]), y[place : place + 4])
        loss.backward()
        optimizer.step()
        hook(run.step)
        run.log(loss=loss)
    return run


def stream(folder: Path, save_every: str | int | None, hook: Hook) -> colabkit.Run:
    """A generator made anew for each epoch."""
    model = network()
    optimizer = _adam(model)
    run = _run(folder, save_every, model=model, optimizer=optimizer)
    for _ in run.epochs(3):
        for x, y in run.batches(generated):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            hook(run.step)
            run.log(loss=loss)
    return run


def domains(folder: Path, save_every: str | int | None, hook: Hook) -> colabkit.Run:
    """A second loader read by hand with next(), never to its end."""
    model = network()
    optimizer = _adam(model)
    run = _run(folder, save_every, model=model, optimizer=optimizer)
    source, target = loader(drop_last=True), loader()
    for _ in run.epochs(3):
        others = run.batches(target)
        for x, y in run.batches(source):
            other, _ = next(others)
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x + 0.1 * other), y)
            loss.backward()
            optimizer.step()
            hook(run.step)
            run.log(loss=loss)
    return run


def nested(folder: Path, save_every: str | int | None, hook: Hook) -> colabkit.Run:
    """A whole inner pass within some of the outer steps."""
    model = network()
    optimizer = _adam(model)
    run = _run(folder, save_every, model=model, optimizer=optimizer)
    outer, inner = loader(), loader()
    for _ in run.epochs(2):
        for pair in run.batches(outer):
            for x, y in [pair, *(run.batches(inner) if run.step % 2 else ())]:
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
            hook(run.step)
            run.log(loss=loss)
    return run


def validated(folder: Path, save_every: str | int | None, hook: Hook) -> colabkit.Run:
    """Validates through the run as well, so that a kill in it goes on in it."""
    model = network()
    optimizer = _adam(model)
    run = _run(folder, save_every, model=model, optimizer=optimizer)
    data, held_out = loader(), loader()
    for _ in run.epochs(2):
        for x, y in run.batches(data):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            hook(run.step)
            run.log(loss=loss)
        for x, y in run.batches(held_out):
            with torch.no_grad():
                run.log(val_loss=functional.cross_entropy(model(x), y))
            hook(run.step)
    return run


def never_dropped(folder: Path, save_every: str | int | None, hook: Hook) -> colabkit.Run:
    """Forgets zero_grad: each gradient is added to those of all steps before it."""
    model = network()
    optimizer = _adam(model)
    run = _run(folder, save_every, model=model, optimizer=optimizer)
    data = loader()
    for _ in run.epochs(3):
        for x, y in run.batches(data):
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            hook(run.step)
            run.log(loss=loss, size=model[0].weight.grad.norm())
    return run


def dropped_at_times(folder: Path, save_every: str | int | None, hook: Hook) -> colabkit.Run:
    """Steps after each batch, and drops what was gathered before every third."""
    model = network()
    optimizer = _adam(model)
    run = _run(folder, save_every, model=model, optimizer=optimizer)
    data = loader()
    for _ in run.epochs(3):
        for x, y in run.batches(data):
            if run.step % 3 == 0:
                optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            hook(run.step)
            run.log(loss=loss)
    return run


def by_hand(folder: Path, save_every: str | int | None, hook: Hook) -> colabkit.Run:
    """Has no optimizer, and goes downhill along the gradients of two batches at a time."""
    model = network()
    run = _run(folder, save_every, model=model)
    data = loader()
    for _ in run.epochs(3):
        for x, y in run.batches(data):
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            if run.step % 2:
                with torch.no_grad():
                    for weight in model.parameters():
                        weight -= 0.05 * weight.grad
                        weight.grad = None
            hook(run.step)
            run.log(loss=loss)
    return run


def set_before_the_loop(folder: Path, save_every: str | int | None, hook: Hook) -> colabkit.Run:
    """Sets modes, a number and what is frozen before the loop, and each otherwise within it."""
    model = network(norm=True)
    optimizer = _adam(model)
    run = _run(folder, save_every, model=model, optimizer=optimizer)
    data, drop = loader(), next(each for each in model if isinstance(each, nn.Dropout))
    model.train()
    model[0].requires_grad_(requires_grad=False)
    drop.p = 0.5
    for epoch in run.epochs(3):
        if epoch == 1:
            model[0].requires_grad_(requires_grad=True)
        for x, y in run.batches(data):
            optimizer.zero_grad()
            loss = functional.cross_entropy(model(x), y)
            loss.backward()
            optimizer.step()
            drop.p *= 0.97
            hook(run.step)
            run.log(loss=loss)
        model.eval()  # and never model.train() again
        with torch.no_grad():
            losses = [functional.cross_entropy(model(x), y) for x, y in data]
        run.log_epoch(val_loss=float(torch.stack(losses).mean()))
    return run


def broken_off(folder: Path, save_every: str | int | None, hook: Hook) -> colabkit.Run:
    """Leaves a loop by break, before or after the step, draws noise, and goes on with another."""
    model = network()
    optimizer = _adam(model)
    run = _run(folder, save_every, model=model, optimizer=optimizer)
    data = loader()

    def step(x: torch.Tensor, y: torch.Tensor) -> None:
        optimizer.zero_grad()
        loss = functional.cross_entropy(model(x), y)
        loss.backward()
        optimizer.step()
        hook(run.step)
        run.log(loss=loss)

    for epoch in run.epochs(9):
        for x, y in run.batches(data):
            if run.batch == 4 and epoch % 2:
                break
            step(x, y)
            if run.batch == 3 and not epoch % 2:
                break
        noise = torch.randn(6) + random.random() + float(np.random.rand())
        for x, y in run.batches(data):
            step(x + noise, y)
            if run.batch == 2:
                break
        run.log_epoch(drawn=float(torch.rand(())))
        if epoch == 2:
            break
    return run


def returned(folder: Path, save_every: str | int | None, hook: Hook) -> colabkit.Run:
    """Returns out of two loops at once, from behind a wrapper that somebody holds."""
    model = network()
    optimizer = _adam(model)
    run = _run(folder, save_every, model=model, optimizer=optimizer)

    def wrapped(each: Any) -> Any:
        yield from each

    def train() -> None:
        for epoch in wrapped(run.epochs(9)):
            held = run.batches(loader())
            for x, y in wrapped(held):
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(x), y)
                loss.backward()
                optimizer.step()
                hook(run.step)
                run.log(loss=loss)
                if epoch == 2 and run.batch == 1:
                    return

    train()
    return run


def shared(folder: Path, save_every: str | int | None, hook: Hook) -> colabkit.Run:
    """A second source read by hand through two loops of an epoch."""
    model = network()
    optimizer = _adam(model)
    run = _run(folder, save_every, model=model, optimizer=optimizer)
    first, second = loader(drop_last=True), loader(drop_last=True)
    for _ in run.epochs(2):
        others = run.batches(Augmented(), batch_size=3)
        for data in (first, second):
            for x, y in run.batches(data):
                other, _ = next(others)
                optimizer.zero_grad()
                loss = functional.cross_entropy(model(x + 0.1 * other.mean(0)), y)
                loss.backward()
                optimizer.step()
                hook(run.step)
                run.log(loss=loss)
    return run


def stepping_first(folder: Path, save_every: str | int | None, hook: Hook) -> colabkit.Run:
    """Steps at the top with what the batch before has left, zeroed in place by one optimizer."""
    body, head = network(norm=True), nn.Linear(3, 3)
    first, second = _adam(body), torch.optim.SGD(head.parameters(), lr=0.1, momentum=0.9)
    run = _run(folder, save_every, body=body, head=head, first=first, second=second)
    for _ in run.epochs(2):
        for x, y in run.batches(loader()):
            first.step()
            first.zero_grad()
            second.step()
            second.zero_grad(set_to_none=False)
            loss = functional.cross_entropy(head(body(x)), y)
            loss.backward()
            run.flush()  # what waits matters at a boundary alone, and toy steps outrun the disk
            hook(run.step)
            run.log(loss=loss)
    return run


LOOPS: dict[str, Loop] = {
    loop.__name__: loop
    for loop in (
        gan,
        phases,
        scaled,
        accumulated,
        items,
        stream,
        domains,
        nested,
        validated,
        never_dropped,
        dropped_at_times,
        by_hand,
        set_before_the_loop,
        broken_off,
        returned,
        shared,
        stepping_first,
    )
}
