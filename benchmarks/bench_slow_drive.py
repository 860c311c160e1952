"""Unpacking straight from a slow Drive beside copying the archive first.

``python -m benchmarks.bench_slow_drive [--megabytes N]``
"""

from __future__ import annotations

import argparse
import os
import shutil
import subprocess
import tempfile
import zipfile
from pathlib import Path

import numpy as np

from benchmarks.measuring import machine, timed
from benchmarks.slow_source import MODELS, SlowSource
from colabkit.datasets import Source, open_source, plan_archive, unpack

_FILE_BYTES = 20_000


def make_zip(path: Path, megabytes: int) -> None:
    """Writes a zip of many small files and one large, hard to compress as photographs are."""
    rng = np.random.default_rng(0)
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as packed:
        for number in range(megabytes * 1_000_000 * 2 // 3 // _FILE_BYTES):
            data = rng.integers(0, 200, _FILE_BYTES, dtype=np.uint8).tobytes()
            packed.writestr(f"photos/{number % 50}/{number}.jpg", data)
        large = rng.integers(0, 200, megabytes * 1_000_000 // 3, dtype=np.uint8).tobytes()
        packed.writestr("features.bin", large)


def main() -> None:
    """Prints a table, one line a model."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--megabytes", type=int, default=341)
    options = parser.parse_args()
    parent = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    folder = Path(tempfile.mkdtemp(dir=parent))
    try:
        archive = folder / "a.zip"
        make_zip(archive, options.megabytes)
        local_s = timed(lambda: _unpack(open_source(archive), folder / "local"))
        unzip = ["unzip", "-q", str(archive), "-d", str(folder / "unzip")]
        unzip_s = timed(lambda: subprocess.run(unzip, check=True))
        size = archive.stat().st_size
        print(f"slow Drive: {size / 1e6:.0f} MB zip\n  {machine()}")
        print(f"  unpacked from memory in {local_s:.2f} s, by unzip in {unzip_s:.2f} s")
        for number, model in enumerate(MODELS):
            source = SlowSource(archive, model)
            ours_s = timed(lambda: _unpack(source, folder / str(number)))  # noqa: B023
            copy_s = SlowSource(archive, model).copy_s(size) + unzip_s
            bound_s = max(source.floor_s, local_s)
            print(
                f"  {model.name:<36} {ours_s:6.2f} s  {ours_s / bound_s:5.2f}x the bound "
                f"(wanted <= 1.6)  {source.bytes_fetched / size:5.3f}x read (<= 1.05)  "
                f"copy, then unzip {copy_s:6.2f} s",
                flush=True,
            )
    finally:
        shutil.rmtree(folder)


def _unpack(source: Source, into: Path) -> None:
    into.mkdir()
    unpack(plan_archive(source), source, into)
    source.close()


if __name__ == "__main__":
    main()
