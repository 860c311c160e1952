"""One run per way of training that a resume must repeat bit for bit."""

from __future__ import annotations

import dataclasses
import random
from collections.abc import Callable
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.optim.swa_utils import AveragedModel
from torch.utils import data as torch_data
from torchdata.stateful_dataloader import StatefulDataLoader

import colabkit

SAMPLES = 44
EPOCHS = 3


def network(*, dropout: float = 0.2, norm: bool = False) -> nn.Module:
    torch.manual_seed(11)
    middle: list[nn.Module] = [nn.BatchNorm1d(12)] if norm else []
    return nn.Sequential(
        nn.Linear(6, 12), *middle, nn.ReLU(), nn.Dropout(dropout), nn.Linear(12, 3)
    )


class Table(nn.Module):
    """An embedding with sparse gradients, in which samples share rows."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(2)
        self.rows = nn.EmbeddingBag(9, 3, sparse=True)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.rows(x.abs().mul(4).long().clamp(max=8))


def arrays() -> tuple[torch.Tensor, torch.Tensor]:
    generator = torch.Generator().manual_seed(5)
    x = torch.randn(SAMPLES, 6, generator=generator)
    return x, (x.sum(1) > 0).long() + (x[:, 0] > 1).long()


class Augmented(torch_data.Dataset):
    """Draws from all three global streams for each sample."""

    def __init__(self) -> None:
        self.x, self.y = arrays()

    def __len__(self) -> int:
        return SAMPLES

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = torch.rand(6) * 0.1 + random.random() * 0.1 + float(np.random.rand()) * 0.1
        return self.x[index] + noise, self.y[index]


class OwnGenerators(Augmented):
    def __init__(self) -> None:
        super().__init__()
        self.numpy = np.random.default_rng(3)
        self.python = random.Random(4)
        self.torch = torch.Generator().manual_seed(5)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = self.numpy.normal() * 0.1 + self.python.random() * 0.1
        return self.x[index] + noise + torch.rand(6, generator=self.torch) * 0.1, self.y[index]


class OneOfEachSample(Augmented):
    """Keeps a generator for each sample, of all three kinds."""

    def __init__(self) -> None:
        super().__init__()
        self.x, self.y = self.x.repeat(4, 1), self.y.repeat(4)
        self.numpy = {index: np.random.default_rng(index) for index in range(len(self))}
        self.python = [random.Random(index) for index in range(len(self))]
        self.torch = [torch.Generator().manual_seed(index) for index in range(len(self))]

    def __len__(self) -> int:
        return len(self.x)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, torch.Tensor]:
        noise = self.numpy[index].normal() * 0.1 + self.python[index].random() * 0.1
        return self.x[index] + noise + torch.rand(6, generator=self.torch[index]), self.y[index]


def jittered(items: list[Any]) -> list[torch.Tensor]:
    x, y = torch_data.default_collate(items)
    return [x + torch.rand(1) * 0.05 + random.random() * 0.05, y]


class Stream(torch_data.IterableDataset):
    def __iter__(self) -> Any:
        x, y = arrays()
        for index in torch.randperm(SAMPLES).tolist():
            yield x[index] + torch.rand(6) * 0.1, y[index]


class StatefulStream(torch_data.IterableDataset):
    def __init__(self) -> None:
        self.place = 0

    def __iter__(self) -> Any:
        x, y = arrays()
        while self.place < SAMPLES:
            index = self.place
            self.place += 1
            yield x[index] + torch.rand(6) * 0.1, y[index]
        self.place = 0

    def state_dict(self) -> dict[str, int]:
        return {"place": self.place}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.place = state["place"]


class LazySampler(torch_data.Sampler):
    """Draws each index only when it is asked for."""

    def __iter__(self) -> Any:
        for _ in range(SAMPLES):
            yield int(torch.randint(SAMPLES, ()))

    def __len__(self) -> int:
        return SAMPLES


def generated() -> Any:
    x, y = arrays()
    for first in range(0, SAMPLES, 8):
        yield x[first : first + 8] + torch.rand(6) * 0.1, y[first : first + 8]


class Averaging:
    """An exponential moving average of the weights, kept by a callback."""

    def __init__(self, model: nn.Module) -> None:
        self.average = AveragedModel(model, avg_fn=lambda a, p, _: 0.9 * a + 0.1 * p)
        self.model = model

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        self.average.update_parameters(self.model)

    def state_dict(self) -> dict[str, Any]:
        return dict(self.average.state_dict())

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self.average.load_state_dict(state)


class Drawing:
    """Draws from every stream between the steps, as a callback that shows samples does."""

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        torch.rand(3)
        np.random.rand(step % 3)
        random.random()

    def on_epoch_end(self, run: Any, epoch: int, logs: Any) -> None:
        torch.rand(7)


class Disturbing:
    """Moves the weights by draws of its own, and saves nothing of itself."""

    def __init__(self, model: nn.Module) -> None:
        self.model = model
        self.source = np.random.default_rng(8)
        self.torch = torch.Generator().manual_seed(8)

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        with torch.no_grad():
            for parameter in self.model.parameters():
                parameter.add_(1e-3 * torch.rand(parameter.shape, generator=self.torch))
                parameter.mul_(1 + 1e-3 * self.source.random())


@dataclasses.dataclass(frozen=True)
class Case:
    """How to build a run from nothing, the same each time."""

    build: Callable[[], dict[str, Any]]
    resumed: dict[str, Any] = dataclasses.field(default_factory=dict)
    notices: int = 0


def loader(dataset: Any = None, **options: Any) -> torch_data.DataLoader:
    shuffle = {} if {"sampler", "batch_sampler"} & options.keys() else {"shuffle": True}
    return torch_data.DataLoader(dataset or Augmented(), batch_size=8, **{**shuffle, **options})


def case(make_data: Callable[[], Any], **fit: Any) -> Case:
    return Case(lambda: {"model": network(), "data": make_data(), **fit})


def disturbed() -> dict[str, Any]:
    model = network()
    return {"model": model, "data": loader(), "callbacks": [Disturbing(model)]}


def averaged() -> dict[str, Any]:
    model = network()
    return {"model": model, "data": arrays(), "callbacks": [Averaging(model)], "batch_size": 8}


def stopping() -> dict[str, Any]:
    stop = colabkit.EarlyStopping("loss", patience=1, min_delta=0.5)
    return {"model": network(), "data": arrays(), "callbacks": [stop], "batch_size": 8, "epochs": 6}


def weighted() -> Any:
    return loader(sampler=torch_data.WeightedRandomSampler(list(range(1, SAMPLES + 1)), SAMPLES))


CASES: dict[str, Case] = {
    "arrays_shuffled_with_dropout": case(arrays, batch_size=8),
    "shuffle": case(loader),
    "weighted_sampler": case(weighted),
    "lazy_sampler": case(lambda: loader(sampler=LazySampler())),
    "batch_sampler": case(
        lambda: torch_data.DataLoader(
            Augmented(),
            batch_sampler=torch_data.BatchSampler(LazySampler(), 8, drop_last=True),
        )
    ),
    "collate_that_draws": case(lambda: loader(collate_fn=jittered)),
    "two_workers": case(lambda: loader(num_workers=2)),
    "another_number_of_workers_after_the_resume": Case(
        lambda: {"model": network(), "data": loader()},
        resumed={"data": lambda: loader(num_workers=2)},
    ),
    "own_generators": case(lambda: loader(OwnGenerators())),
    "own_generators_two_workers": case(lambda: loader(OwnGenerators(), num_workers=2)),
    "a_generator_of_each_sample": case(
        lambda: torch_data.DataLoader(OneOfEachSample(), batch_size=32, shuffle=True)
    ),
    "iterable_dataset": dataclasses.replace(
        case(lambda: torch_data.DataLoader(Stream(), batch_size=8)), notices=1
    ),
    "iterable_dataset_two_workers": dataclasses.replace(
        case(lambda: torch_data.DataLoader(Stream(), batch_size=8, num_workers=2)), notices=1
    ),
    "iterable_dataset_with_state": case(
        lambda: torch_data.DataLoader(StatefulStream(), batch_size=8)
    ),
    "stateful_dataloader": case(
        lambda: StatefulDataLoader(Augmented(), batch_size=8, shuffle=True)
    ),
    "generator_function": dataclasses.replace(case(lambda: generated), notices=1),
    "one_shot_generator": dataclasses.replace(case(generated, epochs=1), notices=1),
    "accumulation_that_does_not_divide": case(arrays, batch_size=8, accumulate=4),
    "parts_of_batches": case(arrays, batch_size=8, microbatch=3, accumulate=2),
    "gradient_clipping": case(loader, clip_grad_norm=0.1),
    "clipping_where_the_optimizer_has_a_part": case(
        loader, clip_grad_norm=0.1, optimizer=lambda every: torch.optim.SGD(every[-2:], lr=0.05)
    ),
    "scheduler_per_step": case(
        arrays,
        batch_size=8,
        scheduler=(lambda o: torch.optim.lr_scheduler.ExponentialLR(o, 0.9), "step"),
    ),
    "onecycle": case(arrays, batch_size=8, scheduler="onecycle"),
    "plateau": case(
        arrays,
        batch_size=8,
        scheduler=lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o, patience=0),
    ),
    "sgd_with_momentum": case(loader, optimizer="sgd"),
    "gradient_scaler": case(loader, precision="fp16"),
    "bfloat16": case(loader, precision="bf16"),
    "early_stopping": Case(stopping),
    "validation_in_between": case(
        loader, validation_data=arrays(), metrics=["accuracy"], monitor="val_loss"
    ),
    "moving_average": Case(averaged),
    "callback_that_draws": case(loader, callbacks=[Drawing()]),
    "callback_with_a_generator_of_its_own": Case(disturbed),
    "batch_norm": Case(lambda: {"model": network(norm=True), "data": loader()}),
}


def arguments(name: str, *, resumed: bool) -> dict[str, Any]:
    """Returns the arguments of ``fit`` for a case, as the notebook's cells would make them."""
    chosen = CASES[name]
    made = {"epochs": EPOCHS, "progress": False, "device": "cpu", **chosen.build()}
    if resumed:
        made |= {key: make() for key, make in chosen.resumed.items()}
    return made
