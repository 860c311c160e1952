"""What a second call of dataset() costs, and copying many small files from a slow folder."""

from __future__ import annotations

import os
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import zipfile
from pathlib import Path

import colabkit
from benchmarks.measuring import interleaved, ratio, show, timed
from benchmarks.slow_folder import MountRefusedError, slowed

N_FILES, N_CLASSES = 20_000, 100
N_SMALL, N_FOLDERS, SMALL_BYTES, LATENCY_S = 2_000, 40, 4_000, 0.040
FULL = bool(os.environ.get("COLABKIT_SOAK"))
# Copying one by one takes minutes: an eighth of the folders tells as much.
SHARE = 1 if FULL else 8


def second_call(folder: Path) -> list[tuple[str, str, str]]:
    """Times a second call on an archive of many files, here and in a fresh process."""
    archive, dest = folder / "many.zip", folder / "many"
    with zipfile.ZipFile(archive, "w") as z:
        for number in range(N_FILES):
            z.writestr(f"{number % N_CLASSES:03}/{number:05}.txt", f"{number}")
    colabkit.dataset(archive, dest, progress=False)
    call = f"colabkit.dataset({str(archive)!r}, {str(dest)!r}, progress=False)"
    program = (
        "import time, colabkit; colabkit.dataset; b = time.perf_counter();"
        f" {call}; print(time.perf_counter() - b)"
    )

    def fresh() -> float:
        done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True)
        return float(done.stdout)

    results = interleaved(
        {
            "warm": lambda: timed(lambda: colabkit.dataset(archive, dest, progress=False)),
            "fresh": fresh,
            "full": lambda: timed(
                lambda: colabkit.dataset(archive, dest, progress=False, verify="full")
            ),
        },
        rounds=7,
    )
    medians_ms = {name: statistics.median(values) * 1e3 for name, values in results.items()}
    return [
        (f"second call, {N_FILES:,} files", f"{medians_ms['warm']:.1f} ms", "wanted <= 50 ms"),
        ("the same in a fresh process", f"{medians_ms['fresh']:.1f} ms", "wanted <= 50 ms"),
        ('the same with verify="full"', f"{medians_ms['full']:.0f} ms", ""),
    ]


def small_files(folder: Path) -> list[tuple[str, str, str]]:
    """Times copying many small files from a slow folder."""
    draw = random.Random(0)
    plain = folder / "plain"
    for number in range(N_SMALL):
        place = number % N_FOLDERS
        path = plain / "all" / f"{place % SHARE}" / f"{place:02}" / f"{number:04}.bin"
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(draw.randbytes(SMALL_BYTES))
        os.utime(path, (1, 1))
    dest, copied = folder / "dest", folder / "copied"

    with slowed(plain, folder / "slow", latency_s=LATENCY_S) as slow:

        def ours() -> float:
            shutil.rmtree(dest, ignore_errors=True)
            shutil.rmtree(folder / ".colabkit", ignore_errors=True)
            return timed(lambda: colabkit.dataset(slow / "all", dest, progress=False))

        def copytree() -> float:
            shutil.rmtree(copied, ignore_errors=True)
            return SHARE * timed(lambda: shutil.copytree(slow / "all/0", copied))

        results = interleaved({"dataset": ours, "copytree": copytree}, rounds=1)
        again_s = timed(lambda: colabkit.dataset(slow / "all", dest, progress=False))
    same = all(
        (dest / path.relative_to(plain / "all")).read_bytes() == path.read_bytes()
        for path in plain.rglob("*.bin")
    )
    if not same:
        message = "The copy differs."
        raise AssertionError(message)
    medians_s = {name: statistics.median(values) for name, values in results.items()}
    note = "" if SHARE == 1 else f" ({SHARE} x that of an eighth)"
    what = f"{N_SMALL:,} files in {N_FOLDERS} folders, {LATENCY_S * 1e3:.0f} ms a call"
    return [
        (f"dataset(), {what}", f"{medians_s['dataset']:.1f} s", ""),
        (f"shutil.copytree{note}", f"{medians_s['copytree']:.1f} s", ""),
        ("ratio", f"{ratio(results, 'copytree', 'dataset'):.1f} x", "wanted >= 12 x"),
        ("second call on the same folder", f"{again_s:.1f} s", ""),
    ]


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        show("datasets", second_call(Path(name)))
    try:
        with tempfile.TemporaryDirectory() as name:
            show("many small files", small_files(Path(name)))
    except MountRefusedError as error:
        print(f"many small files\n  not timed: {error}")


if __name__ == "__main__":
    main()
