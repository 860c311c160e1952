"""What ``import colabkit`` costs a fresh interpreter."""

from __future__ import annotations

import statistics
import subprocess
import sys

from benchmarks.measuring import interleaved, show, timed


def run(code: str) -> float:
    command = [sys.executable, "-c", code]
    return timed(lambda: subprocess.run(command, check=True)) * 1e3


def main() -> None:
    results = interleaved(
        {"bare": lambda: run("pass"), "import": lambda: run("import colabkit")}, rounds=15
    )
    pairs = zip(results["import"], results["bare"], strict=True)
    cost_ms = statistics.median(a - b for a, b in pairs)
    show("import", [("import colabkit", f"{cost_ms:.1f} ms", "wanted <= 60 ms")])


if __name__ == "__main__":
    main()
