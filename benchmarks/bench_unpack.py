"""Unpacking beside unzip, tar, 7z, bsdtar and Python's own, in memory and on the disk.

``python -m benchmarks.bench_unpack [--place memory|disk] [--rounds N] [--case TEXT]``
"""

from __future__ import annotations

import argparse
import filecmp
import importlib.util
import itertools
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path

from benchmarks.archive_cases import Case, make_cases
from benchmarks.measuring import interleaved, machine, ratio, timed

_MEMORY = Path("/dev/shm")
_NULL = subprocess.DEVNULL
_COMMANDS: dict[str, list[str]] = {
    "unzip": ["unzip", "-q", "{archive}", "-d", "{into}"],
    "tar": ["tar", "-xf", "{archive}", "-C", "{into}"],
    "bsdtar": ["bsdtar", "-xf", "{archive}", "-C", "{into}"],
    "7z": ["7z", "x", "-y", "-bd", "-o{into}", "{archive}"],
}
_counter = itertools.count()


class Place:
    """Where to unpack to: each time into a new folder, all deleted after the last."""

    def __init__(self, parent: Path) -> None:
        self.folder = Path(tempfile.mkdtemp(dir=parent, prefix="bench-"))

    def fresh(self) -> Path:
        """Returns a new empty folder."""
        into = self.folder / str(next(_counter))
        into.mkdir()
        return into


def by_command(name: str, archive: Path, into: Path) -> float:
    """Runs a program; returns the seconds."""
    command = [part.format(archive=archive, into=into) for part in _COMMANDS[name]]
    return timed(lambda: subprocess.run(command, check=True, stdout=_NULL))


def by_python(name: str, archive: Path, into: Path) -> float:
    """Runs a contender in a fresh interpreter; returns the seconds of the work alone."""
    command = [sys.executable, "-m", "benchmarks.unpack_once", name, str(archive), str(into)]
    done = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True)
    return float(done.stdout)


def once(run: Callable[[Path], float], place: Place, original: Path) -> float:
    """Times one unpacking into a new folder, which must then equal the original."""
    into = place.fresh()
    seconds = run(into)
    check_same(original, into)
    shutil.rmtree(into)
    return seconds


def check_same(original: Path, into: Path) -> None:
    """Raises where the two trees differ."""
    names = [str(p.relative_to(original)) for p in original.rglob("*") if p.is_file()]
    found = sum(p.is_file() for p in into.rglob("*"))
    _, other, errors = filecmp.cmpfiles(original, into, names, shallow=False)
    if other or errors or found != len(names):
        raise AssertionError((other[:3], errors[:3], found, len(names)))


def others(case: Case) -> dict[str, Callable[[Path], float]]:
    """Returns the peers that are installed and read this kind of archive."""
    zipped = case.archive.suffix == ".zip"
    peers = [name for name in ("bsdtar", "7z") if shutil.which(name)]
    if not zipped:
        peers.remove("7z") if "7z" in peers else None
    found = {name: partial(by_command, name, case.archive) for name in peers}
    modules = ["zipfile"] if zipped else []
    if case.archive.suffix != ".zst":  # which none of them reads
        modules += ["shutil", "torchvision", "keras"]
    for name in modules:
        if importlib.util.find_spec(name) is not None:
            found[name] = partial(by_python, name, case.archive)
    return found


def bench(case: Case, place: Place, rounds: int) -> None:
    """Times one archive in one place and prints the table."""
    original = case.archive.with_name("large" if "large" in case.archive.name else "small")
    base = case.base if case.rival is None else f"{case.base}, the same files as tar.gz"
    main = {
        "colabkit": partial(by_python, "colabkit", case.archive),
        "colabkit, standard library alone": partial(by_python, "plain", case.archive),
        case.base: partial(by_command, case.base, case.archive),
        base: partial(by_command, case.base, case.rival or case.archive),
        "the limit: the same files from memory": partial(by_python, "limit", original),
    }
    results = interleaved(
        {name: partial(once, run, place, original) for name, run in main.items()}, rounds=rounds
    )
    for name, run in others(case).items():
        results[name] = [once(run, place, original) for _ in range(2)]
    print(f"{case.name} ({case.archive.stat().st_size / 1e6:.0f} MB)")
    print(f"  {'':<40} {'median':>9} {'noise':>6} {'best':>9}    of {base}: {'best':>10}")
    wanted = {"colabkit": case.wanted, "colabkit, standard library alone": case.wanted_plain}
    for name, seconds in results.items():
        median_s, spread_s = statistics.median(seconds), max(seconds) - min(seconds)
        least_s = min(results[base])
        faster = ratio(results, base, name) if name in main else least_s / median_s
        row = (
            f"  {name:<40} {median_s:7.2f} s  ±{spread_s / 2 / median_s:4.0%} {min(seconds):7.2f} s"
        )
        row += f"  {faster:8.2f}x  {least_s / min(seconds):8.2f}x"
        if wanted.get(name):
            row += f"  (wanted {wanted[name]}x)"
        print(row, flush=True)


def main() -> None:
    """Prints every table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--place", choices=("memory", "disk", "both"), default="both")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", default="")
    options = parser.parse_args()
    in_memory = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    print(f"unpack: {machine()}")
    archives = Path(tempfile.mkdtemp(dir=in_memory, prefix="bench-archives-"))
    try:
        cases = [case for case in make_cases(archives) if options.case in case.name]
        for name, parent in (("memory", in_memory), ("disk", Path.cwd())):
            if options.place not in {name, "both"}:
                continue
            print(f"into {'an in-memory file system' if name == 'memory' else 'this disk'}")
            place = Place(parent)
            try:
                for case in cases:
                    bench(case, place, options.rounds)
            finally:
                shutil.rmtree(place.folder)
    finally:
        shutil.rmtree(archives)


if __name__ == "__main__":
    main()
