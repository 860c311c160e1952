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
    },
    "load": {
        "step": (400, "which=400"),
        "best": (True, 'which="best"'),
        "strict": (False, 'resume="weights"'),
        "map_location": ("cpu", "Leave it out"),
    },
    "checkpoints": {"full": (True, "verify=True"), "path": ("x", "ckpt_dir='x'")},
    "pack": {"output": ("a.zip", "archive='a.zip'"), "overwrite": (True, "kept fresh")},
    "release": {"timeout": (60, "timeout_s=60")},
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


def test_no_answer_for_a_keras_model_is_in_words_of_pytorch():
    for name in {*_OF_MODULES.renamed, *_OF_MODULES.in_other_words}:
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
    with pytest.raises(TypeError, match="missing 1 required positional argument"):
        show()
