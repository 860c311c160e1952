"""What people of other libraries type, and what they are told."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn
from torch.utils import data as torch_data

import colabkit
from colabkit.errors import ArgumentError
from tests.torch.cases import arrays, network

QUIET = {"progress": False, "device": "cpu"}
X, Y = arrays()

# What is typed, and what the answer says to write.
TYPED: dict[str, tuple[Any, str]] = {
    "accelerator": ("gpu", 'device="cuda"'),
    "accumulate_grad_batches": (4, "accumulate=4"),
    "bf16": (True, 'precision="bf16"'),
    "cbs": ([], "called callbacks"),
    "check_val_every_n_epoch": (2, "eval_every=2"),
    "checkpoint_dir": ("x", "ckpt_dir='x'"),
    "class_weight": ({0: 1.0}, "CrossEntropyLoss(weight="),
    "collate_fn": (len, "DataLoader(data, collate_fn="),
    "compute_metrics": (len, "metrics="),
    "criterion": (nn.CrossEntropyLoss(), "called loss"),
    "data_collator": (len, "collate_fn=data_collator"),
    "dataloader_num_workers": (2, "DataLoader(data, num_workers=2)"),
    "early_stopping_patience": (3, "colabkit.EarlyStopping"),
    "enable_checkpointing": (True, "Leave it out"),
    "eval_dataset": ([], "called validation_data"),
    "eval_steps": (50, "eval_every="),
    "eval_strategy": ("epoch", "eval_every="),
    "fast_dev_run": (True, "max_steps=1"),
    "fit_one_cycle": (True, 'scheduler="onecycle"'),
    "fp16": (True, 'precision="fp16"'),
    "grad_clip": (1.0, "clip_grad_norm=1.0"),
    "gradient_accumulation_steps": (4, "accumulate=4"),
    "gradient_checkpointing": (True, "gradient_checkpointing_enable()"),
    "gradient_clip_val": (0.5, "clip_grad_norm=0.5"),
    "group_by_length": (True, "batch_sampler"),
    "learning_rate": (1e-3, "lr=0.001"),
    "load_best_model_at_end": (True, "colabkit.load(model, ckpt_dir, 'best')"),
    "logging_steps": (10, "history.steps"),
    "loss_func": (len, "called loss"),
    "lr_max": (0.1, 'scheduler="onecycle"'),
    "lr_scheduler_type": ("linear", "scheduler='linear'"),
    "max_epochs": (2, "epochs=2"),
    "max_grad_norm": (1.0, "clip_grad_norm=1.0"),
    "metric_for_best_model": ("val_accuracy", "monitor='val_accuracy'"),
    "mixed_precision": ("fp16", "precision='fp16'"),
    "n_epoch": (3, "epochs=3"),
    "num_epochs": (3, "epochs=3"),
    "num_train_epochs": (3, "epochs=3"),
    "num_workers": (2, "DataLoader(data, batch_size=32"),
    "opt_func": (torch.optim.Adam, "called optimizer"),
    "output_dir": ("out", "ckpt_dir='out'"),
    "patience": (3, "EarlyStopping(patience=3)"),
    "per_device_train_batch_size": (8, "batch_size=8"),
    "pin_memory": (True, "DataLoader(data, pin_memory=True)"),
    "report_to": ("wandb", 'logger="wandb"'),
    "resume_from_checkpoint": (True, "running fit again goes on"),
    "sample_weight": ([1.0], "(output, (y, weight))"),
    "save_best_only": (True, "monitor="),
    "save_steps": (100, "save_every=100"),
    "save_total_limit": (3, "keep=3"),
    "shuffle": (False, "DataLoader(data, shuffle=False)"),
    "steps": (3, "max_steps="),
    "strategy": ("ddp", "torchrun"),
    "tokenizer": (None, "DataCollatorWithPadding"),
    "train_dataset": ([], "called data"),
    "val_data": ([], "called validation_data"),
    "validation_split": (0.2, "random_split"),
    "verbose": (0, "progress=False"),
    "warmup_ratio": (0.1, "warmup=0.1"),
    "warmup_steps": (100, "warmup=100"),
    "wd": (0.01, "weight_decay=0.01"),
    "banana": (1, "help(colabkit.fit)"),
    "epohs": (1, "Did you mean 'epochs'?"),
    "max_epohcs": (3, "epochs=3"),
    # What is much like a word of ours and means another thing.
    "data_seed": (1, "seed=1"),
    "deepspeed": ("ds.json", "own script"),
    "hub_revision": ("main", "push_to_hub"),
    "min_epochs": (3, "patience="),
    "mode": ("max", "monitor="),
    "optimizers": ((None, None), "optimizer= and scheduler="),
    "save_last": (True, "newest checkpoints are kept"),
    "weights_only": (True, 'resume="weights"'),
    # Whole groups.
    "adam_beta2": (0.98, "betas=(0.9, 0.98)"),
    "dataloader_pin_memory": (True, "DataLoader(data, batch_size=32, shuffle=True, pin_memory="),
    "ddp_backend": ("nccl", "torchrun"),
    "limit_val_batches": (10, "Subset"),
    "logging_strategy": ("steps", "history.steps"),
    "torch_compile": (True, "torch.compile(model)"),
    # Other habits.
    "amp": (True, 'precision="16-mixed"'),
    "auto_find_batch_size": (True, 'microbatch="auto"'),
    "bs": (64, "batch_size=64"),
    "datamodule": (None, "dm.train_dataloader()"),
    "dls": (None, "data=dls.train"),
    "gpus": (1, 'device="cuda"'),
    "loss_weights": ([1, 2], "loss="),
    "save_weights_only": (True, "torch.save(model.state_dict(), path)"),
    "train_loader": ([], "called data"),
    "transform": (len, "__getitem__"),
    "valid_pct": (0.2, "random_split"),
    "wandb": (True, 'logger="wandb"'),
    # As YOLO, kohya and accelerate call it.
    "batch": (16, "batch_size=16"),
    "cos_lr": (True, 'scheduler="cosine"'),
    "cpu": (True, 'device="cpu"'),
    "ema": (True, "AveragedModel"),
    "even_batches": (True, "all devices together"),
    "fraction": (0.5, "Subset"),
    "freeze": (10, "requires_grad_(False)"),
    "imgsz": (640, "__getitem__"),
    "log_with": ("wandb", 'logger="wandb"'),
    "lr0": (0.01, "lr=0.01"),
    "lr_warmup_steps": (10, "warmup=10"),
    "lrf": (0.01, "lr_scheduler.StepLR"),
    "max_data_loader_n_workers": (2, "num_workers=2"),
    "max_train_epochs": (3, "epochs=3"),
    "max_train_steps": (300, "max_steps=300"),
    "mixup": (0.2, "collate_fn="),
    "nbs": (64, "accumulate="),
    "network_dim": (16, "get_peft_model"),
    "optimizer_type": ("AdamW", "optimizer='AdamW'"),
    "output_name": ("cats", "by its folder"),
    "pct_start": (0.3, "OneCycleLR"),
    "pos_weight": (3.0, "BCEWithLogitsLoss"),
    "project_dir": ("x", "ckpt_dir='x'"),
    "save_every_n_epochs": (1, "save_every="),
    "save_every_n_steps": (100, "save_every=100"),
    "save_last_n_epochs": (2, "keep=2"),
    "train_data_dir": ("x", "Make a Dataset"),
    "train_size": (0.8, "random_split"),
    "unet_lr": (1e-4, "a group for each"),
    "use_ema": (True, "AveragedModel"),
    "warmup_epochs": (3, "in optimizer steps"),
    # Whose end is that of a word of ours, and which nobody should guess at.
    "prior_loss_weight": (1.0, "loss="),
}
# The same of a loop of one's own.
TYPED_TO_RUN: dict[str, tuple[Any, str]] = {
    "batch_size": (32, "run.batches(data, batch_size=32)"),
    "callbacks": ([len], "Call it in the loop"),
    "config": ({"lr": 0.1}, "run.state("),
    "criterion": (len, "run.log(loss=loss)"),
    "device": ("cuda", "in the loop"),
    "epochs": (3, "run.epochs(3)"),
    "loader": ([1, 2], "run.batches(loader)"),
    "lr": (0.1, "Make the optimizer with it"),
    "max_epochs": (3, "run.epochs(3)"),
    "notify": ("ntfy://x", "fit takes it"),
    "output_dir": ("x", "ckpt_dir='x'"),
    "patience": (3, "by break"),
    "precision": ("16-mixed", "in the loop"),
    "resume_from_checkpoint": (True, "goes on by itself"),
    "save_evry": ("5min", "Did you mean 'save_every'?"),
    "save_steps": (100, "save_every=100"),
    "save_total_limit": (3, "keep=3"),
    "validation_data": ([1], "run.log(val_loss=...)"),
    "verbose": (0, "progress=False"),
    "eval_steps": (100, "run.step % 100"),
    "log_with": ("wandb", 'logger="wandb"'),
    "max_train_steps": (300, "max_steps=300"),
    "num_workers": (2, "run.batches(data"),
    "save_every_n_steps": (100, "save_every=100"),
    "save_state": (True, "holds all objects"),
    "train_data_dir": ("x", "Make a Dataset"),
    "world_size": (2, "torchrun"),
}


@pytest.mark.parametrize("name", TYPED)
def test_a_name_of_another_library_is_answered_with_what_to_write(name, tmp_path):
    value, said = TYPED[name]
    with pytest.raises(ArgumentError, match=f"fit has no argument '{name}'") as caught:
        colabkit.fit(network(), (X, Y), tmp_path / "run", **{name: value}, **QUIET)
    assert said in caught.value.hint
    assert caught.value.argument == name
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("name", TYPED_TO_RUN)
def test_a_run_answers_it_too_where_it_is_no_object_to_keep(name, tmp_path):
    value, said = TYPED_TO_RUN[name]
    with pytest.raises(ArgumentError, match=f"Run has no argument '{name}'") as caught:
        colabkit.Run(tmp_path / "run", model=network(), progress=False, **{name: value})
    assert said in caught.value.hint
    assert caught.value.argument == name
    assert not (tmp_path / "run").exists()


def test_an_object_whose_name_is_an_argument_elsewhere_is_kept(tmp_path):
    run = colabkit.Run(tmp_path, criterion=nn.Bilinear(2, 2, 1), lr=None, progress=False)
    assert "criterion" in str(run.verdict)


@pytest.mark.parametrize("kind", ["a dict", "a pair"])
def test_what_configure_optimizers_returns_is_passed_piece_by_piece(kind, tmp_path):
    model = network()
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    scheduler = torch.optim.lr_scheduler.StepLR(optimizer, 1)
    both = {"a dict": {"optimizer": optimizer, "lr_scheduler": {"scheduler": scheduler}}}
    given = both.get(kind, ([optimizer], [scheduler]))
    with pytest.raises(ArgumentError, match="optimizer is of type") as caught:
        colabkit.fit(model, (X, Y), tmp_path, optimizer=given, **QUIET)
    assert "scheduler=scheduler" in caught.value.hint
    with pytest.raises(ArgumentError, match="optimizer is of type") as caught:
        colabkit.Run(tmp_path, model=model, optimizer=given, progress=False)
    assert "each by itself" in caught.value.hint


def test_a_batch_size_that_is_looked_for_is_answered_with_microbatch(tmp_path):
    with pytest.raises(ArgumentError, match="batch_size is 'auto'") as caught:
        colabkit.fit(network(), (X, Y), tmp_path, batch_size="auto", **QUIET)
    assert 'microbatch="auto"' in caught.value.hint


CLASSES = {
    "loss": (nn.CrossEntropyLoss, "Pass CrossEntropyLoss()."),
    "metrics": ([nn.L1Loss], "Pass L1Loss()."),
    "callbacks": ([colabkit.EarlyStopping], "Pass EarlyStopping()."),
}


@pytest.mark.parametrize("name", CLASSES)
def test_a_class_in_place_of_an_object_is_told_so(name, tmp_path):
    given, hint = CLASSES[name]
    with pytest.raises(ArgumentError, match="class") as caught:
        colabkit.fit(network(), (X, Y), tmp_path, **{name: given}, **QUIET)
    assert caught.value.hint == hint


class Callback:
    """As a library's own base of callbacks is called."""

    def on_fit_end(self) -> None: ...


