"""What counts only as a whole: one file, or a folder that is one checkpoint."""

from __future__ import annotations

import dataclasses
import functools
import glob
import os
import re
from collections.abc import Collection, Iterable, Mapping
from pathlib import PurePosixPath
from typing import TypeVar

from colabkit.keeping.formats import WEIGHTS

T = TypeVar("T")

# What the well-known trainers call the folder of one checkpoint.
WHOLE = (
    *("checkpoint-[0-9]*", "checkpoint_[0-9]*", "ckpt-[0-9]*", "ckpt_[0-9]*", "checkpoints/*"),
    *("global_step[0-9]*", "step-[0-9]*", "step_[0-9]*", "epoch-[0-9]*", "epoch_[0-9]*"),
    *("iter_[0-9]*", "*.ckpt", "*-state"),
)
# A folder there is one checkpoint, or that of a run with numbered ones in it.
_CHECKPOINT_OR_RUN = "checkpoints/*"
_CERTAIN = tuple(pattern for pattern in WHOLE if pattern != _CHECKPOINT_OR_RUN)
# What is only ever in the folder of one checkpoint, whatever that is called.
_SIGNS = frozenset(
    {
        *("random_states_0.pkl", "_CHECKPOINT_METADATA", ".metadata", "model_index.json"),
        *("saved_model.pb", "training_metadata.json"),
    }
)
# DeepSpeed's user may call its folder what he likes.
_SIGN = re.compile(r"mp_rank_\d+_model_states\.pt")
# What is only ever in the folder of a run.
_LOG = re.compile(r".+\.log|events\.out\.tfevents\..*")
# A name that is an instant of a training ("model_epoch3", "epoch=3-loss=0.2", "500_steps"), or
# the best or last one ("best_model", "last", "checkpoint_final"), says so where weights are in it.
_INSTANT = re.compile(
    r"(?:.*[^a-z])?(?:epochs?|ep|(?:global_?)?steps?|iter(?:ation)?s?|ckpts?|checkpoints?|snapshots?"
    r"|updates?)[-_= .]?\d+(?:[-_, ]+(?:[a-z]\w*[=_-]?[-\d.e]+))*"
    r"|\d+[-_ ]?(?:steps?|epochs?|iter(?:ation)?s?)"
)
_ORDINALS = frozenset({"best", "last", "latest", "final", "newest", "current"})
_CHECKPOINTS = frozenset({"model", "models", "checkpoint", "ckpt", "pipeline"})
_PARTS = frozenset(
    {"adapter", "lora", "weights", "state", "policy", "epoch", "step", "merged", "hf"}
)
_MODEL = frozenset(
    {".bin", ".ckpt", ".h5", ".keras", ".msgpack", ".pdparams", ".pt", ".pth", ".safetensors"}
)
_ESCAPED = re.compile(r"\[([*?[])\]")
# A database is what its log and it say together.
_COMPANION = re.compile(r"(.+\.(?:db|db3|sqlite|sqlite3))-(?:wal|journal)")
# Shards and their index, TensorFlow's pairs and Paddle's files are one checkpoint by their names.
_TOGETHER = re.compile(
    r"(?P<shards>.+)-\d{5}-of-\d{5}(?P<kind>\.\w+)|(?P<index>.+)\.index\.json"
    r"|(?P<others>.+)\.(?:index|data-\d{5}-of-\d{5}|pdparams|pdopt|pdema|pdstates|states)"
)
_ENDS = (".index.json", ".index", ".pdparams", ".pdopt", ".pdema", ".pdstates", ".states")
_SHARD = re.compile(r"(.+)-(\d{5})-of-(\d{5})(\.\w+)")
_TRAINERS_FOLDER = re.compile(r"checkpoint-\d+")
_TRAINERS_FILE = re.compile(r"training_args\.bin|rng_state(_\d+)?\.pth")
_ACCELERATE = re.compile(r"(optimizer|scheduler)(_\d+)?\.bin")


def unit_of(path: str, patterns: Iterable[str]) -> str:
    """Returns the folder or files that a file counts with, its own path where it counts alone.

    Args:
        path: Its path in the kept folder.
        patterns: What folders that count as a whole are called; one with "/" is matched
            against the end of a folder's path, one without against its name; a folder that one
            with "!" before it fits is none.

    Example:
        >>> unit_of("out/checkpoint-20/rng/a.pt", ["checkpoint-[0-9]*"])
        'out/checkpoint-20'
        >>> unit_of("out/log.csv", ["checkpoint-[0-9]*"])
        'out/log.csv'
        >>> unit_of("out/study.db-wal", ["checkpoint-[0-9]*"])
        'out/study.db'
        >>> unit_of("out/model-00001-of-00003.safetensors", ["checkpoint-[0-9]*"])
        'out/model.safetensors.*'
    """
    return _whole_folder(path.rpartition("/")[0], tuple(patterns)) or _alone_or_with_its_like(path)


