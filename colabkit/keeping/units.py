"""What counts only as a whole: one file, or a folder that is one checkpoint."""

from __future__ import annotations

import functools
import glob
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath
from typing import TypeVar

T = TypeVar("T")

# What the well-known trainers call the folder of one checkpoint.
WHOLE = (
    *("checkpoint-[0-9]*", "checkpoint_[0-9]*", "ckpt-[0-9]*", "ckpt_[0-9]*", "checkpoints/*"),
    *("global_step[0-9]*", "step-[0-9]*", "step_[0-9]*", "epoch-[0-9]*", "epoch_[0-9]*"),
    *("iter_[0-9]*", "*.ckpt", "*-state"),
)
# What is only ever in the folder of one checkpoint, whatever that is called.
_SIGNS = frozenset({"random_states_0.pkl", "_CHECKPOINT_METADATA", ".metadata"})
# A database is what its log and it say together.
_COMPANION = re.compile(r"(.+\.(?:db|db3|sqlite|sqlite3))-(?:wal|journal)")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")
_STATE = re.compile(r"optimizer\.pt|scheduler\.pt|rng_state(_\d+)?\.pth|training_args\.bin")
_ACCELERATE = re.compile(r"(optimizer|scheduler)(_\d+)?\.bin")


def unit_of(path: str, patterns: Iterable[str]) -> str:
    """Returns the folder or file that a file counts with, its own path where it counts alone.

    Args:
        path: Its path in the kept folder.
        patterns: What folders that count as a whole are called; one with "/" is matched
            against the end of a folder's path, one without against its name.

    Example:
        >>> unit_of("out/checkpoint-20/rng/a.pt", ["checkpoint-[0-9]*"])
        'out/checkpoint-20'
        >>> unit_of("out/log.csv", ["checkpoint-[0-9]*"])
        'out/log.csv'
        >>> unit_of("out/study.db-wal", ["checkpoint-[0-9]*"])
        'out/study.db'
    """
    return _whole_folder(path.rpartition("/")[0], tuple(patterns)) or _main_file(path)


def _main_file(path: str) -> str:
    if not path.endswith(("-wal", "-journal")):
        return path
    found = _COMPANION.fullmatch(path)
    return found[1] if found is not None else path


@functools.lru_cache(maxsize=4096)
def _whole_folder(folder: str, patterns: tuple[str, ...]) -> str:
    """Returns the outermost folder that counts as a whole on the way to one, "" for none."""
    place = PurePosixPath(folder)
    for each in (*reversed(place.parents), place):
        if each.name and any(each.match(pattern) for pattern in patterns):
            return str(each)
    return ""


def by_unit(files: Mapping[str, T], patterns: Collection[str]) -> dict[str, dict[str, T]]:
    """Returns files by the unit they belong to."""
    units: dict[str, dict[str, T]] = {}
    known: dict[str, str] = {}
    for path, value in files.items():
        folder = path.rpartition("/")[0]
        unit = known.get(folder)
        if unit is None:
            unit = known[folder] = _whole_folder(folder, tuple(patterns))
        units.setdefault(unit or _main_file(path), {})[path] = value
    return units


def signed_folders(paths: Iterable[str]) -> tuple[str, ...]:
    """Returns patterns for the folders that are one checkpoint by what lies in them.

    Example:
        >>> signed_folders(["out/at 3/random_states_0.pkl", "out/log.csv"])
        ('out/at 3',)
    """
    found = set()
    for path in paths:
        folder, _, name = path.rpartition("/")
        if name in _SIGNS and folder:
            found.add(glob.escape(folder))
    return tuple(sorted(found))


def missing_in(names: Collection[str]) -> str:
    """Returns what a checkpoint's folder lacks by the signs of who writes it, "" for nothing.

    Args:
        names: The paths of its files in the folder.

    Source:
        transformers' Trainer writes trainer_state.json last; accelerate's save_state the random
        states; torch.distributed.checkpoint its .metadata; shards are numbered "of" their count.

    Example:
        >>> missing_in(["model.safetensors", "optimizer.pt"])
        'trainer_state.json'
    """
    if any(_STATE.fullmatch(name) for name in names) and "trainer_state.json" not in names:
        return "trainer_state.json"
    is_accelerates = any(_ACCELERATE.fullmatch(name) for name in names)
    if is_accelerates and not any(name.startswith("random_states_") for name in names):
        return "random_states_0.pkl"
    if any(name.endswith(".distcp") for name in names):
        folders = {name.rpartition("/")[0] for name in names if name.endswith(".distcp")}
        for folder in sorted(folders):
            metadata = f"{folder}/.metadata" if folder else ".metadata"
            if metadata not in names:
                return metadata
    return _missing_shard(names)


def is_signed(names: Collection[str]) -> bool:
    """Whether a checkpoint's folder holds what its writer writes last.

    Example:
        >>> is_signed(["model.safetensors", "trainer_state.json"]), is_signed(["model.safetensors"])
        (True, False)
    """
    return any(
        name == "trainer_state.json"
        or name.startswith("random_states_")
        or name.rpartition("/")[2] == ".metadata"
        for name in names
    )


def _missing_shard(names: Collection[str]) -> str:
    for name in names:
        found = _SHARD.fullmatch(name)
        if found is None:
            continue
        stem, _, count, suffix = found.groups()
        for number in range(1, int(count) + 1):
            wanted = f"{stem}-{number:05d}-of-{count}{suffix}"
            # Some number them from 0.
            zero_based = f"{stem}-{number - 1:05d}-of-{count}{suffix}"
            is_zero_based = f"{stem}-00000-of-{count}{suffix}" in names
            if (zero_based if is_zero_based else wanted) not in names:
                return zero_based if is_zero_based else wanted
    return ""


def natural_key(path: str) -> tuple[tuple[int, int, str], ...]:
    """Returns a key that sorts ``checkpoint-900`` before ``checkpoint-1400``."""
    parts = re.findall(r"\d+|\D+", path)
    return tuple((1, int(p), "") if p.isdigit() else (0, 0, p) for p in parts)
