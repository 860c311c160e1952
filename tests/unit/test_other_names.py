"""What people of other libraries type, and what setup, dataset, keep and their like answer."""

from __future__ import annotations

import inspect
import re
from typing import Any

import pytest

import colabkit
from colabkit.errors import ArgumentError
from colabkit.fitting.names_for_keras import COMPILED
from colabkit.fitting.other_names import _OF_MODULES, unknown_argument
from colabkit.other_names import OtherNames, answering

# What is typed, and what the answer says to write.
TYPED: dict[str, dict[str, tuple[Any, str]]] = {
    "setup": {
        "mount_drive": (True, "drive=True"),
        "project_dir": ("MyDrive/p", "workdir='MyDrive/p'"),
        "cwd": ("x", "workdir='x'"),
        "requirements": ("r.txt", "packages='r.txt'"),
        "pip": (["timm"], "called packages"),
        "random_state": (1, "seed=1"),
        "gpu_type": ("T4", "Change runtime type"),
        "use_gpu": (True, "gpu=True"),
        "device": ("cuda", "gpu=True"),
        "tpu": (True, "JAX uses it"),
        "hf_token": ("x", "HF_TOKEN"),
        "require_gpu": (True, 'gpu="require"'),
        "pip_packages": (["timm"], "called packages"),
        "precision": ("bf16", "to fit"),
        "force_remount": (True, "Leave it out"),
        "verbose": (1, "Leave it out"),
        "projct_dir": ("x", "workdir='x'"),
        "packges": (["x"], "Did you mean 'packages'?"),
        "hours": (12, "session_hours=12"),
        "apt": (["ffmpeg"], "!apt-get install"),
        "torch_version": ("2.4", "left as they are"),
        "cpu": (True, "device='cpu'"),
        "autoreload": (True, "colabkit.reload()"),
        "wandb_key": ("x", "os.environ"),
        "banana": (1, "help(colabkit.setup)"),
    },
    "dataset": {
        "output": ("data", "dest='data'"),
        "root": ("data", "dest='data'"),
        "extract": (True, "unpack=True"),
        "force_download": (True, "refresh=True"),
        "allow_patterns": ("*.jpg", "members='*.jpg'"),
        "exclude": ("*.tmp", 'members="!*.tmp"'),
        "checksum": ("ab", "sha256="),
        "pwd": ("x", "password='x'"),
        "use_auth_token": ("x", "token='x'"),
        "num_workers": (4, "Leave it out"),
        "quiet": (True, "progress=False"),
        "split": ("train", "load its parts"),
        "fname": ("cats", "dest="),
        "download_dir": ("data", "dest='data'"),
        "repo_id": ("a/b", "hf://datasets/"),
        "retries": (3, "Leave it out"),
        "train_data_dir": ("x", "dest="),
        "target_dir": ("data", "dest='data'"),
        "revision": ("main", "@revision"),
        "recursive": (True, "Leave it out"),
        "image_size": ((64, 64), "load its parts"),
    },
    "keep": {
        "dest": ("x", "to='x'"),
        "save_every": ("5min", "every='5min'"),
        "exclude": ("*.tmp", "skip='*.tmp'"),
        "include": ("*.pt", "skip="),
        "save_total_limit": (3, "copies=3"),
        "verbose": (1, "progress=False"),
        "resume": (True, "Leave it out"),
        "drive_path": ("x", "to='x'"),
        "save_last_n_epochs": (2, "copies=2"),
        "every_n_minutes": (5, "every="),
        "background": (True, "beside the training"),
        "save_best": (True, "all of the folder"),
        "checkpoint_dir": ("runs/exp", "folder='runs/exp'"),
        "on_error": ("raise", "tried again"),
    },
    "load": {
        "step": (400, "which=400"),
        "best": (True, 'which="best"'),
        "strict": (False, 'resume="weights"'),
        "map_location": ("cpu", "Leave it out"),
        "filepath": ("x", "ckpt_dir='x'"),
        "custom_objects": ({}, "Leave it out"),
        "epoch": (3, "which="),
        "state_dict": ({}, "model.load_state_dict"),
    },
    "checkpoints": {
        "full": (True, "verify=True"),
        "path": ("x", "ckpt_dir='x'"),
        "output_dir": ("x", "ckpt_dir='x'"),
        "limit": (3, "is the newest"),
        "best": (True, "is_best"),
    },
    "pack": {
        "output": ("a.zip", "archive='a.zip'"),
        "overwrite": (True, "kept fresh"),
        "base_name": ("a.zip", "archive='a.zip'"),
        "exclude": ("*.tmp", "all of the folder"),
    },
    "release": {"timeout": (60, "timeout_s=60"), "unmount": (True, "Leave it out")},
    "run_script": {
        "args": (["--epochs", 3], "one by one"),
        "cwd": ("MyDrive/p", "project='MyDrive/p'"),
        "output_dir": ("MyDrive/o", "keep='MyDrive/o'"),
        "env": ({}, "os.environ"),
    },
    "EarlyStopping": {
        "early_stopping_patience": (3, "patience=3"),
        "restore_best_weights": (True, "colabkit.load(model, ckpt_dir, 'best')"),
        "verbose": (True, "Leave it out"),
    },
}