def _alone_or_with_its_like(path: str) -> str:
    if path.endswith(("-wal", "-journal")):
        found = _COMPANION.fullmatch(path)
        return found[1] if found is not None else path
    if not path.endswith(_ENDS) and "-of-" not in path:
        return path
    found = _TOGETHER.fullmatch(path)
    if found is None:
        return path
    stem = found["index"] or found["others"] or found["shards"] + found["kind"]
    return f"{stem}.*"


def folder_of(unit: str, files: Iterable[str]) -> str:
    """Returns the folder that a unit is, "" where it is a file or several side by side.

    Example:
        >>> folder_of("out/step-3", ["out/step-3/a.pt"]), folder_of("ckpt-3.*", ["ckpt-3.index"])
        ('out/step-3', '')
    """
    return unit if all(path.startswith(f"{unit}/") for path in files) else ""


@functools.lru_cache(maxsize=4096)
def _whole_folder(folder: str, patterns: tuple[str, ...]) -> str:
    """Returns the outermost folder that counts as a whole on the way to one, "" for none."""
    wanted, unwanted = _sorted(patterns)
    for each in _way_to(folder):
        if wanted.fit(each) and not unwanted.fit(each):
            return str(each)
    return ""


@dataclasses.dataclass(frozen=True, slots=True)
class _Patterns:
    """Patterns, those of one folder each apart: there may be thousands."""

    paths: frozenset[str]
    others: tuple[str, ...]

    @classmethod
    def of(cls, patterns: Iterable[str]) -> _Patterns:
        paths, others = set(), []
        for each in patterns:
            if each.startswith("/") and glob.escape(_ESCAPED.sub(r"\1", each)) == each:
                paths.add(each)
            else:
                others.append(each)
        return cls(frozenset(paths), tuple(others))

    def fit(self, place: PurePosixPath) -> bool:
        return _path_pattern(str(place)) in self.paths or _fits_any(place, self.others)


@functools.lru_cache(maxsize=16)
def _sorted(patterns: tuple[str, ...]) -> tuple[_Patterns, _Patterns]:
    """Returns what patterns want, and what they do not."""
    unwanted = [each[1:] for each in patterns if each.startswith("!")]
    return _Patterns.of(p for p in patterns if not p.startswith("!")), _Patterns.of(unwanted)


def _path_pattern(path: str) -> str:
    return f"/{glob.escape(path)}"


def _way_to(folder: str) -> list[PurePosixPath]:
    """Returns the folders on the way to one and that itself, the outermost first."""
    place = PurePosixPath(folder)
    return [each for each in (*reversed(place.parents), place) if each.name]


def _fits_any(place: PurePosixPath, patterns: Iterable[str]) -> bool:
    rooted = "/" / place
    return any((rooted if each.startswith("/") else place).match(each) for each in patterns)


def by_unit(files: Mapping[str, T], patterns: Collection[str]) -> dict[str, dict[str, T]]:
    """Returns files by the unit they belong to."""
    units: dict[str, dict[str, T]] = {}
    known: dict[str, str] = {}
    for path, value in files.items():
        folder = path.rpartition("/")[0]
        unit = known.get(folder)
        if unit is None:
            unit = known[folder] = _whole_folder(folder, tuple(patterns))
        units.setdefault(unit or _alone_or_with_its_like(path), {})[path] = value
    return units


def patterns_by(paths: Iterable[str], patterns: Iterable[str]) -> tuple[str, ...]:
    """Returns patterns with what lies in folders: some are one checkpoint, some a run's.

    Example:
        >>> patterns_by(["out/at 3/random_states_0.pkl", "out/log.csv"], ["step-[0-9]*"])
        ('step-[0-9]*', '/out/at 3')
        >>> patterns_by(["checkpoints/cats/checkpoint-5/model.bin"], ["checkpoints/*"])
        ('checkpoints/*', '!/checkpoints', '!/checkpoints/cats')
    """
    found = dict.fromkeys(patterns)
    for path in paths:
        folder, _, name = path.rpartition("/")
        if not folder:
            continue
        if name in _SIGNS or _SIGN.fullmatch(name):
            found.setdefault(_path_pattern(folder))
        suffix = os.path.splitext(name)[1].lower()  # noqa: PTH122  # for each of thousands
        for each in _named_so(folder, suffix in WEIGHTS, suffix in _MODEL):
            found.setdefault(_path_pattern(each))
        has_log = _LOG.fullmatch(name) is not None or folder.endswith("/.hydra")
        for each in _runs_on_the_way(folder, has_log):
            found.setdefault(f"!{_path_pattern(each)}")
    return tuple(found)


