"""What ``setup()`` costs on a machine where there is nothing to do, first and again."""

from __future__ import annotations

import json
import statistics
import subprocess
import sys

from benchmarks.measuring import show

_CODE = """
import json, time
import colabkit
began_s = time.perf_counter()
colabkit.setup()
first_s = time.perf_counter() - began_s
began_s = time.perf_counter()
colabkit.setup()
print(json.dumps([first_s, time.perf_counter() - began_s]))
"""


def run() -> list[float]:
    command = [sys.executable, "-c", _CODE]
    return list(json.loads(subprocess.run(command, check=True, capture_output=True).stdout))


def main() -> None:
    run()
    first, again = zip(*(run() for _ in range(9)), strict=True)
    show(
        "setup",
        [
            (
                "the first call, imports included",
                f"{statistics.median(first) * 1e3:.0f} ms",
                "wanted <= 300 ms",
            ),
            ("the second call", f"{statistics.median(again) * 1e3:.1f} ms", "wanted <= 20 ms"),
        ],
    )


if __name__ == "__main__":
    main()
