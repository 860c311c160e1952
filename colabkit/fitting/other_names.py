"""What people of Keras, Lightning, Transformers and fastai type, and what to write here."""

from __future__ import annotations

import difflib
from collections.abc import Iterable, Mapping
from typing import Any

from colabkit.errors import ArgumentError

_LONGEST_VALUE = 40

# The same thing under another name; the value can stay.
RENAMED = {
    "accumulate_grad_batches": "accumulate",
    "cbs": "callbacks",
    "check_val_every_n_epoch": "eval_every",
    "checkpoint_dir": "ckpt_dir",
    "clipnorm": "clip_grad_norm",
    "ckpt_path": "ckpt_dir",
    "criterion": "loss",
    "default_root_dir": "ckpt_dir",
    "dirpath": "ckpt_dir",
    "eval_dataset": "validation_data",
    "global_clipnorm": "clip_grad_norm",
    "grad_clip": "clip_grad_norm",
    "gradient_accumulation_steps": "accumulate",
    "gradient_clip_val": "clip_grad_norm",
    "learning_rate": "lr",
    "loss_fn": "loss",
    "loss_func": "loss",
    "lr_scheduler": "scheduler",
    "lr_scheduler_type": "scheduler",
    "max_epochs": "epochs",
    "max_grad_norm": "clip_grad_norm",
    "metric_for_best_model": "monitor",
    "mixed_precision": "precision",
    "n_epoch": "epochs",
    "nb_epoch": "epochs",
    "num_epochs": "epochs",
    "num_train_epochs": "epochs",
    "num_warmup_steps": "warmup",
    "opt_func": "optimizer",
    "optim": "optimizer",
    "output_dir": "ckpt_dir",
    "per_device_train_batch_size": "batch_size",
    "random_state": "seed",
    "save_steps": "save_every",
    "save_top_k": "keep",
    "save_total_limit": "keep",
    "train_batch_size": "batch_size",
    "train_dataloaders": "data",
    "train_dataset": "data",
    "train_loader": "data",
    "training_steps": "max_steps",
    "val_data": "validation_data",
    "val_dataloaders": "validation_data",
    "val_loader": "validation_data",
    "valid_data": "validation_data",
    "validation_dataset": "validation_data",
    "warmup_ratio": "warmup",
    "warmup_steps": "warmup",
    "wd": "weight_decay",
}
# What no single argument stands for, or an argument with another value.
_IN_OTHER_WORDS = {
    "accelerator": 'Write device="cuda" or "cpu"; without it, the best that works is taken.',
    "auto_lr_find": "Pass lr=; no rate is looked for.",
    "bf16": 'Write precision="bf16".',
    "checkpoint_callback": "Leave it out: checkpoints are written by themselves; see save_every=.",
    "collate_fn": "Give it to the loader: DataLoader(data, collate_fn=...), and pass that as data.",
    "compute_metrics": "Pass metrics=: a name, a function of (output, target), or an object with"
    " update and compute; those of torchmetrics see all predictions of an epoch.",
    "data_collator": "Give it to the loader: DataLoader(data, batch_size=8, shuffle=True,"
    " collate_fn=data_collator), and pass that as data.",
    "dataloader_num_workers": "Give them to the loader: DataLoader(data, num_workers=2), and pass"
    " that as data.",
    "deterministic": "Leave it out, and call torch.use_deterministic_algorithms(True) before; the"
    " seed is seed=.",
    "devices": "Leave it out: started by torchrun, a process for each GPU, fit shares them out.",
    "disable_tqdm": "Write progress=False.",
    "do_eval": "Pass validation_data=; leave it out for none.",
    "do_train": "Leave it out: fit trains.",
    "drop_last": "Give it to the loader: DataLoader(data, drop_last=True), and pass that as data.",
    "early_stopping": "Write callbacks=[colabkit.EarlyStopping(patience=3)].",
    "early_stopping_patience": "Write callbacks=[colabkit.EarlyStopping(patience=3)].",
    "enable_checkpointing": "Leave it out: checkpoints are written by themselves; see save_every=.",
    "enable_progress_bar": "Write progress=False for none.",
    "eval_steps": "Write eval_every=, which counts epochs.",
    "eval_strategy": "Pass validation_data=, and eval_every= to count epochs in between.",
    "evaluation_strategy": "Pass validation_data=, and eval_every= to count epochs in between.",
    "fast_dev_run": "Write max_steps=1, in a folder of its own.",
    "fit_one_cycle": 'Write scheduler="onecycle".',
    "fp16": 'Write precision="fp16".',
    "gradient_checkpointing": "Call it on the model: model.gradient_checkpointing_enable().",
    "group_by_length": "Give the loader a batch_sampler that does so, and pass the loader as data.",
    "keep_checkpoint_max": "Write keep=2 or more.",
    "label_smoothing_factor": "Write loss=nn.CrossEntropyLoss(label_smoothing=0.1).",
    "limit_train_batches": "Pass a part of the data: torch.utils.data.Subset(data, range(100)).",
    "load_best_model_at_end": "Call colabkit.load(model, ckpt_dir, 'best') afterwards.",
    "logging_dir": "Write tensorboard=True: event files are written into the run folder.",
    "logging_steps": "Leave it out: each step is noted; see history.steps.",
    "lr_max": 'Write lr= and scheduler="onecycle", which rises to ten times lr.',
    "max_lr": 'Write lr= and scheduler="onecycle", which rises to ten times lr.',
    "min_delta": "Write callbacks=[colabkit.EarlyStopping(min_delta=0.01)].",
    "model_dir": "Write ckpt_dir=, the third argument.",
    "moms": "Write optimizer=lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9).",
    "momentum": "Write optimizer=lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9).",
    "no_cuda": 'Write device="cpu".',
    "num_sanity_val_steps": "Leave it out: the first batch is tried before the first step.",
    "num_workers": "Give them to the loader: DataLoader(data, batch_size=32, shuffle=True,"
    " num_workers=2), and pass that as data.",
    "overfit_batches": "Pass a part of the data: torch.utils.data.Subset(data, range(100)).",
    "overwrite_output_dir": "Write resume=False: it starts anew beside the old run.",
    "path": "Write ckpt_dir=, the third argument.",
    "patience": "Write callbacks=[colabkit.EarlyStopping(patience=3)].",
    "per_device_eval_batch_size": "Leave it out: batch_size counts for both; or pass a DataLoader"
    " as validation_data.",
    "pin_memory": "Give it to the loader: DataLoader(data, pin_memory=True), and that is data.",
    "processing_class": "Give a collator to the loader: DataLoader(data, batch_size=8,"
    " shuffle=True, collate_fn=DataCollatorWithPadding(tokenizer)).",
    "remove_unused_columns": "Leave it out: text that the model has no name for is left out;"
    " data.remove_columns([...]) for the rest.",
    "report_to": 'Write logger="wandb", "mlflow" or "trackio", or tensorboard=True.',
    "restore_best_weights": "Call colabkit.load(model, ckpt_dir, 'best') afterwards.",
    "resume_from_checkpoint": "Leave it out: running fit again goes on. resume= takes a step,"
    ' "best", "weights" or False.',
    "run_name": "Name the run by its folder, ckpt_dir.",
    "save_best_only": "Pass monitor=: the best epoch is kept beside the newest checkpoints.",
    "save_strategy": 'Write save_every=: "auto", a time such as "5min", or a number of steps.',
    "steps": "Write max_steps=, batches in all.",
    "strategy": "Leave it out: started by torchrun, a process for each GPU, fit shares them out.",
    "tokenizer": "Give a collator to the loader: DataLoader(data, batch_size=8, shuffle=True,"
    " collate_fn=DataCollatorWithPadding(tokenizer)).",
    "train_ds": "Write data=, the second argument.",
    "use_cpu": 'Write device="cpu".',
    "val_check_interval": "Write eval_every=, which counts epochs.",
    "valid_ds": "Write validation_data=.",
    "x": "x and y are one argument, data=(x, y).",
    "y": "x and y are one argument, data=(x, y).",
}
# Arguments of Keras' fit, where the model is a module.
_OF_KERAS_FOR_TORCH = {
    "class_weight": "Give it to the loss: loss=nn.CrossEntropyLoss(weight=torch.tensor([...])).",
    "initial_epoch": "Leave it out: the run folder says where to go on.",
    "max_queue_size": "Give it to the loader: DataLoader(data, prefetch_factor=4).",
    "sample_weight": "Let a batch be (x, (y, weight)), and pass loss=, a function of"
    " (output, (y, weight)).",
    "shuffle": "Leave it out: arrays and Datasets are shuffled anew in each epoch. For another"
    " order pass DataLoader(data, shuffle=False).",
    "steps_per_epoch": "Leave it out: an epoch is all batches of the data; max_steps= ends a run.",
    "use_multiprocessing": "Give it to the loader: DataLoader(data, num_workers=2).",
    "validation_batch_size": "Pass a DataLoader of that size as validation_data.",
    "validation_freq": "Write eval_every=2.",
    "validation_split": "Split it beforehand: torch.utils.data.random_split(data, [0.8, 0.2],"
    " torch.Generator().manual_seed(0)); the second part is validation_data.",
    "validation_steps": "Pass a part of it: torch.utils.data.Subset(validation_data, range(100)).",
    "verbose": "Write progress=False for silence; leave it out otherwise.",
    "workers": "Give them to the loader: DataLoader(data, num_workers=2).",
}
# Arguments that Keras' fit had or has no more, and those that its optimizer or compile takes.
_FOR_KERAS = {
    "workers": "Give it to the PyDataset: super().__init__(workers=4).",
    "num_workers": "Give it to the PyDataset: super().__init__(workers=4).",
    "use_multiprocessing": "Give it to the PyDataset: super().__init__(workers=4,"
    " use_multiprocessing=True).",
    "max_queue_size": "Give it to the PyDataset: super().__init__(max_queue_size=10).",
    "bf16": "Call keras.mixed_precision.set_global_policy('mixed_bfloat16') before building it.",
    "fp16": "Call keras.mixed_precision.set_global_policy('mixed_float16') before building it.",
    "early_stopping": "Write callbacks=[keras.callbacks.EarlyStopping(patience=3)].",
    "patience": "Write callbacks=[keras.callbacks.EarlyStopping(patience=3)].",
    "restore_best_weights": "Write callbacks=[keras.callbacks.EarlyStopping("
    "restore_best_weights=True)].",
    "momentum": "Pass it to the optimizer: keras.optimizers.SGD(momentum=0.9).",
    "label_smoothing_factor": "Pass it to the loss: CategoricalCrossentropy(label_smoothing=0.1).",
    "gradient_checkpointing": "Wrap layers in keras.RematScope().",
}
# What compile decides for a Keras model.
COMPILED = {
    "loss": "Pass it to model.compile(loss=...).",
    "optimizer": "Pass it to model.compile(optimizer=...).",
    "lr": "Pass it to the optimizer: model.compile(optimizer=keras.optimizers.Adam(1e-3)).",
    "weight_decay": "Pass it to the optimizer: keras.optimizers.AdamW(weight_decay=0.01).",
    "scheduler": "Pass a keras.optimizers.schedules schedule as the optimizer's learning_rate.",
    "warmup": "Pass a keras.optimizers.schedules schedule as the optimizer's learning_rate:"
    " CosineDecay(..., warmup_steps=100).",
    "metrics": "Pass them to model.compile(metrics=...).",
    "precision": "Call keras.mixed_precision.set_global_policy(...) before building the model.",
    "microbatch": "Pass a smaller batch_size to fit, and gradient_accumulation_steps to the"
    " optimizer.",
    "accumulate": "Pass gradient_accumulation_steps to the optimizer.",
    "clip_grad_norm": "Pass global_clipnorm to the optimizer.",
    "device": "Keras places the model when it is built.",
}


