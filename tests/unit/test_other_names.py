"""What people of other libraries type, and what setup, dataset, keep and their like answer."""

from __future__ import annotations

import inspect
from typing import Any

import pytest

import colabkit
from colabkit.errors import ArgumentError
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
        "tpu": (True, "gpu=True"),
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
    },
    "keep": {
        "dest": ("x", "to='x'"),
        "save_every": ("5min", "every='5min'"),
        "exclude": ("*.tmp", "skip='*.tmp'"),
        "include": ("*.pt", "skip="),
        "save_total_limit": (3, "copies=3"),
        "verbose": (1, "progress=False"),
        "resume": (True, "Leave it out"),
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


def test_a_word_that_is_less_alike_than_a_slip_is_not_guessed_at():
    names = OtherNames({"max_epochs": "epochs"})
    assert names.hint("deepspeed", True, known=["seed"]) == ""
    assert names.hint("max_epohcs", 3, known=["seed"]) == "Write epochs=3."


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