class Stopping(Callback): ...


@pytest.mark.parametrize("library", ["lightning.pytorch.callbacks", "transformers", "keras.src"])
def test_a_callback_of_another_library_is_named_as_such(library, tmp_path, monkeypatch):
    monkeypatch.setattr(Callback, "__module__", library)
    with pytest.raises(ArgumentError, match="Stopping is a callback of") as caught:
        colabkit.fit(network(), (X, Y), tmp_path, callbacks=[Stopping()], **QUIET)
    assert "colabkit.EarlyStopping()" in caught.value.hint


class LightningModule(nn.Linear):
    """Has a forward, and a training of its own."""

    def training_step(self, batch: Any, number: int) -> torch.Tensor:
        raise AssertionError

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


def test_a_lightning_module_is_not_trained_past_its_training_step(tmp_path):
    module = LightningModule(6, 3)
    with pytest.raises(ArgumentError, match="is a LightningModule") as caught:
        colabkit.fit(module, (X, Y), tmp_path, **QUIET)
    assert "training_step(batch, run.batch)" in caught.value.hint
    asked = {"loss": nn.CrossEntropyLoss(), "optimizer": module.configure_optimizers()}
    assert len(colabkit.fit(module, (X, Y), tmp_path, **asked, **QUIET)) == 1


