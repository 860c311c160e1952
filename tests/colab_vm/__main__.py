"""Runs a notebook on a machine that is taken away, then again on a fresh one.

python -m tests.colab_vm notebook.ipynb --kill-after 20s
"""

from __future__ import annotations

import argparse
import contextlib
import dataclasses
import re
import sys
import tempfile
import threading
import time
from pathlib import Path

import nbformat

from tests.colab_vm.abilities import missing_ability
from tests.colab_vm.cloud import Cloud
from tests.colab_vm.kernel import CellResult, MachineEndedError
from tests.colab_vm.machine import Machine
from tests.colab_vm.platforms import Platform
from tests.colab_vm.rules import DriveRules

_UNITS_S = {"": 1.0, "s": 1.0, "min": 60.0, "h": 3600.0}


@dataclasses.dataclass(frozen=True)
class Session:
    """How one machine's run of the notebook ended."""

    cells_done: int
    cells: int
    error: str | None = None
    was_killed: bool = False

    @property
    def is_complete(self) -> bool:
        return self.cells_done == self.cells


def seconds(text: str) -> float:
    """Reads a duration: ``20s``, ``1.5min``, ``2h`` or plain seconds."""
    match = re.fullmatch(r"([0-9.]+)\s*(s|min|h|)", text)
    if match is None:
        msg = f"{text!r} is no duration: write 20s, 1.5min or 2h"
        raise argparse.ArgumentTypeError(msg)
    return float(match[1]) * _UNITS_S[match[2]]


def run_notebook(machine: Machine, cells: list[str], *, kill_after_s: float | None) -> Session:
    """Runs the cells in order, and takes the machine away in the middle when told to."""
    kernel = machine.kernel
    timer = threading.Timer(kill_after_s or 0, machine.pull_the_plug)
    if kill_after_s is not None:
        timer.start()
    done = 0
    try:
        for number, code in enumerate(cells, start=1):
            print(f"--- cell {number}/{len(cells)}")
            result: CellResult = kernel.finish(kernel.begin(code), on_text=_show)
            if result.result:
                print(result.result)
            if result.error is not None:
                print(result.traceback)
                return Session(done, len(cells), error=result.error)
            done = number
    except MachineEndedError:
        return Session(done, len(cells), was_killed=True)
    finally:
        timer.cancel()
        if kill_after_s is not None:
            timer.join()
    return Session(done, len(cells))


def _show(text: str) -> None:
    sys.stdout.write(text)
    sys.stdout.flush()


def main(arguments: list[str] | None = None) -> int:
    options = _parse(arguments)
    reason = missing_ability()
    if reason is not None:
        print(f"No machine can run here: {reason}.", file=sys.stderr)
        return 2
    document = nbformat.read(options.notebook, as_version=4)
    cells = [cell.source for cell in document.cells if cell.cell_type == "code"]
    rules = DriveRules(upload_delay_s=options.upload_delay, upload_bytes_per_s=options.upload_rate)
    with contextlib.ExitStack() as stack:
        temporary = stack.enter_context(tempfile.TemporaryDirectory())
        cloud = stack.enter_context(Cloud(options.cloud or Path(temporary, "cloud")))
        for number in range(options.kills + 1):
            kill_after_s = options.kill_after if number < options.kills else None
            session = _session(cloud, cells, options, rules, number, kill_after_s)
            if session.error is not None:
                return 1
            if session.is_complete:
                return 0
    return 1


def _session(
    cloud: Cloud,
    cells: list[str],
    options: argparse.Namespace,
    rules: DriveRules,
    number: int,
    kill_after_s: float | None,
) -> Session:
    print(f"=== machine {number + 1} ({options.platform})")
    began = time.monotonic()
    with cloud.machine(options.platform, rules=rules) as machine:
        session = run_notebook(machine, cells, kill_after_s=kill_after_s)
    took_s = time.monotonic() - began
    how = "was killed" if session.was_killed else "ended"
    print(
        f"=== machine {number + 1} {how} after {took_s:.1f} s with {session.cells_done} of "
        f"{session.cells} cells done; the cloud has {len(cloud.files())} files, "
        f"{cloud.used_bytes():,} bytes with the Trash"
    )
    return session


def _parse(arguments: list[str] | None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="python -m tests.colab_vm", description=__doc__)
    parser.add_argument("notebook", type=Path)
    parser.add_argument("--kill-after", type=seconds, default=20.0, metavar="20s")
    parser.add_argument("--kills", type=int, default=1, help="how many machines are taken away")
    parser.add_argument("--platform", type=Platform, default=Platform.CPU, choices=list(Platform))
    parser.add_argument("--cloud", type=Path, help="a folder to keep; a temporary one by default")
    parser.add_argument("--upload-delay", type=seconds, default=1.0, metavar="1s")
    parser.add_argument("--upload-rate", type=int, metavar="BYTES_PER_S")
    return parser.parse_args(arguments)


if __name__ == "__main__":
    sys.exit(main())