@functools.lru_cache(maxsize=4096)
def _named_so(folder: str, has_weights: bool, has_model: bool) -> tuple[str, ...]:
    """Returns the folders on the way to one whose names say that they are one checkpoint.

    Args:
        folder: The folder.
        has_weights: Whether something in it has a name as weights have.
        has_model: Whether that can be nothing else.
    """
    way = _way_to(folder)
    certain = next((n for n, each in enumerate(way) if _fits_any(each, _CERTAIN)), len(way))
    return tuple(
        str(each)
        for each in way[:certain]
        if _is_best_or_last(each.name, _CHECKPOINTS)
        or (has_weights and (_is_best_or_last(each.name) or _is_instant(each.name)))
        or (has_model and each.name.isdecimal() and each == way[-1])
    )


def _is_best_or_last(name: str, of_these: frozenset[str] | None = None) -> bool:
    words = frozenset(re.split(r"[-_ .]+", name.lower()))
    is_one = bool(words & _ORDINALS) and words <= _ORDINALS | _CHECKPOINTS | _PARTS
    return is_one and (of_these is None or bool(words & of_these))


def _is_instant(name: str) -> bool:
    return _INSTANT.fullmatch(name.lower()) is not None


@functools.lru_cache(maxsize=4096)
def _runs_on_the_way(folder: str, has_log: bool) -> tuple[str, ...]:
    """Returns the folders on the way to one that are a run's, and no checkpoint.

    Args:
        folder: The folder.
        has_log: Whether the log of a run is in it.
    """
    way = _way_to(folder)
    for number, each in enumerate(way):
        is_numbered_there = each.name.isdigit() and each.match(_CHECKPOINT_OR_RUN)
        if is_numbered_there or _fits_any(each, _CERTAIN):
            return tuple(map(str, way[:number]))
    if not has_log:
        return ()
    loose = (each for each in way if _is_instant(each.name) or _is_best_or_last(each.name))
    return tuple(map(str, (*loose, *(each for each in way if each.name.isdecimal()))))


def missing_in(names: Collection[str], unit: str = "") -> str:
    """Returns what a checkpoint's folder lacks by the signs of who writes it, "" for nothing.

    Args:
        names: The paths of its files in the folder.
        unit: The path of the folder.

    Source:
        transformers' Trainer writes trainer_state.json last, in folders it calls checkpoint-N;
        accelerate's save_state the random states; torch.distributed.checkpoint its .metadata;
        shards are numbered "of" their count. A loop of one's own has an optimizer.pt, too.

    Example:
        >>> missing_in(["model.safetensors", "training_args.bin"], "out/checkpoint-20")
        'trainer_state.json'
        >>> missing_in(["model.safetensors", "training_args.bin"], "checkpoints/final")
        ''
    """
    is_accelerates = any(_ACCELERATE.fullmatch(name) for name in names)
    if is_accelerates and not any(name.startswith("random_states_") for name in names):
        return "random_states_0.pkl"
    for name in names:
        folder, _, last = name.rpartition("/")
        above = (folder or unit).rpartition("/")[2]
        inside = f"{folder}/" if folder else ""
        if _TRAINERS_FILE.fullmatch(last) and _TRAINERS_FOLDER.fullmatch(above):
            lacking = f"{inside}trainer_state.json"
        elif last.endswith(".distcp"):
            lacking = f"{inside}.metadata"
        else:
            continue
        if lacking not in names:
            return lacking
    return _missing_shard(names)


def signs_in(names: Iterable[str]) -> frozenset[str]:
    """Returns what of a checkpoint's folder its writer writes last.

    Example:
        >>> sorted(signs_in(["model.safetensors", "trainer_state.json", "model/.metadata"]))
        ['trainer_state.json']
    """
    return frozenset(
        name
        for name in names
        if name in {"trainer_state.json", ".metadata"} or name.startswith("random_states_")
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