ON_ITS_OWN = {
    "an optimizer": torch.optim.SGD,
    "a function": lambda parameters: torch.optim.SGD(parameters, 0.1),
}


@pytest.mark.parametrize("name", ["lr", "weight_decay"])
@pytest.mark.parametrize("kind", ["an optimizer", "a function"])
def test_a_rate_that_somebody_else_sets_is_not_set_twice(kind, name, tmp_path):
    model = network()
    given = torch.optim.SGD(model.parameters()) if kind == "an optimizer" else ON_ITS_OWN[kind]
    with pytest.raises(ArgumentError, match=f"{name} is 0.5") as caught:
        colabkit.fit(model, (X, Y), tmp_path, optimizer=given, **{name: 0.5}, **QUIET)
    assert caught.value.argument == name


@pytest.mark.parametrize("optimizer", [None, "sgd", torch.optim.SGD])
def test_a_rate_is_given_to_the_optimizer_that_is_made(optimizer, tmp_path):
    asked = {"optimizer": optimizer, "lr": 0.5, "weight_decay": 0.25}
    history = colabkit.fit(network(), (X, Y), tmp_path, **asked, **QUIET)
    assert history["lr"] == [0.5]


WRONG = {
    "a rate below 0": ({"lr": -1}, "lr"),
    "a rate of text": ({"lr": "1e-3"}, "lr"),
    "no warm-up": ({"warmup": -1}, "warmup"),
    "a warm-up of a cycle": ({"warmup": 3, "scheduler": "onecycle"}, "warmup"),
    "a warm-up of one's own": ({"warmup": 3, "scheduler": lambda o: None}, "warmup"),
    "eval_every of none": ({"eval_every": 0}, "eval_every"),
    "a length of a stream": ({"data": iter([(X, Y)]), "scheduler": "linear"}, "scheduler"),
    "a share of a stream": ({"data": iter([(X, Y)]), "warmup": 0.1}, "warmup"),
    "true halves": ({"precision": "16-true"}, "precision"),
    "a list as precision": ({"precision": [16]}, "precision"),
}