def compiled_error(name: str) -> ArgumentError:
    """Returns the error for an argument that ``compile`` decides for a Keras model."""
    message = f"{name} is given, and the model is a keras.Model."
    return ArgumentError(message, argument=name, hint=COMPILED[name])


def unknown_argument(
    name: str, value: Any, *, known: Iterable[str], model_is_keras: bool
) -> ArgumentError:
    """Returns the error for an argument that ``fit`` does not take, with what to write instead.

    Args:
        name: What was typed.
        value: What was passed.
        known: The arguments that there are.
        model_is_keras: Whether the model is Keras'.
    """
    kind = "keras.Model" if model_is_keras else "torch.nn.Module"
    elsewhere: Mapping[str, str] = _FOR_KERAS if model_is_keras else _OF_KERAS_FOR_TORCH
    hint = elsewhere.get(name) or _renamed(name, value, model_is_keras=model_is_keras)
    hint = hint or _IN_OTHER_WORDS.get(name, "")
    if not hint:
        close = difflib.get_close_matches(name, known, 1)
        hint = f"Did you mean {close[0]!r}?" if close else "Look at help(colabkit.fit)."
    return ArgumentError(f"fit has no argument {name!r} for a {kind}.", argument=name, hint=hint)


def _renamed(name: str, value: Any, *, model_is_keras: bool) -> str:
    here = RENAMED.get(name, "")
    if model_is_keras and here in COMPILED:
        return COMPILED[here]
    if here and isinstance(value, str | int | float) and len(repr(value)) <= _LONGEST_VALUE:
        return f"Write {here}={value!r}."
    return here and f"Here it is called {here}."