@pytest.mark.parametrize(
    ("function", "name"), [(call, name) for call, names in TYPED.items() for name in names]
)
def test_a_name_of_another_library_is_answered_with_what_to_write(function, name):
    value, said = TYPED[function][name]
    with pytest.raises(ArgumentError, match=f"{function} has no argument '{name}'") as caught:
        getattr(colabkit, function)(**{name: value})
    assert said in caught.value.hint
    assert caught.value.argument == name


@pytest.mark.parametrize("function", TYPED)
def test_nothing_that_a_function_takes_is_answered_as_a_name_of_another_library(function):
    taken = inspect.signature(getattr(colabkit, function)).parameters
    assert taken
    with pytest.raises(ArgumentError) as caught:
        getattr(colabkit, function)(**dict.fromkeys(taken), banana=1)
    assert caught.value.argument == "banana"


# The same of a Keras model, to which PyTorch's words are of no use.
OF_KERAS = {
    "augment": (True, "keras.layers.RandomFlip"),
    "clipvalue": (0.5, "SGD(clipvalue=0.5)"),
    "cos_lr": (True, "keras.optimizers.schedules"),
    "distributed": (True, "MirroredStrategy"),
    "ema": (True, "use_ema=True"),
    "freeze": (10, "layer.trainable = False"),
    "jit_compile": (True, "model.compile(jit_compile=True)"),
    "limit_train_batches": (10, "steps_per_epoch="),
    "lora_rank": (8, "enable_lora"),
    "lr0": (0.01, "keras.optimizers.Adam"),
    "max_train_epochs": (3, "epochs=3"),
    "max_grad_norm": (1.0, "global_clipnorm"),
    "num_workers": (2, "PyDataset"),
    "optimizer_type": ("adam", "model.compile(optimizer="),
    "patience": (3, "keras.callbacks.EarlyStopping"),
    "pretrained": ("w.h5", "model.load_weights"),
    "reduce_lr": (True, "keras.callbacks.ReduceLROnPlateau"),
    "val_split": (0.2, "validation_split=0.2"),
    "warmup_epochs": (3, "keras.optimizers.schedules"),
}


@pytest.mark.parametrize("name", OF_KERAS)
def test_a_name_is_answered_in_the_words_of_keras_where_the_model_is_keras(name):
    value, said = OF_KERAS[name]
    error = unknown_argument(name, value, known=["epochs"], model_is_keras=True)
    assert said in error.hint


# Names that no table lists, and the argument or thing that they are about; of a module, of Keras'.
UNLISTED = {
    "cooldown_steps": ("scheduler=", "keras.optimizers.schedules"),
    "early_stop_rounds": ("EarlyStopping", "keras.callbacks.EarlyStopping"),
    "fp16_backend": ("precision=", "set_global_policy"),
    "label_column": ("DataLoader", "PyDataset"),
    "log_to_neptune": ("logger=", "logger="),
    "lr_finder_steps": ("scheduler=", "keras.optimizers"),
    "move_metrics_to_cpu": ("metrics=", "model.compile(metrics="),
    "multi_gpu": ("devices=", "Keras places the model"),
    "n_hidden_layers": ("build the model with it", "build the model with it"),
    "on_step_end": ("callbacks=", "callbacks="),
    "save_best_weights": ("save_every=", "save_every="),
    "total_iterations": ("max_steps=", "max_steps="),
    "val_interval": ("eval_every=", "eval_every="),
}


