"""What people of Keras, Lightning, Transformers and fastai type, and what to write here."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from colabkit.errors import ArgumentError
from colabkit.other_names import OtherNames, by_name

# The same thing under another name; the value can stay.
RENAMED = by_name(
    {
        "accumulate": (
            "accum_iter accumulate_grad accumulate_grad_batches accumulation_steps"
            " grad_accum gradient_accumulation gradient_accumulation_steps"
        ),
        "batch_size": "bs per_device_train_batch_size train_batch_size train_micro_batch_size",
        "callbacks": "callback cbs hooks",
        "ckpt_dir": (
            "checkpoint_dir checkpoint_path ckpt ckpt_path default_root_dir dirpath exp_dir"
            " filepath folder log_dir logdir out_dir output_dir root_dir run_dir save_dir"
            " save_path weights_save_path work_dir"
        ),
        "clip_grad_norm": (
            "clip clip_norm clipnorm global_clipnorm grad_clip gradient_clip"
            " gradient_clip_val max_grad_norm max_norm"
        ),
        "data": (
            "dataloader dataset loader train_data train_dataloader train_dataloaders"
            " train_dataset train_dl train_loader train_set training_data trainset"
        ),
        "epochs": (
            "max_epoch max_epochs n_epoch n_epochs nb_epoch nepochs num_epoch num_epochs"
            " num_train_epochs total_epochs"
        ),
        "eval_every": "check_val_every_n_epoch",
        "keep": "keep_last max_to_keep num_checkpoints save_top_k save_total_limit",
        "loss": "criterion loss_fn loss_func loss_function objective",
        "lr": "base_lr initial_lr learning_rate learnrate max_learning_rate",
        "max_steps": (
            "iterations max_iter max_iters n_steps num_iterations num_steps"
            " num_training_steps total_steps train_steps training_steps"
        ),
        "max_time": "time_limit",
        "metrics": "eval_metrics metric",
        "monitor": "metric_for_best_model",
        "optimizer": "opt opt_func optim optimiser optimizer_class",
        "precision": "dtype mixed_precision",
        "progress": "progress_bar show_progress",
        "save_every": (
            "checkpoint_every every_n_train_steps save_freq save_interval save_period save_steps"
        ),
        "scheduler": "lr_scheduler lr_scheduler_type sched schedule",
        "seed": "data_seed random_seed random_state",
        "validation_data": (
            "eval_data eval_dataloader eval_dataset test_data val val_data val_dataloader"
            " val_dataloaders val_dl val_loader val_set valid_data valid_dl valid_loader"
            " valid_set validation_dataset validation_loader"
        ),
        "warmup": "n_warmup_steps num_warmup_steps warmup_iters warmup_ratio warmup_steps",
        "weight_decay": "decay l2 wd weight_decay_rate",
    }
)
# What no single argument stands for, or an argument with another value.
_IN_OTHER_WORDS = by_name(
    {
        'Write device="cuda" or "cpu"; without it, the best that works is taken.': "accelerator",
        "Write optimizer=lambda p: torch.optim.AdamW(p, lr=1e-3, betas=(0.9, 0.98)).": (
            "adam_beta1 adam_beta2 adam_epsilon amsgrad betas eps optim_args"
            " optimizer_cls_and_kwargs optimizer_kwargs optimizer_params"
        ),
        'Write precision="16-mixed" or "bf16"; without it, what suits the device is taken.': (
            "amp autocast half to_fp16 use_amp"
        ),
        "Write what TrainingArguments hold as arguments here: epochs=, batch_size=, lr=.": "args",
        'Write microbatch="auto": where memory runs out, the same gradient in parts.': (
            "auto_find_batch_size auto_scale_batch_size"
        ),
        "Pass lr=; no rate is looked for.": "auto_lr_find lr_find",
        "Let the Dataset do it in __getitem__: its random draws are repeated at a resume.": (
            "batch_tfms item_tfms transform"
        ),
        "Set torch.backends.cudnn.benchmark = True before.": "benchmark",
        "Pass monitor=: the best epoch is kept beside the newest checkpoints.": (
            "best save_best save_best_only"
        ),
        'Write precision="bf16".': "bf16",
        "Leave it out: checkpoints are written by themselves; see save_every=.": (
            "checkpoint_callback enable_checkpointing"
        ),
        "Give it to the loader: DataLoader(data, collate_fn=...), and pass that as data.": (
            "collate_fn"
        ),
        "Pass torch.compile(model) as the model.": "compile jit_compile torch_compile",
        "Pass loss=, a function of (output, target).": "compute_loss_func",
        "Pass metrics=: a name, a function of (output, target), or an object with update"
        " and compute; those of torchmetrics see all predictions of an epoch.": "compute_metrics",
        "Leave it out: running fit again goes on.": (
            "continue_training ignore_data_skip last_epoch restore resume_from resume_training"
        ),
        'Write device="cuda"; without it, the best that works is taken.': (
            "cuda device_map gpu gpus n_gpu num_gpus use_cuda use_gpu"
        ),
        "Give it to the loader: DataLoader(data, batch_size=8, shuffle=True,"
        " collate_fn=data_collator), and pass that as data.": "data_collator",
        "Give them to the loader: DataLoader(data, num_workers=2), and pass that as data.": (
            "dataloader_num_workers"
        ),
        "Pass its loaders, after dm.setup('fit'): data=dm.train_dataloader(),"
        " validation_data=dm.val_dataloader().": "datamodule",
        "Train with its own script, and keep its folder: colabkit.run, colabkit.keep.": (
            "deepspeed"
        ),
        "Call torch.autograd.set_detect_anomaly(True) before.": "detect_anomaly",
        "Leave it out, and call torch.use_deterministic_algorithms(True) before; the seed"
        " is seed=.": "deterministic full_determinism",
        "Leave it out: devices=2 trains on two GPUs, and so does torchrun with two processes.": (
            "num_nodes num_processes strategy"
        ),
        "Write progress=False.": "disable_tqdm quiet silent",
        "Pass its loaders: data=dls.train, validation_data=dls.valid.": "dls",
        "Pass validation_data=; leave it out for none.": "do_eval",
        "Leave it out: fit trains.": "do_train",
        "Give it to the loader: DataLoader(data, drop_last=True), and pass that as data.": (
            "drop_last"
        ),
        "Write callbacks=[colabkit.EarlyStopping(patience=3)].": (
            "early_stop early_stopping early_stopping_patience early_stopping_rounds patience"
        ),
        "Write progress=False for none.": "enable_progress_bar",
        "Write scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 10).": (
            "eta_min gamma lr_scheduler_kwargs milestones scheduler_kwargs step_size T_max"
        ),
        "Write eval_every=, which counts epochs.": "eval_steps val_check_interval",
        "Pass validation_data=, and eval_every= to count epochs in between.": (
            "eval_strategy evaluation_strategy"
        ),
        'Write save_every=: "auto", a time such as "5min", or a number of steps.': (
            "every_n_epochs save_strategy"
        ),
        "Name the run by its folder, ckpt_dir.": (
            "experiment experiment_name name run_name version"
        ),
        "Write max_steps=1, in a folder of its own.": "fast_dev_run",
        "Leave it out: checkpoints name themselves; colabkit.checkpoints(ckpt_dir) lists"
        " them.": "filename",
        'Write scheduler="onecycle".': "fit_one_cycle",
        'Write precision="fp16".': "fp16",
        "Call fit twice on one folder: the new head first, then all of it; each is a phase.": (
            "freeze_epochs"
        ),
        "Call it on the model: model.gradient_checkpointing_enable().": "gradient_checkpointing",
        "Pass monitor=; whether more is better follows from its name, as of accuracy.": (
            "greater_is_better mode"
        ),
        "Give the loader a batch_sampler that does so, and pass the loader as data.": (
            "group_by_length"
        ),
        "Write keep=2 or more.": "keep_checkpoint_max",
        "Write loss=nn.CrossEntropyLoss(label_smoothing=0.1).": (
            "label_smoothing label_smoothing_factor"
        ),
        "x and y are one argument, data=(x, y).": "labels targets X x y",
        "Pass a part of the data: torch.utils.data.Subset(data, range(100)).": (
            "limit_train_batches overfit_batches"
        ),
        "Call colabkit.load(model, ckpt_dir, 'best') afterwards.": (
            "load_best_model_at_end restore_best_weights"
        ),
        "Leave it out: each step is noted; see history.steps.": (
            "log_every log_every_n_steps log_freq log_interval logging_steps print_every"
            " verbose_every"
        ),
        "Write tensorboard=True: event files are written into the run folder.": "logging_dir",
        "Pass loss=, a function of (output, target) that weighs its parts.": "loss_weights",
        'Write lr= and scheduler="onecycle", which rises to ten times lr.': "lr_max max_lr",
        'Write max_time="11h".': "max_hours",
        "Write callbacks=[colabkit.EarlyStopping(min_delta=0.01)].": "min_delta",
        "Leave it out: only callbacks end a run early; give them more patience=.": (
            "min_epochs min_steps"
        ),
        "Write ckpt_dir=, the third argument.": "model_dir path",
        "Pass the model itself; torch.manual_seed(0) before it is made repeats its weights.": (
            "model_init"
        ),
        "Write optimizer=lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9).": "momentum moms",
        "Write optimizer=lambda p: torch.optim.SGD(p, lr=0.01, momentum=0.9,"
        " nesterov=True).": "nesterov",
        'Write device="cpu".': "no_cuda use_cpu",
        "Leave it out: the first batch is tried before the first step.": "num_sanity_val_steps",
        "Give them to the loader: DataLoader(data, batch_size=32, shuffle=True,"
        " num_workers=2), and pass that as data.": "num_workers",
        "Write optimizer= and scheduler=, each by itself.": "optimizers",
        "Write resume=False: it starts anew beside the old run.": "overwrite overwrite_output_dir",
        "Leave it out: batch_size counts for both; or pass a DataLoader as validation_data.": (
            "per_device_eval_batch_size"
        ),
        "Give it to the loader: DataLoader(data, pin_memory=True), and that is data.": (
            "pin_memory"
        ),
        "Give a collator to the loader: DataLoader(data, batch_size=8, shuffle=True,"
        " collate_fn=DataCollatorWithPadding(tokenizer)).": "processing_class tokenizer",
        "Put it around the call: with torch.profiler.profile() as profile:"
        " colabkit.fit(...)": "profiler",
        'Write logger="wandb"; WANDB_PROJECT in os.environ names the project.': "project",
        "Call model.push_to_hub(...) afterwards.": "push_to_hub",
        "Leave it out: text that the model has no name for is left out;"
        " data.remove_columns([...]) for the rest.": "remove_unused_columns",
        'Write logger="wandb", "mlflow" or "trackio", or tensorboard=True.': "report_to",
        'Leave it out: running fit again goes on. resume= takes a step, "best", "weights"'
        " or False.": "resume_from_checkpoint",
        "Leave it out: PyTorch does.": "run_eagerly",
        "Give it to the loader: DataLoader(data, sampler=...), and pass that as data.": "sampler",
        "Leave it out: the newest checkpoints are kept, keep= of them.": "save_last",
        "Leave it out: to go on takes all of it. The weights alone:"
        " torch.save(model.state_dict(), path) afterwards.": "save_only_model save_weights_only",
        "Write max_steps=, batches in all.": "steps",
        "Leave it out: each step is one of PyTorch's.": "steps_per_execution",
        "Let a callback end it: event.run.stop() where the value is reached.": (
            "stopping_threshold"
        ),
        "Call nn.SyncBatchNorm.convert_sync_batchnorm(model) before.": "sync_batchnorm",
        "Split it beforehand: torch.utils.data.random_split(data, [0.8, 0.2],"
        " torch.Generator().manual_seed(0)); the second part is validation_data.": (
            "test_size valid_pct"
        ),
        'Call torch.set_float32_matmul_precision("high") before.': "tf32",
        "Write data=, the second argument.": "train_ds",
        'Write save_every="5min".': "train_time_interval",
        "Write validation_data=.": "valid_ds",
        'Write logger="wandb".': "wandb",
        'Leave it out: checkpoints hold no pickles; resume="weights" takes weights alone.': (
            "weights_only"
        ),
    }
)
# Whole groups of arguments, by how their names begin.
_FAMILIES = {
    "adam_": _IN_OTHER_WORDS["betas"],
    "dataloader_": "Give it to the loader: DataLoader(data, batch_size=32, shuffle=True,"
    " {rest}=...), and pass that as data.",
    "ddp_": _IN_OTHER_WORDS["strategy"],
    "eval_": "Pass validation_data=, and eval_every= to count epochs in between.",
    "gradient_checkpointing_": "Call it on the model: model.gradient_checkpointing_enable(...).",
    "hub_": _IN_OTHER_WORDS["push_to_hub"],
    "limit_": _IN_OTHER_WORDS["limit_train_batches"],
    "logging_": _IN_OTHER_WORDS["logging_steps"],
    "torch_compile_": _IN_OTHER_WORDS["torch_compile"],
    "trackio_": 'Write logger="trackio"; TRACKIO_SPACE_ID in os.environ names the space.',
    "wandb_": _IN_OTHER_WORDS["project"],
}
# Arguments of Keras' fit, where the model is a module.
_OF_KERAS_FOR_TORCH = by_name(
    {
        "Give it to the loss: loss=nn.CrossEntropyLoss(weight=torch.tensor([...])).": (
            "class_weight"
        ),
        "Leave it out: the run folder says where to go on.": "initial_epoch",
        "Give it to the loader: DataLoader(data, prefetch_factor=4).": "max_queue_size",
        "Let a batch be (x, (y, weight)), and pass loss=, a function of (output, (y,"
        " weight)).": "sample_weight",
        "Leave it out: arrays and Datasets are shuffled anew in each epoch. For another"
        " order pass DataLoader(data, shuffle=False).": "shuffle",
        "Leave it out: an epoch is all batches of the data; max_steps= ends a run.": (
            "steps_per_epoch"
        ),
        "Give it to the loader: DataLoader(data, num_workers=2).": "use_multiprocessing",
        "Pass a DataLoader of that size as validation_data.": "validation_batch_size",
        "Write eval_every=2.": "validation_freq",
        "Split it beforehand: torch.utils.data.random_split(data, [0.8, 0.2],"
        " torch.Generator().manual_seed(0)); the second part is validation_data.": (
            "validation_split"
        ),
        "Pass a part of it: torch.utils.data.Subset(validation_data, range(100)).": (
            "validation_steps"
        ),
        "Write progress=False for silence; leave it out otherwise.": "verbose",
        "Give them to the loader: DataLoader(data, num_workers=2).": "workers",
    }
)
# Arguments that Keras' fit had or has no more, and those that its optimizer or compile takes.
_FOR_KERAS = by_name(
    {
        "Call keras.mixed_precision.set_global_policy('mixed_bfloat16') before building it.": (
            "bf16"
        ),
        "Write callbacks=[keras.callbacks.EarlyStopping(patience=3)].": "early_stopping patience",
        "Call keras.mixed_precision.set_global_policy('mixed_float16') before building it.": (
            "fp16"
        ),
        "Wrap layers in keras.RematScope().": "gradient_checkpointing",
        "Pass it to the loss: CategoricalCrossentropy(label_smoothing=0.1).": (
            "label_smoothing_factor"
        ),
        "Give it to the PyDataset: super().__init__(max_queue_size=10).": "max_queue_size",
        "Pass it to the optimizer: keras.optimizers.SGD(momentum=0.9).": "momentum",
        "Give it to the PyDataset: super().__init__(workers=4).": "num_workers workers",
        "Write callbacks=[keras.callbacks.EarlyStopping(restore_best_weights=True)].": (
            "restore_best_weights"
        ),
        "Give it to the PyDataset: super().__init__(workers=4, use_multiprocessing=True).": (
            "use_multiprocessing"
        ),
    }
)
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
    names = _OF_KERAS_MODELS if model_is_keras else _OF_MODULES
    hint = names.hint(name, value, known=known) or "Look at help(colabkit.fit)."
    return ArgumentError(f"fit has no argument {name!r} for a {kind}.", argument=name, hint=hint)


_OF_MODULES = OtherNames(RENAMED, _IN_OTHER_WORDS | _OF_KERAS_FOR_TORCH, _FAMILIES)
# What stands for something that compile decides is said as that.
_OF_KERAS_MODELS = OtherNames(
    {name: here for name, here in RENAMED.items() if here not in COMPILED},
    _IN_OTHER_WORDS
    | {name: COMPILED[here] for name, here in RENAMED.items() if here in COMPILED}
    | _FOR_KERAS,
)
