"""What people of other libraries type where the model is Keras', and what to write."""

from __future__ import annotations

from colabkit.other_names import by_name

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
_RATE_OF_EACH = "Give each part an optimizer of its own, in a train_step of your own."
# Arguments that Keras' fit had or has no more, those that its optimizer or compile takes, and
# those of other libraries whose answer for a module is in words of PyTorch.
FOR_KERAS = by_name(
    {
        "Pass it to the optimizer: keras.optimizers.Adam(beta_2=0.98, epsilon=1e-8).": (
            "adam_beta1 adam_beta2 adam_epsilon amsgrad betas eps optim_args"
            " optimizer_cls_and_kwargs optimizer_kwargs optimizer_params"
        ),
        COMPILED["precision"]: "amp autocast half to_fp16 use_amp",
        "Write it as layers of the model: keras.layers.RandomFlip(), Resizing(224, 224).": (
            "aa augment augmentation augmentations auto_augment batch_tfms color_jitter hflip"
            " image_size imgsz item_tfms mosaic reprob resolution tfms transform transforms"
        ),
        COMPILED["microbatch"]: "auto_find_batch_size auto_scale_batch_size",
        COMPILED["lr"]: "auto_lr_find find_lr lr_find",
        "Leave it out: the backend decides.": "benchmark channels_last tf32",
        "Write a train_step of the model's own, or pass loss to model.compile(loss=...).": (
            "forward_fn step_fn train_fn train_step training_step"
        ),
        "Pass it to the loss: SparseCategoricalCrossentropy(ignore_class=0).": "ignore_index",
        'Pass it to model.compile(loss="binary_crossentropy").': "bce_loss",
        "Leave it out: Keras places the model; on a TPU build it under its strategy.": (
            "tpu tpu_cores use_tpu"
        ),
        "Call keras.mixed_precision.set_global_policy('mixed_bfloat16') before building it.": (
            "bf16"
        ),
        "Pass it to the optimizer: keras.optimizers.SGD(clipvalue=0.5).": (
            "clip_grad_value clipvalue grad_clip_value"
        ),
        "Pass a tf.data.Dataset or a keras.utils.PyDataset, which decides it:"
        " dataset.batch(32, drop_remainder=True).prefetch(2).": (
            "collate_fn data_collator drop_last group_by_length pin_mem pin_memory prefetch"
            " prefetch_factor sampler"
        ),
        "Pass it to model.compile(jit_compile=True).": "compile jit_compile torch_compile",
        COMPILED["loss"]: "compute_loss_func",
        COMPILED["metrics"]: "compute_metrics",
        "Map it over the data: dataset.map(...), with keras.layers.MixUp() say.": "cutmix mixup",
        "Pass a schedule as the optimizer's learning_rate:"
        " keras.optimizers.schedules.CosineDecay(0.1, 1000).": (
            "cos_lr decay_rate div div_factor div_final eta_min fit_one_cycle gamma lr_decay lr_max"
            " lr_scheduler_kwargs lr_step lrf max_lr milestones min_lr pct_start scheduler_kwargs"
            " step_size T_max warmup_epochs warmup_lr"
        ),
        COMPILED["device"]: (
            "accelerator cpu cuda device_map gpu gpus n_gpu no_cuda num_gpus use_cpu use_cuda"
            " use_gpu"
        ),
        "Write callbacks=[keras.callbacks.TerminateOnNaN()].": "detect_anomaly",
        "Leave it out, and call tf.config.experimental.enable_op_determinism() before; the seed"
        " is seed=.": "deterministic full_determinism",
        "Build the model under a keras.distribution, or in a MirroredStrategy's scope.": (
            "distributed fsdp local_rank num_nodes num_processes rank strategy world_size"
        ),
        "Write callbacks=[keras.callbacks.EarlyStopping(patience=3)].": (
            "early_stop early_stopping early_stopping_patience early_stopping_rounds"
            " n_iter_no_change patience"
        ),
        "Pass it to the optimizer: keras.optimizers.Adam(use_ema=True).": (
            "ema ema_decay ema_momentum model_ema swa use_ema"
        ),
        "Write validation_batch_size=.": (
            "eval_batch_size per_device_eval_batch_size val_batch_size"
        ),
        "Call keras.mixed_precision.set_global_policy('mixed_float16') before building it.": (
            "fp16"
        ),
        "Write steps_per_epoch=.": "fraction limit_train_batches overfit_batches",
        "Write layer.trainable = False before model.compile().": (
            "freeze freeze_backbone freeze_layers train_bn"
        ),
        "Leave it out: the policy mixed_float16 brings one.": "grad_scaler loss_scale scaler",
        COMPILED["accumulate"]: "gradient_accumulation_plugin nbs",
        "Wrap layers in keras.RematScope().": "gradient_checkpointing",
        COMPILED["clip_grad_norm"]: "gradient_clip_algorithm",
        "Pass it to the loss: CategoricalCrossentropy(label_smoothing=0.1).": (
            "label_smoothing label_smoothing_factor smoothing"
        ),
        "Write validation_steps=.": "limit_val_batches",
        "Call model.load_weights(path) before.": (
            "initial_checkpoint load_from pretrained pretrained_weights weights"
        ),
        "Call layer.enable_lora(8) on its layers before model.compile().": (
            "lora_alpha lora_r lora_rank network_alpha network_dim peft_config"
        ),
        "Pass it to model.compile(loss_weights=[...]).": "loss_weights",
        _RATE_OF_EACH: (
            "layer_decay lr_mult param_groups splitter text_encoder_lr unet_lr wd_bn_bias"
        ),
        "Give it to the PyDataset: super().__init__(max_queue_size=10).": "max_queue_size",
        "Write callbacks=[keras.callbacks.EarlyStopping(min_delta=0.01)].": (
            "min_delta tol tolerance"
        ),
        "Pass the model itself; keras.utils.set_random_seed(0) before it is made repeats its"
        " weights.": "model_init",
        "Pass it to the optimizer: keras.optimizers.SGD(momentum=0.9, nesterov=True).": (
            "momentum moms nesterov"
        ),
        "Give it to the PyDataset: super().__init__(workers=4).": (
            "dataloader_num_workers max_data_loader_n_workers n_jobs num_workers"
            " persistent_data_loader_workers persistent_workers workers"
        ),
        COMPILED["optimizer"]: "optimizers",
        "Write class_weight=.": "pos_weight weight",
        "Tokenise beforehand, and pass the arrays as data.": (
            "dataset_text_field formatting_func max_length max_seq_length processing_class"
            " tokenizer"
        ),
        "Write callbacks=[keras.callbacks.TensorBoard(log_dir, profile_batch=(10, 20))].": (
            "profiler"
        ),
        "Write callbacks=[keras.callbacks.ReduceLROnPlateau(patience=2)].": (
            "reduce_lr reduce_lr_on_plateau"
        ),
        "Write callbacks=[keras.callbacks.EarlyStopping(restore_best_weights=True)].": (
            "restore_best_weights"
        ),
        "Pass it to model.compile(run_eagerly=True).": "run_eagerly",
        "Leave it out: to go on takes all of it. The weights alone: model.save_weights(path)"
        " afterwards.": "save_only_model save_weights_only",
        "Pass it to model.compile(steps_per_execution=8).": "steps_per_execution",
        "Write keras.layers.BatchNormalization(synchronized=True).": "sync_batchnorm sync_bn",
        "Write validation_split=0.2.": (
            "test_size train_size train_split val_split valid_pct validation_fraction"
            " validation_size"
        ),
        "Make data of the folder: keras.utils.image_dataset_from_directory(folder);"
        " colabkit.dataset(source) unpacks an archive.": "data_dir train_data_dir train_dir",
        "Give it to the PyDataset: super().__init__(workers=4, use_multiprocessing=True).": (
            "use_multiprocessing"
        ),
    }
)
FAMILIES_FOR_KERAS = {
    "adam_": FOR_KERAS["betas"],
    "dataloader_": FOR_KERAS["num_workers"],
    "ddp_": FOR_KERAS["strategy"],
    "gradient_checkpointing_": FOR_KERAS["gradient_checkpointing"],
    "limit_": FOR_KERAS["limit_train_batches"],
    "torch_compile_": FOR_KERAS["torch_compile"],
}
