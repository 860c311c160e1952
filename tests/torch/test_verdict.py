"""The verdict names what stands against an exact resume, before the first step."""

from __future__ import annotations

import json
import os
import random
import secrets
import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from torch import nn
from torch.utils import data as torch_data

import colabkit
from colabkit.errors import CheckpointMismatchError
from tests.torch.cases import Augmented, Stream, arrays, generated, loader, network

QUIET: dict[str, Any] = {"progress": False, "device": "cpu", "batch_size": 8}
OUTSIDE = np.random.default_rng(5)


class FromTheSystem(Augmented):
    def __getitem__(self, index):
        return self.x[index] + int.from_bytes(os.urandom(2), "big") / 65536, self.y[index]


class HoldsSystemRandom(Augmented):
    def __init__(self):
        super().__init__()
        self.source = random.SystemRandom()

    def __getitem__(self, index):
        return self.x[index] + self.source.random(), self.y[index]


class FromOutside(Augmented):
    def __getitem__(self, index):
        # Where no reading of the code finds it.
        return self.x[index] + globals()["OUT" + "SIDE"].random(), self.y[index]


def collated_with_secrets(items):
    x, y = torch_data.default_collate(items)
    return x + secrets.randbelow(1 << 24), y


class Returning:
    """Gives something else each time that it is read."""

    def __init__(self):
        self.readings = 0

    def __iter__(self):
        self.readings += 1
        for x, y in generated():
            yield x + self.readings, y


class OnlyLaterBatches:
    """Gives the same first batch always, and another second one each time."""

    def __init__(self, shift: float):
        self.shift = shift

    def __iter__(self):
        for number, (x, y) in enumerate(generated()):
            yield x + self.shift * number, y


class SecretCallback:
    def __init__(self):
        self.source = random.SystemRandom()

    def on_batch_end(self, run, step, logs):
        self.source.random()


class SecretLayer(nn.Module):
    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.source = random.SystemRandom()

    def forward(self, x):
        return self.layer(x) * self.source.random()


class Interrupt:
    def __init__(self, step):
        self.step = step

    def on_batch_end(self, run, step, logs):
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


def reasons(data: Any, folder: Path, model: nn.Module | None = None, **options: Any) -> str:
    verdict = colabkit.fit(model or network(), data, folder, **(QUIET | options)).verdict
    assert (verdict.grade.value == "approximate") == bool(verdict.reasons)
    return "; ".join(verdict.reasons)


NOT_EXACT = {
    "os.urandom": (lambda: loader(FromTheSystem()), "another batch"),
    "os.urandom in workers": (lambda: loader(FromTheSystem(), num_workers=2), "another batch"),
    "a SystemRandom attribute": (lambda: loader(HoldsSystemRandom()), "SystemRandom"),
    "a generator of the module": (lambda: loader(FromOutside()), "another batch"),
    "one that each worker has": (lambda: loader(FromOutside(), num_workers=2), "another batch"),
    "secrets in collate": (lambda: loader(collate_fn=collated_with_secrets), "another batch"),
    "an iterable that counts": (Returning, "another first batch"),
}


@pytest.mark.parametrize("name", NOT_EXACT)
def test_data_that_cannot_be_replayed_is_named(name, tmp_path):
    make, reason = NOT_EXACT[name]
    assert reason in reasons(make(), tmp_path)


def test_validation_data_that_cannot_be_replayed_is_named(tmp_path):
    said = reasons(loader(), tmp_path, validation_data=loader(FromOutside(), num_workers=2))
    assert said.startswith("in the validation data, the dataset gave another batch")


def test_a_callback_that_draws_from_the_system_is_named(tmp_path):
    assert "SecretCallback" in reasons(loader(), tmp_path, callbacks=[SecretCallback()])


def test_a_model_that_draws_from_the_system_is_named(tmp_path):
    assert "SystemRandom" in reasons(arrays(), tmp_path, SecretLayer())


class Agent:
    """Holds its network out of sight, and saves it itself."""

    def __init__(self):
        self.network = network()

    def state_dict(self):
        return {"network": self.network.state_dict()}

    def load_state_dict(self, state):
        self.network.load_state_dict(state["network"])


