"""A first ``dataset()`` in a fresh interpreter beside ``unzip -q``, imports counted.

And a later one in a running interpreter, as a notebook's is, from which ``unzip`` is started too.

``python -m benchmarks.bench_first_call [--rounds N] [--case TEXT] [--busy N] [--base FOLDER]``
"""

from __future__ import annotations

import argparse
import itertools
import os
import resource
import shutil
import statistics
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import numpy as np

import colabkit
from benchmarks.measuring import machine, ratio, timed

_MEMORY = Path("/dev/shm")
_CALL = "import colabkit, sys; colabkit.dataset(sys.argv[1], sys.argv[2], progress=False)"
_WITHOUT_ISAL = (
    "import sys; sys.modules.update(dict.fromkeys(('isal', 'isal.isal_zlib', 'isal.igzip_lib')))\n"
)
_BUSY = "while True: pass"
_CASES = {
    "8,000 files of 19 kB, deflated": (8_000, 19_000, zipfile.ZIP_DEFLATED),
    "8,000 files of 19 kB, stored": (8_000, 19_000, zipfile.ZIP_STORED),
    "4 tables of 17 MB, deflated": (4, 0, zipfile.ZIP_DEFLATED),
    "1,000 files of 19 kB, deflated": (1_000, 19_000, zipfile.ZIP_DEFLATED),
    "100 files of 19 kB, deflated": (100, 19_000, zipfile.ZIP_DEFLATED),
    "1 file of 19 kB, deflated": (1, 19_000, zipfile.ZIP_DEFLATED),
    "200,000 files of 200 bytes, deflated": (200_000, 200, zipfile.ZIP_DEFLATED),
}


def contents(count: int, nbytes: int) -> Iterator[tuple[str, bytes]]:
    """Yields files, half noise and half digits; or large tables where no size is given."""
    rng = np.random.default_rng(0)
    for number in range(count):
        if not nbytes:
            values = np.cumsum(rng.normal(0, 0.1, (600_000, 3)), axis=0).round(3).tolist()
            rows = (f"{n},{a},{b},{c}\n" for n, (a, b, c) in enumerate(values))
            yield f"tables/{number}.csv", "".join(rows).encode()
            continue
        noise = rng.integers(0, 64, nbytes // 2, np.uint8).tobytes()
        digits = ",".join(map(str, rng.integers(0, 1000, nbytes // 2).tolist()))
        yield f"files/{number % 100:02}/{number:06}.bin", noise + digits[: nbytes // 2].encode()


def make_zip(path: Path, count: int, nbytes: int, method: int) -> Path:
    """Writes a case's archive."""
    with zipfile.ZipFile(path, "w", method) as archive:
        for name, data in contents(count, nbytes):
            archive.writestr(name, data)
    return path


def by_unzip(archive: Path, into: Path) -> None:
    """Unpacks as people do it today."""
    subprocess.run(["unzip", "-q", archive, "-d", into], check=True)


def by_colabkit(program: str, package: Path, archive: Path, into: Path) -> None:
    """Unpacks in a fresh interpreter."""
    environ = {**os.environ, "PYTHONPATH": str(package)}
    # What is installed is compiled already.
    environ.pop("PYTHONDONTWRITEBYTECODE", None)
    command = [sys.executable, "-c", program, archive, into]
    subprocess.run(command, check=True, env=environ, cwd=into.parent)


def in_session(archive: Path, into: Path) -> None:
    """Unpacks in this interpreter, which loads what it needs in the round that is not counted."""
    colabkit.dataset(archive, into, progress=False)


@contextmanager
def busy(loops: int) -> Iterator[None]:
    """Keeps cores busy meanwhile."""
    started = [subprocess.Popen([sys.executable, "-c", _BUSY]) for _ in range(loops)]
    try:
        yield
    finally:
        for process in started:
            process.kill()
            process.wait()


def processor_s() -> float:
    """Returns the processor time of this process and of all children that have ended."""
    used = map(resource.getrusage, (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    return sum(each.ru_utime + each.ru_stime for each in used)


def bench(name: str, folder: Path, packages: dict[str, Path], rounds: int) -> None:
    """Times one case, each contender in turn, and prints a row for each."""
    archive = make_zip(folder / "archive.zip", *_CASES[name])
    contenders: dict[str, Callable[[Path], None]] = {"unzip": partial(by_unzip, archive)}
    for label, package in packages.items():
        contenders[label] = partial(by_colabkit, _CALL, package, archive)
    plain = partial(by_colabkit, _WITHOUT_ISAL + _CALL, next(iter(packages.values())), archive)
    contenders["colabkit without isal"] = plain
    contenders["colabkit in a session"] = partial(in_session, archive)
    seconds: dict[str, list[float]] = {label: [] for label in contenders}
    used: dict[str, list[float]] = {label: [] for label in contenders}
    for number in itertools.count():
        for label, run in contenders.items():
            into = folder / "out" / "x"
            into.parent.mkdir()
            before_s = processor_s()
            wall_s = timed(partial(run, into))
            if number:  # the first round warms what is read
                seconds[label].append(wall_s)
                used[label].append(processor_s() - before_s)
            shutil.rmtree(into.parent)
        if number == rounds:
            break
    print(f"{name} ({archive.stat().st_size / 1e6:.1f} MB)")
    for label in contenders:
        share = statistics.median(used[label]) / statistics.median(used["unzip"])
        print(
            f"  {label:<24} {statistics.median(seconds[label]):7.3f} s"
            f"  {ratio(seconds, label, 'unzip'):7.2f} of unzip"
            f"  processor {statistics.median(used[label]):7.3f} s  {share:7.2f} of unzip",
            flush=True,
        )


def main() -> None:
    """Prints every table."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--case", default="")
    parser.add_argument("--busy", type=int, default=0, help="loops beside it")
    parser.add_argument("--base", type=Path, help="a folder with another colabkit, to compare")
    options = parser.parse_args()
    packages = {"colabkit": Path(__file__).parents[1]}
    if options.base is not None:
        packages["colabkit before"] = options.base
    print(f"first_call: {machine()}, {options.busy} busy loops, load {os.getloadavg()[0]:.1f}")
    parent = _MEMORY if os.access(_MEMORY, os.W_OK) else Path(tempfile.gettempdir())
    for name in (name for name in _CASES if options.case in name):
        with tempfile.TemporaryDirectory(dir=parent) as folder, busy(options.busy):
            bench(name, Path(folder), packages, options.rounds)


if __name__ == "__main__":
    main()
