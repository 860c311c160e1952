"""A real Trainer of Hugging Face on a tiny model: kept, ended in time, gone on from."""

from __future__ import annotations

import pytest
import torch

import colabkit
from tests import abilities

pytestmark = pytest.mark.needs(abilities.trainer("transformers", "accelerate"))


class Classifier(torch.nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(1)
        self.layer = torch.nn.Linear(4, 3)

    def forward(self, x, labels):
        logits = self.layer(x)
        return {"loss": torch.nn.functional.cross_entropy(logits, labels), "logits": logits}


def rows() -> list[dict[str, torch.Tensor]]:
    generator = torch.Generator().manual_seed(3)
    x = torch.randn(64, 4, generator=generator)
    return [{"x": each, "labels": (each.sum() > 0).long()} for each in x]


def trainer_in(folder, callbacks):
    from transformers import Trainer, TrainingArguments

    options = {"save_steps": 4, "save_total_limit": 2, "logging_steps": 1, "num_train_epochs": 2}
    quiet = {"report_to": "none", "use_cpu": True, "disable_tqdm": True}
    settings = TrainingArguments(str(folder), per_device_train_batch_size=4, **options, **quiet)
    return Trainer(Classifier(), settings, train_dataset=rows(), callbacks=callbacks)


def test_a_trainer_ends_saved_before_the_machine_goes_and_goes_on_on_the_next(tmp_path, going_soon):
    from colabkit.integrations.transformers import KeepCallback

    alone = trainer_in(tmp_path / "alone", [])
    alone.train()
    place = tmp_path / "drive"
    with colabkit.keep(tmp_path / "one", place, progress=False) as kept:
        callback = KeepCallback(kept, session=going_soon)
        first = trainer_in(kept, [callback])
        first.train()
        assert first.state.global_step == 1
        assert len(callback._watched.history.steps["loss"]) == 1
    with colabkit.keep(tmp_path / "two", place, progress=False) as kept:
        newest = kept.latest("checkpoint-*")
        assert newest == str(tmp_path / "two" / "checkpoint-1")
        second = trainer_in(kept, [])
        second.train(resume_from_checkpoint=newest)
    assert second.state.global_step == alone.state.global_step
    for one, other in zip(second.model.parameters(), alone.model.parameters(), strict=True):
        assert torch.equal(one, other)