def test_weights_that_are_trained_and_not_saved_are_named(tmp_path):
    agent = Agent()
    optimizer = torch.optim.SGD(agent.network.parameters(), lr=0.1)
    alone = colabkit.Run(tmp_path / "alone", optimizer=optimizer, progress=False)
    assert "optimizer trains 4 tensors" in "; ".join(alone.verdict.reasons)
    saved = colabkit.Run(tmp_path / "saved", optimizer=optimizer, agent=agent, progress=False)
    assert not saved.verdict.reasons


def test_an_iterable_that_differs_after_its_first_batch_ends_the_resume(tmp_path):
    assert not reasons(OnlyLaterBatches(1.0), tmp_path, callbacks=[Interrupt(4)])
    with pytest.raises(CheckpointMismatchError, match="not what it was"):
        reasons(OnlyLaterBatches(2.0), tmp_path)
    assert "not what it was" in reasons(OnlyLaterBatches(2.0), tmp_path, data_changed="accept")


def test_an_iterable_dataset_read_by_other_workers_after_the_resume_is_named(tmp_path):
    two = torch_data.DataLoader(Stream(), batch_size=8, num_workers=2)
    assert not reasons(two, tmp_path, callbacks=[Interrupt(3)])
    one = torch_data.DataLoader(Stream(), batch_size=8)
    assert "read by 0 workers, was by 2" in reasons(one, tmp_path)


@pytest.mark.parametrize("reads", ["batches", "items"])
def test_of_a_loop_of_ones_own_is_vouched_for_what_the_run_was_given(reads, tmp_path, capsys):
    """An environment, a replay buffer, a counter beside it are not seen, and that is said."""
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    run = colabkit.Run(tmp_path, policy=model, optimizer=optimizer, schedule=None)
    run.state(best=0.0)
    before = str(run.verdict)
    loop = run.batches(arrays(), batch_size=8) if reads == "batches" else run.items(range(3))
    for _ in loop:
        pass
    read = {"batches": "the data", "items": "the items"}[reads]
    assert run.verdict.vouched[:4] == ("policy", "optimizer", "best", read)
    said = (
        f"Resume is exact for policy, optimizer, best, {read} and the global random generators;"
        " what else your loop changes is not seen: pass it to Run, or keep it with run.state()."
    )
    assert str(run.verdict) == said
    assert said in capsys.readouterr().out
    assert before == said.replace(f", {read}", "")


def test_the_loop_of_fit_is_vouched_for_as_a_whole(tmp_path):
    verdict = colabkit.fit(network(), arrays(), tmp_path, **QUIET).verdict
    assert str(verdict) == "Resume is exact."


def rewritten(folder: Path, **environment: object) -> None:
    """Makes every checkpoint in a folder say that it was made in another environment."""
    from colabkit.checkpoint import CheckpointStore
    from colabkit.storage import LocalVolume

    volume = LocalVolume(folder)
    store = CheckpointStore(volume)
    for name in store.names():
        manifest = store.manifest(name)
        manifest.facts.fingerprint["environment"].update(environment)
        volume.write(f"checkpoints/{name}.json", [manifest.to_bytes()])


@pytest.mark.parametrize(
    ("environment", "told"),
    [
        ({"device": "NVIDIA A100"}, "device was NVIDIA A100, is cpu"),
        ({"torch": "2.4.0"}, f"torch was 2.4.0, is {torch.__version__}"),
        ({"processor": "AVX"}, "processor was AVX"),
    ],
)
def test_another_machine_or_library_is_named(environment, told, tmp_path):
    colabkit.fit(network(), arrays(), tmp_path, **QUIET)
    rewritten(tmp_path, **environment)
    assert told in reasons(arrays(), tmp_path, epochs=2)


def test_the_grade_is_noted_with_the_resume(tmp_path):
    colabkit.fit(network(), arrays(), tmp_path, **QUIET)
    rewritten(tmp_path, torch="2.4.0")
    history = colabkit.fit(network(), arrays(), tmp_path, epochs=2, **QUIET)
    assert [resume.grade for resume in history.resumes] == ["approximate"]
    assert json.dumps(history.verdict.reasons)


