"""A real Trainer of Lightning on a tiny model: kept, saved in time, gone on from."""

from __future__ import annotations

import warnings

import pytest
import torch
from torch.utils import data as torch_data

import colabkit
from tests import abilities

pytestmark = pytest.mark.needs(abilities.trainer("lightning"))


def trained(folder, callbacks, *, ckpt_path=None):
    import lightning.pytorch as pl

    class Module(pl.LightningModule):
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(1)
            self.layer = torch.nn.Linear(4, 3)

        def training_step(self, batch, _number):
            loss = torch.nn.functional.cross_entropy(self.layer(batch[0]), batch[1])
            self.log("loss", loss)
            return loss

        def configure_optimizers(self):
            return torch.optim.Adam(self.parameters(), 0.01)

    generator = torch.Generator().manual_seed(3)
    x = torch.randn(64, 4, generator=generator)
    loader = torch_data.DataLoader(torch_data.TensorDataset(x, (x.sum(1) > 0).long()), 4)
    quiet = {"logger": False, "enable_progress_bar": False, "enable_model_summary": False}
    module = Module()
    trainer = pl.Trainer(
        default_root_dir=folder, max_epochs=2, accelerator="cpu", callbacks=callbacks, **quiet
    )
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of loaders without workers, and of mid-epoch resumes
        trainer.fit(module, loader, ckpt_path=ckpt_path)
    return trainer, module


def test_a_trainer_is_saved_before_the_machine_goes_and_goes_on_on_the_next(tmp_path, going_soon):
    import lightning.pytorch as pl

    from colabkit.integrations.lightning import KeepCallback, checkpoints_in

    class Gone(pl.Callback):
        def on_train_batch_end(self, trainer, *_) -> None:
            if trainer.global_step == 3:
                raise ConnectionAbortedError

    def until_it_is_gone() -> None:
        with colabkit.keep(tmp_path / "one", place, progress=False) as kept:
            callback = KeepCallback(kept, session=going_soon)
            trained(kept, [callback, Gone(), checkpoints_in(kept)])

    place = tmp_path / "drive"
    with pytest.raises(ConnectionAbortedError):
        until_it_is_gone()
    with colabkit.keep(tmp_path / "two", place, progress=False) as kept:
        newest = kept.latest("*.ckpt")
        assert newest == str(tmp_path / "two/checkpoints/in-time.ckpt")
        second, module = trained(kept, [checkpoints_in(kept)], ckpt_path=newest)
    # As Lightning goes on from the very file, which in mid-epoch begins its data anew.
    there = tmp_path / "one/checkpoints/in-time.ckpt"
    alone, expected = trained(tmp_path / "alone", [], ckpt_path=there)
    assert second.global_step == alone.global_step
    for one, other in zip(module.parameters(), expected.parameters(), strict=True):
        assert torch.equal(one, other)