@pytest.mark.parametrize("name", WRONG)
def test_what_cannot_be_meant_is_named(name, tmp_path):
    changed, argument = WRONG[name]
    made = {"data": (X, Y), **QUIET, **changed}
    with pytest.raises(ArgumentError) as caught:
        colabkit.fit(network(), made.pop("data"), tmp_path, **made)
    assert caught.value.argument == argument
    assert caught.value.hint


def test_a_warm_up_in_steps_needs_no_length(tmp_path):
    asked = {"lr": 0.5, "warmup": 4, "precision": "32-true"}
    history = colabkit.fit(network(), iter([(X, Y), (X, Y)]), tmp_path, **asked, **QUIET)
    assert history["lr"] == [0.25]


def plateau(optimizer: torch.optim.Optimizer) -> Any:
    return torch.optim.lr_scheduler.ReduceLROnPlateau(
        optimizer, patience=0, threshold=10.0, threshold_mode="abs"
    )


def test_evaluation_is_as_rare_as_asked_for_and_what_follows_it_waits(tmp_path, capsys):
    asked = {"epochs": 5, "eval_every": 2, "validation_data": (X, Y), "lr": 0.5, "device": "cpu"}
    stopping = colabkit.EarlyStopping("val_loss", patience=4)
    asked |= {"callbacks": [stopping], "scheduler": plateau}
    history = colabkit.fit(network(), (X, Y), tmp_path, **asked)
    assert ["val_loss" in row for row in history.epochs] == [False, True, False, True, False]
    # The second evaluation is no better by 10 than the first.
    assert [round(rate, 3) for rate in history["lr"]] == [0.5, 0.5, 0.5, 0.5, 0.05]
    assert stopping.best == min(history["val_loss"][1::2])
    assert "cannot be the best" not in capsys.readouterr().out
    assert colabkit.load(network(), tmp_path, "best").epoch in {2, 4}


