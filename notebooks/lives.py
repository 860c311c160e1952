"""A notebook on Colab's double: run from the top, its machine taken away in training, run again.

``two_lives(cloud, "quickstart_pytorch")`` gives what each cell showed the second time.
"""

from __future__ import annotations

import contextlib
import json
import shutil
import tarfile
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import nbformat

import colabkit
from colabkit.errors import CheckpointNotFoundError
from tests.colab_vm import CellResult, Cloud, DriveRules, Machine, MachineEndedError, Platform
from tests.colab_vm.machine import PYTHONPATH

FOLDER = Path(__file__).parent
NAMES = sorted(path.stem for path in FOLDER.glob("*.ipynb"))
RULES = DriveRules(upload_delay_s=0.05)
# Training is to be under way still when what it has saved has arrived, on however slow a computer:
# where the machine will be taken away, each pause that a notebook makes in its steps lasts longer
# than the one before, and soon it hardly goes on.
_GROWTH, _LONGEST = 1.03, 200
_SLOWER = f"""
import itertools, sys, threading, time
plainly, pauses = time.sleep, itertools.count()
def sleep(seconds):
    is_training = "ipykernel" in sys.modules or sys.argv[0].endswith("train.py")
    is_pause = threading.current_thread() is threading.main_thread() and 0.005 < seconds < 3
    if is_training and is_pause:
        seconds *= min({_GROWTH} ** next(pauses), {_LONGEST})
    plainly(seconds)
time.sleep = sleep
"""
_YOLO = (FOLDER.parent / "tests/yolo_stand_in.py").read_text()
_RUNS = "/kaggle/working/MyDrive/runs"


@dataclass(frozen=True)
class Needs:
    """What a notebook's machine is, and has beyond what a fresh one has.

    Attributes:
        packages: What has to be installed.
        platform: The kind of machine.
        files: What it has from the start, by path.
        kept: What its trainer's checkpoint is called, where ``keep`` keeps it; "" where it is
            a run's.
        run: The run folder whose training is under way when the machine goes.
    """

    packages: tuple[str, ...] = ("torch",)
    platform: Platform = Platform.CPU
    files: dict[str, str] = field(default_factory=dict)
    kept: str = ""
    run: str = "*"


NEEDS = {
    "boosters": Needs(("xgboost",)),
    "quickstart_jax": Needs(("jax", "optax")),
    "quickstart_keras": Needs(("keras",)),
    "fine_tuning": Needs(run="two_phases"),
    "hf_trainer": Needs(("torch", "transformers", "accelerate", "peft"), kept="checkpoint-"),
    "lightning": Needs(("torch", "lightning"), kept=".ckpt"),
    "cloned_script": Needs(kept="last.pt"),
    "kaggle_sessions": Needs(platform=Platform.KAGGLE),
    "yolo": Needs(
        files={
            "/content/ultralytics/__init__.py": _YOLO,
            "/content/ultralytics-8.4.0.dist-info/METADATA": "Name: ultralytics\nVersion: 8.4.0\n",
        },
        kept="weights/last.pt",
    ),
}


def needs_of(name: str) -> Needs:
    """Returns what a notebook needs."""
    return NEEDS.get(name, Needs())


def document(name: str) -> nbformat.NotebookNode:
    """Returns a notebook as it is saved."""
    return nbformat.read(FOLDER / f"{name}.ipynb", as_version=4)


def code_cells(name: str) -> list[str]:
    """Returns the source of its cells."""
    return [cell.source for cell in document(name).cells if cell.cell_type == "code"]


def machine_for(name: str, cloud: Cloud, *, is_doomed: bool = False) -> Machine:
    """Returns a fresh machine for a notebook; one that is doomed pauses longer in its steps."""
    needs = needs_of(name)
    files = {"/content/sitecustomize.py": _SLOWER} if is_doomed else {}
    environ = {"PYTHONPATH": f"/content:{PYTHONPATH}"} if is_doomed else {}
    return cloud.machine(
        needs.platform, rules=RULES, files={**needs.files, **files}, environ=environ
    )