def nodes(*, collate):
    from torchdata import nodes as tn

    x, y = arrays()
    rows = tn.MapStyleWrapper(dict(enumerate(zip(x, y, strict=True))), sampler=range(len(x)))
    return tn.Loader(tn.ParallelMapper(tn.Batcher(rows, 8), collate, num_workers=2))


def test_a_loader_of_nodes_goes_on_where_its_state_says(tmp_path):
    def trained(folder, **options):
        data = nodes(collate=torch_data.default_collate)
        return colabkit.fit(network(), data, folder, epochs=2, **(QUIET | options))

    alone = trained(tmp_path / "alone")
    trained(tmp_path / "run", max_steps=4)
    resumed = trained(tmp_path / "run")
    assert resumed.steps["loss"].tolist() == alone.steps["loss"].tolist()
    assert "no seed reaches" in str(resumed.verdict)


class Caching(torch.utils.data.Dataset[Any]):
    """Keeps each sample once it is made, with noise that it drew for it or without.

    Args:
        noise: Whether what is kept was drawn.
        fresh: Whether more noise is drawn whenever a sample is given.
    """

    def __init__(self, *, noise: bool, fresh: bool) -> None:
        self.noise, self.fresh, self.kept = noise, fresh, {}

    def __len__(self) -> int:
        return 16

    def __getitem__(self, index: int) -> Any:
        if index not in self.kept:
            self.kept[index] = torch.full((6,), 1.0) + (torch.randn(6) if self.noise else 0)
        more = torch.randn(6) if self.fresh else 0
        return self.kept[index] + more, index % 3


PERSISTENT = {"num_workers": 2, "persistent_workers": True}


@pytest.mark.parametrize(
    ("noise", "fresh", "options", "is_named"),
    [
        (True, False, {}, True),
        (False, False, {}, False),
        (True, False, {"num_workers": 1, "persistent_workers": True}, True),
        (True, True, PERSISTENT, True),
        (False, True, PERSISTENT, False),
        # Workers that end with their epoch are asked for no sample twice.
        (True, False, {"num_workers": 2, "shuffle": True}, False),
    ],
)
def test_a_cache_of_what_was_drawn_is_named_and_one_of_what_was_read_is_not(
    noise, fresh, options, is_named, tmp_path
):
    loader = torch.utils.data.DataLoader(Caching(noise=noise, fresh=fresh), 4, **options)
    history = colabkit.fit(torch.nn.Linear(6, 3), loader, tmp_path, epochs=1, progress=False)
    reasons = history.verdict.reasons
    assert len(reasons) == is_named
    assert all("keeps what it has drawn" in each for each in reasons)


class Fading(Augmented):
    """Draws noise of a strength that a callback turns down."""

    strength = 1.0

    def __getitem__(self, index: int) -> Any:
        return self.x[index] + self.strength * torch.randn(6), self.y[index]


class TurningDown:
    def __init__(self, data: Fading, *, at_batches: bool) -> None:
        self.data, self.at_batches = data, at_batches

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        self.data.strength *= 0.9 if self.at_batches else 1.0

    def on_epoch_end(self, run: Any, epoch: int, logs: Any) -> None:
        self.data.strength *= 0.5


@pytest.mark.parametrize(
    ("at_batches", "options", "named"),
    [
        (False, {}, None),
        (True, {}, "changed in mid-epoch"),
        (False, PERSISTENT, "changed after its workers had begun"),
    ],
)
def test_a_dataset_that_a_loop_changes_while_it_is_read_is_named_and_goes_on(
    at_batches, options, named, tmp_path
):
    def trained(**more: Any) -> colabkit.History:
        data = Fading()
        loader = torch.utils.data.DataLoader(data, 8, **options)
        turning = TurningDown(data, at_batches=at_batches)
        return colabkit.fit(
            network(),
            loader,
            tmp_path,
            epochs=3,
            callbacks=[turning],
            save_every=1,
            **QUIET,
            **more,
        )

    reasons = trained(max_steps=9).verdict.reasons
    assert len(reasons) == (named is not None)
    assert all(named in each for each in reasons)
    assert len(trained().steps["loss"]) == 18