def test_a_schedule_passed_otherwise_at_a_resume_is_taken_and_said(tmp_path, capsys):
    loader = torch_data.DataLoader(torch_data.TensorDataset(X, Y), batch_size=8)
    asked = {"scheduler": "linear", "lr": 0.5, "device": "cpu"}
    colabkit.fit(network(), loader, tmp_path, epochs=1, **asked)
    history = colabkit.fit(network(), loader, tmp_path, epochs=4, warmup=6, **asked)
    assert "the schedule of scheduler" in capsys.readouterr().out
    assert history["lr"] == [0.0, *(0.5 * (24 - done) / 18 for done in (12, 18, 24))]


def test_a_history_is_read_as_keras_people_do(tmp_path):
    history = colabkit.fit(network(), (X, Y), tmp_path, epochs=2, batch_size=22, **QUIET)
    assert history["loss"] == history.history["loss"]
    assert history.epoch == [0, 1]
    assert history.params == {"verbose": 0, "epochs": 2, "steps": 2}
    assert "loss" in history
    assert "val_loss" not in history
    with pytest.raises(ArgumentError, match="No epoch reports 'val_loss'"):
        history["val_loss"]
    with pytest.raises(TypeError, match="not iterable"):
        iter(history)


def lightning_data() -> Any:
    class Data:
        def train_dataloader(self) -> Any:
            return torch_data.DataLoader(torch_data.TensorDataset(X, Y))

    return Data()