def run_all(machine: Machine, name: str) -> list[CellResult]:
    """Runs a notebook from top to bottom; returns what each cell showed."""
    return [machine.run_cell(code, timeout_s=None).check() for code in code_cells(name)]


def two_lives(cloud: Cloud, name: str) -> list[CellResult]:
    """Runs a notebook, takes its machine away in training, and runs it on another to the end.

    Raises:
        RuntimeError: It ended before anything was saved.
    """
    machine = machine_for(name, cloud, is_doomed=True)
    if needs_of(name).platform is Platform.KAGGLE:
        return _two_sessions(machine, cloud, name)
    try:
        with taken_away(machine, lambda: _has_saved(cloud, name)):
            run_all(machine, name)
    except MachineEndedError:
        return run_all(machine_for(name, cloud), name)
    message = f"{name} ended before anything of it was saved"
    raise RuntimeError(message)


def _two_sessions(machine: Machine, cloud: Cloud, name: str) -> list[CellResult]:
    """As on Kaggle: the working folder becomes a version, which the next session has as input."""
    version = cloud.folder / "version"

    def is_saved() -> bool:
        if not has_trained(machine.path(_RUNS)):
            return False
        shutil.copytree(machine.path("/kaggle/working"), version, dirs_exist_ok=True)
        return True

    with contextlib.suppress(MachineEndedError), taken_away(machine, is_saved):
        run_all(machine, name)
    second = machine_for(name, cloud)
    shutil.copytree(version, second.path("/kaggle/input/my-notebook"))
    return run_all(second, name)


@contextlib.contextmanager
def taken_away(machine: Machine, is_time: Callable[[], bool]) -> Iterator[None]:
    """Takes a machine away as soon as it is time, while what is inside runs on it."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            # What is looked at may be replaced meanwhile.
            with contextlib.suppress(OSError, ValueError, shutil.Error, tarfile.TarError, EOFError):
                if is_time():
                    machine.pull_the_plug()
                    return

    watcher = threading.Thread(target=watch, name="watcher")
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def _has_saved(cloud: Cloud, name: str) -> bool:
    """Whether what a notebook would go on from is in the cloud."""
    needs = needs_of(name)
    if needs.kept:
        return _has_kept(cloud, needs.kept)
    return has_trained(cloud.path("runs"), needs.run)


def has_trained(runs: Path, name: str = "*") -> bool:
    """Whether a run folder has a whole checkpoint of a trained step."""
    found = []
    for folder in runs.glob(name):
        # A manifest may be replaced, and the folder be new, while it is looked at.
        with contextlib.suppress(CheckpointNotFoundError, FileNotFoundError):
            found += colabkit.checkpoints(folder, verify=True)
    return any(info.step and not info.problem for info in found)


def _has_kept(cloud: Cloud, checkpoint: str) -> bool:
    """Whether the cloud has a version with a checkpoint, and every byte of it."""
    files = cloud.files()
    manifests = [path for path in files if "/versions/" in path and path.endswith(".json")]
    return any(_is_whole(cloud, path, files, checkpoint) for path in manifests)


def _is_whole(cloud: Cloud, path: str, files: dict[str, int], checkpoint: str) -> bool:
    folder = path.partition("/versions/")[0]
    version = json.loads(cloud.path(path).read_bytes())["version"]
    sizes = {f"{folder}/files/{blob}": size for blob, (size, _) in version["blobs"].items()}
    if any(files.get(blob) != size for blob, size in sizes.items()):
        return False
    names = [*version["files"]]
    for bundle in version["bundles"]:
        with tarfile.open(cloud.path(f"{folder}/files/{bundle}")) as small_files:
            names += small_files.getnames()
    return any(checkpoint in name for name in names)