@pytest.mark.parametrize("name", UNLISTED)
def test_a_name_that_no_table_lists_is_answered_by_what_it_is_about(name):
    for model_is_keras, said in enumerate(UNLISTED[name]):
        error = unknown_argument(name, 1, known=["epochs"], model_is_keras=bool(model_is_keras))
        assert said in error.hint


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("use_tpu", "TPU"),  # one letter from use_cpu
        ("x_train", "(x, y)"),  # two from do_train
        ("solver", "optimizer="),  # two from folder
        ("training_step", "loss="),  # one from training_steps
    ],
)
def test_a_word_of_its_own_is_not_taken_for_a_slip_in_another(name, said):
    assert said in unknown_argument(name, 1, known=[], model_is_keras=False).hint


# Calls in the order, or with the names, of other libraries.
@pytest.mark.parametrize(
    ("call", "said"),
    [
        (lambda: colabkit.fit("model", "data"), "Call it as fit(model, (x, y), ckpt_dir, epochs="),
        (lambda: colabkit.fit("model", "x", "y", "runs"), "Call it as fit(model, (x, y), ckpt_dir"),
        (lambda: colabkit.fit("model", "data", output_dir="runs"), "Write ckpt_dir='runs'."),
        (lambda: colabkit.fit("model", x=[1], y=[1]), "data=(x, y)"),
        (lambda: colabkit.fit("model", "x", [1]), "The order is fit(model, data, ckpt_dir)"),
        (lambda: colabkit.Run("runs", "model"), "Call it as Run(ckpt_dir, model=model,"),
        (lambda: colabkit.Run(output_dir="runs", model=1), "Write ckpt_dir='runs'."),
        (lambda: colabkit.load("runs"), "Call it as load(model, ckpt_dir, which='latest')."),
        (lambda: colabkit.load("runs", model=1), "Call it as load(model, ckpt_dir,"),
        (lambda: colabkit.keep("runs"), "Call it as keep(folder, to, every='auto',"),
    ],
)
def test_a_call_that_cannot_be_is_answered_with_one_that_can(call, said):
    with pytest.raises((TypeError, ArgumentError), match=re.escape(said)):
        call()


def test_no_answer_for_a_keras_model_is_in_words_of_pytorch():
    for name in {*_OF_MODULES.renamed, *_OF_MODULES.in_other_words, *_OF_MODULES.subjects}:
        hint = unknown_argument(name, 1, known=[], model_is_keras=True).hint
        assert not re.search(r"torch|DataLoader|\bnn\.|colabkit\.EarlyStopping", hint), name
        # What compile decides is no argument of fit.
        written = re.match(r"(?:Write|Pass) (\w+)=", hint)
        assert not written or written[1] not in COMPILED, name


def test_a_word_that_is_less_alike_than_a_slip_is_not_guessed_at():
    names = OtherNames({"max_epochs": "epochs"})
    assert names.hint("deepspeed", True, known=["seed"]) == ""
    assert names.hint("max_epohcs", 3, known=["seed"]) == "Write epochs=3."
    # Most of its letters are those of the word, and its meaning is another.
    of_logs = OtherNames({"log_every_n_steps": "log_every"})
    assert of_logs.hint("save_every_n_steps", 10, known=["lr"]) == ""
    assert of_logs.hint("lrx", 1, known=["lr"]) == "Did you mean 'lr'?"


def test_a_function_that_answers_keeps_its_name_signature_and_errors():
    @answering(OtherNames())
    def show(folder: str, *, often: int = 1) -> str:
        """Shows it."""
        return folder * often

    assert show("x", often=2) == "xx"
    assert show.__doc__ == "Shows it."
    assert str(inspect.signature(show)) == "(folder: 'str', *, often: 'int' = 1) -> 'str'"
    with pytest.raises(TypeError, match=re.escape("argument: 'folder'. Call it as show(folder,")):
        show()