LOADER = torch_data.DataLoader(torch_data.TensorDataset(X, Y), batch_size=8)
# Things of another kind than is asked for, and what the answer says.
KINDS: dict[str, tuple[dict[str, Any], str]] = {
    "rates for groups": ({"lr": [1e-3, 1e-4]}, "groups of parameters"),
    "fastai's slice": ({"lr": slice(1e-5, 1e-3)}, "groups of parameters"),
    "a loss of Keras": ({"loss": "sparse_categorical_crossentropy"}, 'Write loss="cross_entropy"'),
    "a loss class by name": ({"loss": "BCEWithLogitsLoss"}, 'Write loss="bce"'),
    "a loss of fastai": ({"loss": "CrossEntropyLossFlat"}, 'Write loss="cross_entropy"'),
    "a loss unheard of": ({"loss": "focal"}, "Pass one of cross_entropy"),
    "optim of TrainingArguments": ({"optimizer": "adamw_torch_fused"}, 'optimizer="adamw"'),
    "8 bits by name": ({"optimizer": "paged_adamw_8bit"}, "bitsandbytes.optim"),
    "a dict of settings": ({"optimizer": {"name": "sgd", "lr": 0.1}}, 'optimizer="adamw", lr=1e-3'),
    "a model's name": ({"model": "bert-base-uncased"}, "Make the model"),
    "a list of models": ({"model": [nn.Linear(2, 2)]}, "colabkit.Run"),
    "a state_dict": ({"model": nn.Linear(2, 2).state_dict()}, "load_state_dict"),
    "two loaders": ({"data": (LOADER, LOADER)}, "fit takes another as validation_data"),
    "datasets in a list": ({"data": [LOADER.dataset] * 2}, "ConcatDataset"),
    "a LightningDataModule": ({"data": lightning_data()}, "data.train_dataloader()"),
    "labels as text": ({"data": (X, ["a"] * len(X))}, "return_inverse=True"),
    "labels in a list": ({"data": (X, [0] * len(X))}, "np.array(y)"),
    "where to resume": ({"ckpt_path": "last"}, "running fit again goes on"),
}


@pytest.mark.parametrize("name", KINDS)
def test_a_thing_of_another_kind_is_answered_by_what_to_pass(name, tmp_path):
    given, told = KINDS[name]
    arguments = {"model": network(), "data": (X, Y), **given}
    with pytest.raises(ArgumentError) as caught:
        colabkit.fit(arguments.pop("model"), arguments.pop("data"), tmp_path, **arguments, **QUIET)
    assert told in str(caught.value)


def test_no_callbacks_may_be_none(tmp_path):
    colabkit.fit(network(), (X, Y), tmp_path, epochs=1, callbacks=None, **QUIET)


def test_a_run_says_what_stands_for_the_methods_of_other_libraries(tmp_path):
    run = colabkit.Run(tmp_path, model=network(), progress=False)
    for name, told in {
        "save": "run.flush()",
        "load_state": "colabkit.load(model, ckpt_dir)",
        "backward": "the loop is your own",
        "log_dict": "run.log(loss=loss)",
        "train": "run.epochs(3)",
        "what": "has no attribute 'what'",
    }.items():
        assert not hasattr(run, name)
        with pytest.raises(AttributeError) as caught:
            getattr(run, name)
        assert told in str(caught.value)


def test_a_dict_of_values_is_logged_as_its_names_are(tmp_path):
    run = colabkit.Run(tmp_path, model=network(), progress=False)
    for item in run.items(range(2)):
        run.log({"loss": float(item)}, accuracy=1.0)
        run.log_epoch({"val_loss": 3.0})
        with pytest.raises(ArgumentError, match="has no name"):
            run.log(0.5)
    assert run.history.steps["loss"].tolist() == [0.0, 1.0]
    assert run.history.steps["accuracy"].tolist() == [1.0, 1.0]


def test_colabkit_says_what_stands_for_names_of_other_libraries():
    for name, told in {
        "Trainer": "colabkit.fit",
        "unzip": "colabkit.dataset(source)",
        "mount_drive": "colabkit.mount()",
        "seed_everything": "seed=",
        "save_checkpoint": "written by themselves",
        "nothing_known": "has no attribute 'nothing_known'",
    }.items():
        assert not hasattr(colabkit, name)
        with pytest.raises(AttributeError) as caught:
            getattr(colabkit, name)
        assert told in str(caught.value)
