"""The driver's facts through NVIDIA's command line tool."""

from __future__ import annotations

import csv
import dataclasses
import re
import shutil
import subprocess
from collections.abc import Callable, Iterator, Sequence

from colabkit.runtime.gpus import ComputeCapability, DriverReport, Gpu, GpuProcess
from colabkit.runtime.starting import run_to_end

_TIMEOUT_S = 10.0
_MIB = 1 << 20
_FIELDS: tuple[str, ...] = (
    "uuid",
    "name",
    "memory.total",
    "memory.free",
    "driver_version",
    "mig.mode.current",
)
_FORMAT = "--format=csv,noheader,nounits"
_SLICE = re.compile(r"^\s+MIG (\S+)\s+Device", re.MULTILINE)
_CARD = re.compile(r"^GPU \d+:.*\(UUID: (GPU-[^)]+)\)", re.MULTILINE)


@dataclasses.dataclass(frozen=True, slots=True)
class Answer:
    """What the tool printed.

    Attributes:
        text: Its output, both streams.
        ok: Whether it ended well.
    """

    text: str
    ok: bool


def run_smi(arguments: Sequence[str]) -> Answer | None:
    """Runs the tool; returns None when it is not installed."""
    program = shutil.which("nvidia-smi")
    if program is None:
        return None
    try:
        done = run_to_end(
            [program, *arguments],
            timeout_s=_TIMEOUT_S,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
    except subprocess.TimeoutExpired:
        return Answer(f"nvidia-smi gave no answer within {_TIMEOUT_S:.0f} s", ok=False)
    except OSError as error:
        return Answer(f"nvidia-smi cannot be run: {error}", ok=False)
    return Answer(done.stdout, ok=done.returncode == 0)


class SmiDriver:
    """Asks ``nvidia-smi``, with a time-out.

    Args:
        run: Runs the tool with arguments, for tests.

    Source:
        ``nvidia-smi --help-query-gpu`` and ``--help-query-compute-apps``. Old tools know no
        ``compute_cap``; a value that is not told is written in brackets, as "[N/A]".
    """

    def __init__(self, run: Callable[[Sequence[str]], Answer | None] = run_smi) -> None:
        self._run = run

    def report(self) -> DriverReport | None:
        """Returns what the tool says, None when it is not installed."""
        fields: tuple[str, ...] = (*_FIELDS, "compute_cap")
        answer = self._query("gpu", fields)
        if answer is not None and not answer.ok and "not a valid field" in answer.text:
            fields = _FIELDS
            answer = self._query("gpu", fields)
        if answer is None:
            return None
        if not answer.ok:
            first = answer.text.strip().splitlines() or ["nvidia-smi failed without a word"]
            # "No devices were found" is an answer, not a failure.
            is_empty = first[0].startswith("No devices")
            return DriverReport(failure="" if is_empty else first[0])
        rows = [dict(zip(fields, row, strict=False)) for row in _rows(answer.text)]
        return self._completed([row for row in rows if row.get("name")])

    def _query(self, what: str, fields: Sequence[str]) -> Answer | None:
        return self._run([f"--query-{what}={','.join(fields)}", _FORMAT])

    def _completed(self, rows: Sequence[dict[str, str]]) -> DriverReport:
        if not rows:
            return DriverReport()
        holders = self._processes()
        is_cut = any(row.get("mig.mode.current") == "Enabled" for row in rows)
        slices = self._slices() if is_cut else {}
        gpus = tuple(
            Gpu(
                name=row["name"],
                uuid=row["uuid"],
                memory_bytes=_mib(row.get("memory.total", "")),
                free_bytes=_mib(row.get("memory.free", "")),
                compute_capability=_capability(row.get("compute_cap", "")),
                mig_enabled=row.get("mig.mode.current") == "Enabled",
                mig_slices=slices.get(row["uuid"], ()),
                processes=holders.get(row["uuid"], ()),
            )
            for row in rows
        )
        return DriverReport(gpus, version=rows[0]["driver_version"], cuda_version=self._cuda())

    def _processes(self) -> dict[str, tuple[GpuProcess, ...]]:
        answer = self._query("compute-apps", ("gpu_uuid", "pid", "used_gpu_memory", "process_name"))
        found: dict[str, tuple[GpuProcess, ...]] = {}
        if answer is None or not answer.ok:
            return found
        for row in _rows(answer.text):
            if len(row) < 4 or not row[1].isdigit():  # the fields asked for
                continue
            name = "" if row[3].startswith("[") else ", ".join(row[3:])
            process = GpuProcess(int(row[1]), name, _mib(row[2]))
            found[row[0]] = (*found.get(row[0], ()), process)
        return found

    def _slices(self) -> dict[str, tuple[str, ...]]:
        answer = self._run(["-L"])
        if answer is None or not answer.ok:
            return {}
        parts = _CARD.split(answer.text)
        return {
            uuid: tuple(_SLICE.findall(listing))
            for uuid, listing in zip(parts[1::2], parts[2::2], strict=True)
        }

    def _cuda(self) -> str:
        answer = self._run([])
        told = re.search(r"CUDA Version:\s*([\d.]+)", answer.text) if answer else None
        return told[1] if told else ""


def _rows(text: str) -> Iterator[list[str]]:
    for row in csv.reader(text.splitlines(), skipinitialspace=True):
        if row:
            yield [value.strip() for value in row]


def _mib(text: str) -> int | None:
    return int(text) * _MIB if text.isdigit() else None


def _capability(text: str) -> ComputeCapability | None:
    major, _, minor = text.partition(".")
    if not (major.isdigit() and minor.isdigit()):
        return None
    return ComputeCapability(int(major), int(minor))
