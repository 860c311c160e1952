"""Stand-ins for trainers: they write, rotate and load their checkpoints as the real ones do.

What they save is a state that only its step determines, so that a resume can be checked bit for
bit; what cannot be loaded raises, as it does in the trainer it stands for.
"""

from __future__ import annotations

import io
import json
import shutil
import tempfile
import zipfile
from pathlib import Path

import numpy as np
from safetensors.numpy import load_file, save_file

_LIMIT = 2


def state_at(step: int, nbytes: int) -> np.ndarray:
    """Returns the weights after so many steps; no two steps share any bytes to speak of."""
    return np.random.default_rng(step).random(max(1, nbytes // 8))


def _archive(step: int, nbytes: int) -> bytes:
    """Returns what torch.save makes: a zip of stored members, its directory at the end."""
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", zipfile.ZIP_STORED) as archive:
        archive.writestr("archive/data.pkl", json.dumps({"step": step}))
        archive.writestr("archive/data/0", state_at(step, nbytes).tobytes())
    return file.getvalue()


def _step_in(path: Path) -> int:
    with zipfile.ZipFile(path) as archive:
        step = int(json.loads(archive.read("archive/data.pkl"))["step"])
        data = np.frombuffer(archive.read("archive/data/0"))
    _check(step, data)
    return step


def _check(step: int, data: np.ndarray) -> None:
    if not np.array_equal(data, state_at(step, data.nbytes)):
        message = f"the weights are not those of step {step}"
        raise ValueError(message)


class Trainer:
    """Hugging Face's Trainer: a folder for each checkpoint, trainer_state.json last, two kept."""

    newest = "checkpoint-*"

    def __init__(self, folder: Path, nbytes: int) -> None:
        self.folder, self.nbytes = folder, nbytes

    def save(self, step: int) -> None:
        """Writes part after part in place, then removes the oldest folder."""
        out = self.folder / f"checkpoint-{step}"
        out.mkdir(parents=True, exist_ok=True)
        save_file({"weight": state_at(step, self.nbytes // 3)}, out / "model.safetensors")
        for name in ("training_args.bin", "scheduler.pt", "rng_state.pth"):
            (out / name).write_bytes(_archive(step, 2_000))
        (out / "optimizer.pt").write_bytes(_archive(step, 2 * self.nbytes // 3))
        (out / "trainer_state.json").write_text(json.dumps({"global_step": step}))
        for old in sorted(self._found(), key=self._number)[:-_LIMIT]:
            shutil.rmtree(old)

    def find(self) -> Path | None:
        """Finds the folder of the largest number, as get_last_checkpoint does."""
        return max(self._found(), key=self._number, default=None)

    def load(self, newest: Path) -> int:
        """Reads every part."""
        step = int(json.loads((newest / "trainer_state.json").read_text())["global_step"])
        _check(step, load_file(newest / "model.safetensors")["weight"])
        for name in ("optimizer.pt", "scheduler.pt", "rng_state.pth"):
            if _step_in(newest / name) != step:
                message = f"{name} is of another step"
                raise ValueError(message)
        return step

    def _found(self) -> list[Path]:
        return [each for each in self.folder.glob("checkpoint-*") if each.is_dir()]

    def _number(self, folder: Path) -> int:
        return int(folder.name.rpartition("-")[2])


class Yolo:
    """Ultralytics' YOLO: last.pt and best.pt rewritten in place, a table that grows."""

    newest = "weights/last.pt"

    def __init__(self, folder: Path, nbytes: int) -> None:
        self.folder, self.nbytes = folder, nbytes

    def save(self, step: int) -> None:
        """Serialises once, and writes that to one or two names."""
        (self.folder / "weights").mkdir(parents=True, exist_ok=True)
        with (self.folder / "results.csv").open("a") as table:
            table.write(f"{step},{1 / step:.5f}\n")
        data = _archive(step, self.nbytes)
        (self.folder / "weights/last.pt").write_bytes(data)
        if step % 3 == 0:
            (self.folder / "weights/best.pt").write_bytes(data)

    def find(self) -> Path | None:
        """Finds last.pt."""
        path = self.folder / "weights/last.pt"
        return path if path.exists() else None

    def load(self, newest: Path) -> int:
        """Reads it."""
        return _step_in(newest)


class Lightning:
    """Lightning's ModelCheckpoint: a file by its step, moved into place, the one before removed."""

    newest = "checkpoints/*.ckpt"

    def __init__(self, folder: Path, nbytes: int) -> None:
        self.folder, self.nbytes = folder, nbytes

    def save(self, step: int) -> None:
        """Moves it into place; the checkpoint before goes when the new one is there."""
        there = self.folder / "checkpoints"
        there.mkdir(parents=True, exist_ok=True)
        before = list(there.glob("epoch=0-step=*.ckpt"))
        with tempfile.NamedTemporaryFile(delete=False) as aside:
            aside.write(_archive(step, self.nbytes))
        shutil.move(aside.name, there / f"epoch=0-step={step}.ckpt")
        for old in before:
            old.unlink()

    def find(self) -> Path | None:
        """Finds the file of the largest step."""
        found = self.folder.glob("checkpoints/*.ckpt")
        return max(found, key=lambda path: int(path.stem.rpartition("=")[2]), default=None)

    def load(self, newest: Path) -> int:
        """Reads it."""
        return _step_in(newest)


class Accelerate:
    """Accelerate's save_state: a numbered folder, the oldest removed before the new is written."""

    newest = "checkpoints/checkpoint_*"

    def __init__(self, folder: Path, nbytes: int) -> None:
        self.folder, self.nbytes = folder, nbytes

    def save(self, step: int) -> None:
        """Removes first, then writes part after part, the random states last."""
        there = self.folder / "checkpoints"
        there.mkdir(parents=True, exist_ok=True)
        for old in sorted(there.iterdir(), key=self._number)[: 1 - _LIMIT]:
            shutil.rmtree(old)
        out = there / f"checkpoint_{step}"
        out.mkdir()
        save_file({"weight": state_at(step, self.nbytes // 3)}, out / "model.safetensors")
        (out / "optimizer.bin").write_bytes(_archive(step, 2 * self.nbytes // 3))
        (out / "scheduler.bin").write_bytes(_archive(step, 2_000))
        (out / "random_states_0.pkl").write_bytes(_archive(step, 2_000))

    def find(self) -> Path | None:
        """Finds the folder of the largest number."""
        found = self.folder.glob("checkpoints/checkpoint_*")
        return max(found, key=self._number, default=None)

    def load(self, newest: Path) -> int:
        """Reads every part."""
        step = self._number(newest)
        _check(step, load_file(newest / "model.safetensors")["weight"])
        for name in ("optimizer.bin", "scheduler.bin", "random_states_0.pkl"):
            if _step_in(newest / name) != step:
                message = f"{name} is of another step"
                raise ValueError(message)
        return step

    def _number(self, folder: Path) -> int:
        return int(folder.name.rpartition("_")[2])


PATTERNS = {"trainer": Trainer, "yolo": Yolo, "lightning": Lightning, "accelerate": Accelerate}
