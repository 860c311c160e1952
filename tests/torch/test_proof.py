"""verify_resume passes where a resume is exact, and finds what breaks one."""

from __future__ import annotations

import os
import tempfile

import psutil
import pytest
import torch
from torch import nn

import colabkit
from colabkit.errors import ArgumentError, ResumeProofError
from tests.torch.cases import Augmented, Averaging, OwnGenerators, arrays, loader, network


class FromTheSystem(Augmented):
    def __getitem__(self, index):
        return self.x[index] + int.from_bytes(os.urandom(2), "big") / 65536, self.y[index]


class ForgetfulAverage(Averaging):
    """An average of the weights that takes back nothing at a resume, and leads the training."""

    def on_batch_end(self, run, step, logs):
        super().on_batch_end(run, step, logs)
        with torch.no_grad():
            for own, mean in zip(
                self.model.parameters(), self.average.module.parameters(), strict=True
            ):
                own.lerp_(mean, 0.5)

    def load_state_dict(self, state):
        """Forgets."""


class Counting(nn.Module):
    """Scales its output by how often it was called."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.calls = 0

    def forward(self, x):
        self.calls += 1
        return self.layer(x) * (1 + 0.01 * self.calls)


class HiddenCounter(nn.Module):
    """Counts in a closure, where nobody can look."""

    def __init__(self):
        super().__init__()
        self.layer = nn.Linear(6, 3)
        self.count = counting().__next__

    def forward(self, x):
        return self.layer(x) * (1 + 0.01 * self.count())


def counting():
    yield from range(1, 1000)


def test_a_run_with_generators_workers_and_a_schedule_is_proven():
    proof = colabkit.verify_resume(
        network(norm=True),
        loader(OwnGenerators(), num_workers=2),
        kills=2,
        validation_data=arrays(),
        scheduler="onecycle",
        accumulate=2,
    )
    assert proof.exact
    assert proof.differences == ()
    assert proof.steps == 12
    proof.raise_if_different()


def test_data_from_the_system_is_found():
    proof = colabkit.verify_resume(network(), loader(FromTheSystem()), epochs=1, kills=1)
    assert not proof.exact
    assert "model.0.weight" in proof.differences
    with pytest.raises(ResumeProofError) as caught:
        proof.raise_if_different()
    assert caught.value.tensors == proof.differences


def test_a_callback_that_forgets_at_a_resume_is_found():
    model = network()
    proof = colabkit.verify_resume(model, arrays(), kills=2, callbacks=[ForgetfulAverage(model)])
    assert any(name.startswith("model.") for name in proof.differences)


def test_a_model_that_counts_its_calls_goes_on_counting():
    assert colabkit.verify_resume(Counting(), arrays(), kills=2, batch_size=8).exact


def test_a_model_that_hides_its_count_is_found():
    assert not colabkit.verify_resume(HiddenCounter(), arrays(), kills=2, batch_size=8).exact


def test_nothing_of_the_users_is_touched(tmp_path, monkeypatch):
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = network()
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    children_before = set(psutil.Process().children(recursive=True))
    torch.manual_seed(3)
    expected = torch.rand(1)
    torch.manual_seed(3)
    colabkit.verify_resume(model, loader(num_workers=1), epochs=1, kills=1)
    assert torch.equal(torch.rand(1), expected)
    assert all(torch.equal(tensor, before[name]) for name, tensor in model.state_dict().items())
    assert not list(tmp_path.glob("colabkit*"))
    assert set(psutil.Process().children(recursive=True)) <= children_before


def test_a_proof_without_a_kill_is_refused():
    for given in ({"kills": 0}, {"kills": "3"}, {"epochs": 1, "batch_size": 64}):
        with pytest.raises(ArgumentError):
            colabkit.verify_resume(network(), arrays(), **given)


def test_a_run_that_fails_by_itself_says_why():
    with pytest.raises(ArgumentError, match="No loss fits"):
        colabkit.verify_resume(network(), (torch.rand(8, 6), torch.rand(8, 2)), kills=1)


def test_what_a_function_makes_is_made_anew_in_each_process():
    proof = colabkit.verify_resume(network, arrays(), epochs=1, kills=1)
    assert (proof.exact, proof.kills) == (True, 1)
