"""What people of Keras, Lightning, Transformers, fastai, YOLO and kohya type, and what to write."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from colabkit.errors import ArgumentError
from colabkit.fitting import subjects
from colabkit.fitting.names_for_keras import COMPILED, FAMILIES_FOR_KERAS, FOR_KERAS
from colabkit.other_names import OtherNames, by_name

# The same thing under another name; the value can stay.
RENAMED = by_name(
    {
        "accumulate": (
            "accum_iter accumulate_grad accumulate_grad_batches accumulation_steps grad_accum_steps"
            " grad_accum gradient_accumulation gradient_accumulation_steps"
        ),
        "batch_size": (
            "batch bs per_device_train_batch_size train_batch_size train_micro_batch_size"
        ),
        "callbacks": "callback callbacks_list cbs hooks",
        "ckpt_dir": (
            "checkpoint_dir checkpoint_path ckpt default_root_dir dirpath exp_dir"
            " filepath folder log_dir logdir out_dir output_dir project_dir root_dir run_dir"
            " save_dir save_path weights_save_path work_dir"
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
            " max_train_epochs num_train_epochs total_epochs"
        ),
        "eval_every": "check_val_every_n_epoch",
        "keep": (
            "checkpoint_hist keep_last max_to_keep num_checkpoints save_last_n_epochs"
            " save_last_n_steps save_top_k save_total_limit"
        ),
        "loss": "criterion loss_fn loss_func loss_function loss_type objective",
        "lr": "base_lr initial_lr learning_rate learnrate lr0 max_learning_rate",
        "max_steps": (
            "iterations max_iter max_iters max_train_steps n_steps num_iterations num_steps"
            " num_training_steps total_steps train_steps training_steps"
        ),
        "max_time": "time_limit",
        "metrics": "eval_metric eval_metrics metric weighted_metrics",
        "monitor": "metric_for_best_model",
        "optimizer": "opt opt_func optim optimiser optimizer_class optimizer_name optimizer_type",
        "precision": "dtype mixed_precision",
        "progress": "progress_bar show_progress",
        "save_every": (
            "checkpoint_every every_n_train_steps save_every_n_steps save_freq save_interval"
            " save_period save_steps"
        ),
        "scheduler": (
            "learning_rate_scheduler lr_schedule lr_scheduler lr_scheduler_type sched schedule"
        ),
        "seed": "data_seed random_seed random_state",
        "validation_data": (
            "eval_data eval_dataloader eval_dataset eval_set test_data test_dataset test_loader val"
            " val_data val_dataloader val_dataloaders val_dl val_loader val_set valid_data"
            " valid_dl valid_loader valid_set validation_dataset validation_loader"
        ),
        "warmup": (
            "lr_warmup_steps n_warmup_steps num_warmup_steps warmup_iters warmup_ratio warmup_steps"
        ),
        "weight_decay": "decay l2 wd weight_decay_rate",
    }
)
# What no single argument stands for, or an argument with another value.
_IN_OTHER_WORDS = by_name(
    {
        "Pass loss=, a function of (output, target); for a step of your own loop over"
        " colabkit.Run.": "forward_fn step_fn train_fn train_step training_step",
        "Leave it out: fit trains on a GPU or the CPU; JAX uses a TPU by itself.": (
            "tpu tpu_cores use_tpu"
        ),
        "Call model.to(memory_format=torch.channels_last) before.": "channels_last",
        "It belongs to the model: build the model with it, and pass that.": (
            "arch drop_path drop_path_rate id2label label2id num_classes num_labels y_range"
        ),
        "Write loss=nn.CrossEntropyLoss(ignore_index=0).": "ignore_index",
        'Write loss="bce".': "bce_loss",
        'Write ckpt_dir="MyDrive/runs/cats": what is saved is on Drive then.': (
            "drive save_to_drive"
        ),
        "That trainer has it: train with it, and keep its folder by colabkit.keep(folder, to).": (
            "max_prompt_length neftune_noise_alpha num_generations packing ref_model reward_funcs"
            " use_liger_kernel"
        ),
        "fit trains networks; for a booster see docs/trainers.md.": (
            "max_depth n_estimators num_boost_round num_leaves"
        ),
        "Loop over the folds, each in a folder of its own:"
        ' fit(model, fold, f"MyDrive/runs/cats-{k}").': "cv folds n_splits",
        "Write accumulate=, the batches whose gradients make one step.": (
            "gradient_accumulation_plugin nbs"
        ),
        "Put the adapters on before: model = peft.get_peft_model(model, config), and pass that.": (
            "lora_alpha lora_r lora_rank network_alpha network_dim peft_config"
        ),
        "Give it to the loader: DataLoader(data, collate_fn=...) mixes the samples of a batch.": (
            "cutmix mixup"
        ),
        "Make a Dataset of the folder, and pass that as data; colabkit.dataset(source) unpacks"
        " an archive.": "data_dir train_data_dir train_dir",
        "Tokenise beforehand: data.map(lambda rows: tokenizer(rows['text'], truncation=True,"
        " max_length=512)).": "dataset_text_field formatting_func max_length max_seq_length",
        "Keep it in a callback with state_dict: torch.optim.swa_utils.AveragedModel, updated in"
        " on_batch_end.": "ema ema_decay model_ema swa use_ema",
        "Call requires_grad_(False) on those parts of the model before.": (
            "freeze freeze_backbone freeze_layers train_bn"
        ),
        "A model is trained on one device, or whole on each of devices=; see docs/devices.md.": (
            "fsdp fsdp_config tensor_parallel"
        ),
        'Leave it out: precision="fp16" brings one.': "grad_scaler loss_scale scaler",
        "Write clip_grad_norm=1.0, which clips by the norm of all gradients.": (
            "clip_grad_value clipvalue grad_clip_value gradient_clip_algorithm"
        ),
        "Pass a part of it: validation_data=torch.utils.data.Subset(data, range(100)).": (
            "limit_val_batches"
        ),
        "Load them into the model before: model.load_state_dict(torch.load(path)).": (
            "initial_checkpoint load_from pretrained pretrained_weights weights"
        ),
        "Make the optimizer with a group for each, and pass that: torch.optim.AdamW(["
        '{"params": ..., "lr": 1e-4}, ...]).': (
            "layer_decay lr_mult param_groups splitter text_encoder_lr unet_lr wd_bn_bias"
        ),
        "Write loss=nn.BCEWithLogitsLoss(pos_weight=torch.tensor(3.0)).": "pos_weight",
        "Call history.plot() afterwards.": "plot plots",
        "Show what a callback draws: event.run.show(images=...).": (
            "sample_every_n_epochs sample_every_n_steps sample_prompts"
        ),
        "Leave it out: a checkpoint holds optimizer, scheduler and random numbers too, in"
        " safetensors and JSON.": "save_optimizer save_safetensors save_state",
        "Write devices=2 for two GPUs of this machine, or start the script by torchrun.": (
            "distributed local_rank rank world_size"
        ),
        "Leave it out: batch_size counts the samples of all devices together.": (
            "dispatch_batches even_batches split_batches use_distributed_sampler"
        ),
        "Leave it out: the run folder says where to go on.": "start_epoch",
        "Write warmup= in optimizer steps, or below 1 as a share of all: warmup=0.1.": (
            "warmup_epochs warmup_lr"
        ),
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
        "Pass lr=; no rate is looked for.": "auto_lr_find find_lr lr_find",
        "Let the Dataset do it in __getitem__: its random draws are repeated at a resume.": (
            "aa augment augmentation augmentations auto_augment batch_tfms color_jitter hflip"
            " image_size imgsz item_tfms mosaic reprob resolution tfms transform transforms"
        ),
        "Set torch.backends.cudnn.benchmark = True before.": "benchmark",
        "Pass monitor=: the best epoch is kept beside the newest checkpoints.": (
            "best save_best save_best_model save_best_only"
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
            "auto_resume ckpt_path continue_training ignore_data_skip last_epoch restore"
            " resume_from resume_path resume_training warm_start"
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
        "Write progress=False.": "disable_tqdm log_level quiet silent",
        "Pass its loaders: data=dls.train, validation_data=dls.valid.": "dls",
        "Pass validation_data=; leave it out for none.": "do_eval",
        "Leave it out: fit trains.": "do_train",
        "Give it to the loader: DataLoader(data, drop_last=True), and pass that as data.": (
            "drop_last"
        ),
        "Write callbacks=[colabkit.EarlyStopping(patience=3)].": (
            "early_stop early_stopping early_stopping_patience early_stopping_rounds"
            " n_iter_no_change patience"
        ),
        "Write progress=False for none.": "enable_model_summary enable_progress_bar",
        'Write scheduler="cosine".': "cos_lr",
        "Write scheduler=lambda o: torch.optim.lr_scheduler.ReduceLROnPlateau(o).": (
            "reduce_lr reduce_lr_on_plateau"
        ),
        "Write scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 10).": (
            "decay_rate eta_min gamma lr_decay lr_scheduler_kwargs lr_step lrf milestones"
            " min_lr scheduler_kwargs step_size T_max"
        ),
        "Write eval_every=, which counts epochs.": "eval_steps val_check_interval",
        "Pass validation_data=, and eval_every= to count epochs in between.": (
            "eval_strategy evaluation_strategy"
        ),
        'Write save_every=: "auto", a time such as "5min", or a number of steps.': (
            "every_n_epochs period save_every_n_epochs save_on_train_epoch_end save_strategy"
        ),
        "Name the run by its folder, ckpt_dir.": (
            "experiment experiment_name name output_name run_name version"
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
            "label_smoothing label_smoothing_factor smoothing"
        ),
        "x and y are one argument, data=(x, y).": (
            "features labels target targets train_x train_y X X_train x x_train y y_train"
        ),
        "Pass a part of the data: torch.utils.data.Subset(data, range(100)).": (
            "fraction limit_train_batches overfit_batches"
        ),
        "Call colabkit.load(model, ckpt_dir, 'best') afterwards.": (
            "load_best_model_at_end restore_best_weights"
        ),
        "Leave it out: each step is noted; see history.steps.": (
            "log_every log_every_n_steps log_freq log_interval logging_steps print_every print_freq"
            " verbose_every"
        ),
        "Write tensorboard=True: event files are written into the run folder.": (
            "logging_dir tb tensorboard_dir"
        ),
        "Pass loss=, a function of (output, target) that weighs its parts.": "loss_weights",
        "Write scheduler=(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, 0.1, 1000,"
        ' pct_start=0.25), "step").': "div div_factor div_final pct_start",
        'Write lr= and scheduler="onecycle", which rises to ten times lr.': "lr_max max_lr",
        'Write max_time="11h".': "max_hours",
        "Write callbacks=[colabkit.EarlyStopping(min_delta=0.01)].": "min_delta tol tolerance",
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
        'Write device="cpu".': "cpu no_cuda use_cpu",
        "Leave it out: the first batch is tried before the first step.": "num_sanity_val_steps",
        "Give them to the loader: DataLoader(data, batch_size=32, shuffle=True,"
        " num_workers=2), and pass that as data.": (
            "max_data_loader_n_workers n_jobs num_workers persistent_data_loader_workers"
            " persistent_workers prefetch prefetch_factor"
        ),
        "Write optimizer= and scheduler=, each by itself.": "optimizers",
        "Write resume=False: it starts anew beside the old run.": "overwrite overwrite_output_dir",
        "Leave it out: batch_size counts for both; or pass a DataLoader as validation_data.": (
            "eval_batch_size per_device_eval_batch_size val_batch_size"
        ),
        "Give it to the loader: DataLoader(data, pin_memory=True), and that is data.": (
            "pin_mem pin_memory"
        ),
        "Give a collator to the loader: DataLoader(data, batch_size=8, shuffle=True,"
        " collate_fn=DataCollatorWithPadding(tokenizer)).": "processing_class tokenizer",
        "Put it around the call: with torch.profiler.profile() as profile:"
        " colabkit.fit(...)": "profiler",
        'Write logger="wandb"; WANDB_PROJECT in os.environ names the project.': "project",
        "Call model.push_to_hub(...) afterwards.": "push_to_hub",
        "Leave it out: text that the model has no name for is left out;"
        " data.remove_columns([...]) for the rest.": "remove_unused_columns",
        'Write logger="wandb", "mlflow" or "trackio", or tensorboard=True.': "log_with report_to",
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
        "Call nn.SyncBatchNorm.convert_sync_batchnorm(model) before.": "sync_batchnorm sync_bn",
        "Split it beforehand: torch.utils.data.random_split(data, [0.8, 0.2],"
        " torch.Generator().manual_seed(0)); the second part is validation_data.": (
            "test_size train_size train_split val_split valid_pct validation_fraction"
            " validation_size"
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
            "class_weight weight"
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


# What stands for an argument without which ``fit`` cannot be called, whatever the model.
OF_DATA = OtherNames(RENAMED, {name: _IN_OTHER_WORDS[name] for name in ("X", "x", "y", "labels")})


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


_OF_MODULES = OtherNames(
    RENAMED, _IN_OTHER_WORDS | _OF_KERAS_FOR_TORCH, _FAMILIES, subjects.OF_MODULES
)
# What stands for something that compile decides is said as that.
_OF_KERAS_MODELS = OtherNames(
    {name: here for name, here in RENAMED.items() if here not in COMPILED},
    _IN_OTHER_WORDS
    | {name: COMPILED[here] for name, here in RENAMED.items() if here in COMPILED}
    | FOR_KERAS,
    _FAMILIES | FAMILIES_FOR_KERAS,
    subjects.OF_KERAS_MODELS,
)
