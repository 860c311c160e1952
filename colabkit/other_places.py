"""What to call in place of a name that other libraries have and colabkit has not."""

from __future__ import annotations

from colabkit.other_names import OtherNames, by_name

_TRAIN = "Call colabkit.fit(model, data, ckpt_dir, epochs=20), or write the loop with colabkit.Run."
_BY_ITSELF = "Checkpoints are written by themselves, in fit and in Run; save_every= says how often."
_LOAD = "fit and Run go on by themselves; colabkit.load(model, ckpt_dir) gives a model the weights."
OF_COLABKIT = OtherNames(
    in_other_words=by_name(
        {
            _TRAIN: "Accelerator Learner Trainer TrainingArguments learn train train_model trainer",
            _BY_ITSELF: (
                "BackupAndRestore CheckpointManager Checkpointer ModelCheckpoint checkpoint save"
                " save_checkpoint save_model save_state"
            ),
            _LOAD: "load_checkpoint load_latest load_model load_state restore resume",
            "Call colabkit.dataset(source): a path, a URL, or a shared link.": (
                "DataLoader Dataset download extract gdown get_dataset load_dataset untar unzip"
            ),
            "Call colabkit.pack(folder, archive).": "compress zip zip_folder",
            "Call colabkit.mount(), or colabkit.setup(), which mounts too.": (
                "connect_drive drive mount_drive mount_gdrive"
            ),
            "Call colabkit.release().": (
                "disconnect flush_and_unmount shutdown terminate unassign unmount"
            ),
            "Call colabkit.stay_connected().": "keep_alive keepalive prevent_disconnect",
            "Pass seed= to fit or Run.": "seed seed_everything set_random_seed set_seed",
            'Call colabkit.setup(packages=["timm>=1.0"]).': "install pip pip_install",
            "Call colabkit.setup(gpu=True): its card says what there is.": "device get_device gpu",
            "Call the model; fit validates with validation_data=.": (
                "eval evaluate predict test validate"
            ),
            "Call colabkit.checkpoints(ckpt_dir).": "latest_checkpoint list_checkpoints",
            "Pass callbacks=[...] to fit: a colabkit.Callback, or a function of an event.": (
                "TrainerCallback callbacks"
            ),
        }
    )
)
OF_A_RUN = OtherNames(
    in_other_words=by_name(
        {
            "Loop over run.epochs(3), and in it over run.batches(loader).": (
                "data fit loader train"
            ),
            f"{_BY_ITSELF} run.flush() waits until the newest is on the volume.": (
                "checkpoint save save_checkpoint save_model save_state"
            ),
            f"Making the Run has restored all of it. {_LOAD}": (
                "load load_checkpoint load_state load_state_dict restore resume"
            ),
            "Leave it out: the loop is your own, and Run holds the objects that it is given.": (
                "accumulate backward clip_grad_norm_ close finish gather prepare wait_for_everyone"
            ),
            "Write run.log(loss=loss), at each step; values of an epoch by run.log_epoch.": (
                "add_scalar log_dict log_metric log_metrics report track"
            ),
            "Write run.show(images=...).": "add_image log_image log_images save_image",
            "They are in run.history.": "logs metrics",
            "Write run.stop().": "early_stop should_stop stop_training",
        }
    )
)
