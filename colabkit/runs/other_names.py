"""What people type for arguments of ``Run``, ``load`` and ``checkpoints``, and what to write."""

from __future__ import annotations

from colabkit.other_names import OtherNames, by_name

OF_RUN = OtherNames(
    by_name(
        {
            "ckpt_dir": (
                "checkpoint_dir default_root_dir dirpath filepath folder log_dir logdir"
                " out_dir output_dir path project_dir root_dir run_dir save_dir"
            ),
            "keep": (
                "keep_last max_to_keep save_last_n_epochs save_last_n_steps save_top_k"
                " save_total_limit"
            ),
            "max_steps": (
                "max_iters max_train_steps num_steps num_training_steps steps total_steps"
            ),
            "max_time": "time_limit timeout",
            "monitor": "metric_for_best_model",
            "save_every": (
                "checkpoint_every checkpoint_interval every every_n_train_steps save_every_n_steps"
                " save_freq save_interval save_steps"
            ),
            "seed": "random_seed random_state seed_everything",
        }
    ),
    by_name(
        {
            "Loop over run.epochs(3).": (
                "epoch epochs max_epochs max_train_epochs n_epochs num_epochs num_train_epochs"
            ),
            "Loop over run.batches(loader), which may be any iterable of batches.": (
                "data dataloader dataset loader train_data train_loader"
            ),
            "Loop over run.batches(data, batch_size=32), or a loader, whose own it is.": (
                "batch batch_size bs num_workers shuffle train_batch_size workers"
            ),
            "Make a Dataset of the folder, and loop over run.batches of it;"
            " colabkit.dataset(source) unpacks an archive.": "data_dir train_data_dir train_dir",
            "Write it in the loop: if run.step % 100 == 0.": (
                "eval_every eval_steps log_every logging_steps sample_every_n_steps"
            ),
            'Write save_every=: "auto", a time such as "5min", or a number of steps.': (
                "save_every_n_epochs save_strategy"
            ),
            "Loop over it as it is once run.batches is through, and run.log(val_loss=...).": (
                "val_data val_loader validation_data"
            ),
            "Call it in the loop; a Run has no callbacks, only objects that it keeps.": (
                "callbacks hooks"
            ),
            "Compute it in the loop, and run.log(loss=loss).": "criterion loss loss_fn metrics",
            "Move model and batches there in the loop; what the run saves fits any device.": (
                "accelerator device gpus"
            ),
            "Make the optimizer with it, and pass that: Run(folder, model=model,"
            " optimizer=optimizer).": "learning_rate lr weight_decay",
            "Write it in the loop, as without a Run.": (
                "accumulate amp bf16 clip_grad_norm ema fp16"
                " gradient_accumulation_steps mixed_precision"
                " max_grad_norm precision warmup warmup_steps"
            ),
            "Leave it out: making the Run goes on by itself. resume= takes a step, "
            '"best", "weights" or False.': (
                "auto_resume checkpoint ckpt_path resume_from resume_from_checkpoint resume_path"
                " resume_training"
            ),
            "Leave the loop by break where it is time; that ends the run.": (
                "early_stop early_stopping patience"
            ),
            "Name the run by its folder.": "experiment_name name output_name project run_name",
            "Keep what changes with run.state(best=0.0); what does not change needs no keeping.": (
                "args config hparams params_dict"
            ),
            "Pass monitor=: the best epoch is kept beside the newest checkpoints.": (
                "keep_best save_best save_best_model save_best_only"
            ),
            'Write logger="wandb", "mlflow" or "trackio", or tensorboard=True.': (
                "log_with report_to wandb"
            ),
            "Pass the service's own run: logger=wandb.init(tags=...).": (
                "entity group id job_type notes tags"
            ),
            'Write ckpt_dir="MyDrive/runs/cats": what is saved is on Drive then.': (
                "drive save_to_drive sync"
            ),
            "Write tensorboard=True: event files are written into the run folder.": (
                "logging_dir tensorboard_dir"
            ),
            "Start the script by torchrun; from a cell, fit(..., devices=2).": (
                "distributed local_rank num_processes rank strategy world_size"
            ),
            "Leave it out: a checkpoint holds all objects that are passed.": (
                "enable_checkpointing optimizer_state save save_optimizer save_state"
                " save_weights_only scheduler_state state_dict"
            ),
            "Write resume=False: it starts anew beside the old run.": "exist_ok overwrite",
            "Write progress=False for silence; leave it out otherwise.": "quiet silent verbose",
            "fit takes it; after a loop of your own, send it yourself.": "notify",
        }
    ),
)
OF_LOAD = OtherNames(
    by_name(
        {
            "ckpt_dir": (
                "checkpoint checkpoint_dir checkpoint_path ckpt ckpt_path dir filename filepath"
                " folder output_dir path run run_dir weights weights_path"
            ),
            "which": "checkpoint_step step",
        }
    ),
    by_name(
        {
            'Write which="best".': "best",
            'Write which="latest".': "last latest newest",
            "Leave it out: weights are copied to where the model is.": "device map_location",
            'What fits is taken by fit(..., resume="weights"); load wants all of it.': (
                "by_name partial prefix skip_mismatch strict"
            ),
            "Leave it out: nothing in a checkpoint is a pickle.": "mmap safe_mode weights_only",
            "Leave it out: the model is yours, and keeps its type and place.": (
                "compile custom_objects dtype hparams_file"
            ),
            "Leave it out: load copies weights; fit and Run go on with the optimizer too.": (
                "optimizer scheduler"
            ),
            "Write which=, a step; colabkit.checkpoints(ckpt_dir) names them with their epochs.": (
                "epoch version"
            ),
            "A state_dict of your own the model takes itself: model.load_state_dict(state).": (
                "assign state_dict"
            ),
        }
    ),
)
OF_CHECKPOINTS = OtherNames(
    by_name(
        {
            "ckpt_dir": "checkpoint_dir dir directory folder output_dir path run run_dir save_dir",
            "verify": "check full full_check",
        }
    ),
    by_name(
        {
            "Take the first: colabkit.checkpoints(ckpt_dir)[0] is the newest.": (
                "last latest limit n newest sort"
            ),
            "Take the one that says is_best; colabkit.load(model, ckpt_dir, 'best') loads it.": (
                "best"
            ),
            "Look at step and epoch of each: [c for c in colabkit.checkpoints(ckpt_dir)"
            " if c.step == 400].": "epoch pattern step",
            "Call it on each folder; a run has one list.": "recursive",
        }
    ),
)
