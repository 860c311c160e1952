"""A zip of very many members takes little memory and time in proportion."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from tests.unit.datasets.building import STORED, ZipMember, raw_zip

SOAK = os.environ.get("COLABKIT_SOAK") == "1"
COUNTS = [10_000, 100_000, 1_000_000] if SOAK else [5_000, 50_000]
MEMORY_MB = 400
PROGRAM = """
import json, os, pathlib, sys, time
from colabkit.datasets import open_source, plan_archive, unpack
def peak_mb():
    # Not ru_maxrss: a process inherits the one of its parent.
    status = pathlib.Path("/proc/self/status").read_text()
    return int(status.split("VmHWM:")[1].split()[0]) / 1024
began_s = time.monotonic()
source = open_source(sys.argv[1])
plan = plan_archive(source)
planned_s = time.monotonic()
manifest = unpack(plan, source, pathlib.Path(sys.argv[2]))
source.close()
print(json.dumps({
    "files": len(manifest), "plan_s": planned_s - began_s, "unpack_s": time.monotonic() - planned_s,
    "cpu_s": sum(os.times()[:4]), "peak_mb": peak_mb(),
}))
"""


def many(count: int) -> bytes:
    """Returns a zip of so many members of a few bytes in folders of a thousand."""
    return raw_zip(
        [ZipMember(b"%04d/%07d.txt" % (n // 1000, n), b"%d" % n, STORED) for n in range(count)]
    )


@pytest.mark.soak
@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="tells the peak memory")
def test_memory_stays_small_and_time_in_proportion(tmp_path):
    # On a disk that holds a million files in memory, the disk is not what is measured.
    place = Path("/dev/shm") if os.access("/dev/shm", os.W_OK) else tmp_path
    results = []
    for count in COUNTS:
        folder = place / f"colabkit-{os.getpid()}-{count}"
        (folder / "out").mkdir(parents=True)
        try:
            (folder / "a.zip").write_bytes(many(count))
            done = subprocess.run(
                [sys.executable, "-c", PROGRAM, folder / "a.zip", folder / "out"],
                check=True,
                stdout=subprocess.PIPE,
            )
        finally:
            shutil.rmtree(folder)
        results.append(json.loads(done.stdout))
        print(results[-1])
        assert results[-1]["files"] == count
        assert results[-1]["peak_mb"] <= MEMORY_MB
    first, last = results[0], results[-1]
    times = COUNTS[-1] / COUNTS[0]
    # Of processors, its helpers' included: what else the machine does is not counted.
    spent = [r["cpu_s"] for r in (first, last)]
    # The first may gain nothing from processes and pays for their start: that much is allowed.
    assert spent[1] <= 2 * times * spent[0] + 1
