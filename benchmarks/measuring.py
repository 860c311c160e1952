"""Interleaved timings with medians and ratios, and a word on the machine."""

from __future__ import annotations

import os
import platform
import statistics
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

_FRAMEWORKS = ("torch", "tensorflow", "jax", "keras")


def machine() -> str:
    """Returns processor, cores and versions in one line."""
    model = platform.machine()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        names = [line for line in cpuinfo.read_text().splitlines() if "model name" in line]
        model = names[0].split(":")[1].strip() if names else model
    loaded = [(name, sys.modules[name]) for name in _FRAMEWORKS if name in sys.modules]
    versions = ", ".join(
        [f"Python {platform.python_version()}"]
        + [f"{name} {module.__version__}" for name, module in loaded]
    )
    return f"{model}, {os.cpu_count()} cores, {versions}"


def interleaved(
    contenders: Mapping[str, Callable[[], float]], *, rounds: int
) -> dict[str, list[float]]:
    """Runs each in turn, round after round; returns what each gave, the first round left out."""
    results: dict[str, list[float]] = {name: [] for name in contenders}
    for number in range(rounds + 1):
        for name, run in contenders.items():
            value = run()
            if number:
                results[name].append(value)
    return results


def ratio(results: Mapping[str, list[float]], name: str, base: str) -> float:
    """Returns the median of the ratios round by round."""
    pairs = zip(results[name], results[base], strict=True)
    return statistics.median(a / b for a, b in pairs)


def timed(work: Callable[[], object]) -> float:
    """Returns the seconds a call takes."""
    began_s = time.perf_counter()
    work()
    return time.perf_counter() - began_s


def show(title: str, rows: list[tuple[str, str, str]]) -> None:
    """Prints (what, figure, target) aligned, under a title."""
    print(f"{title}\n  {machine()}")
    for what, figure, target in rows:
        print(f"  {what:<58} {figure:>12}   {target}")
