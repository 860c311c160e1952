"""Whether training can start here, and what stands in its way."""

from __future__ import annotations

import dataclasses
import importlib.metadata
import os
import platform as machine
import shutil
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from colabkit.datasets import open_source
from colabkit.errors import ColabKitError
from colabkit.notebook import Card, Row, Tone, bytes_words
from colabkit.runtime import (
    Device,
    Host,
    PackageCheck,
    PackageState,
    Platform,
    SessionClock,
    check_packages,
    detect_device,
    detect_platform,
    read_host,
    session_clock,
)
from colabkit.storage import MountState, mount_of, volume_at

_FRAMEWORKS = ("torch", "keras", "jax")
_TENSORFLOWS = ("tensorflow", "tensorflow-cpu", "tensorflow-macos", "tf-nightly")
_GIB = 1 << 30
_LITTLE_DISK_BYTES, _NO_DISK_BYTES = 2 * _GIB, 256 << 20
_LITTLE_MEMORY_BYTES = 1 * _GIB


@dataclasses.dataclass(frozen=True, slots=True)
class Examination:
    """What was found on a machine.

    Attributes:
        rows: A line for each thing looked at; a BAD one keeps training from starting.
        facts: The same as plain values, for JSON.
    """

    rows: tuple[Row, ...]
    facts: Mapping[str, Any]

    @property
    def can_start(self) -> bool:
        """Whether training can start."""
        return all(row.tone is not Tone.BAD for row in self.rows)

    @property
    def card(self) -> Card:
        end = "training can start" if self.can_start else "training cannot start"
        return Card(f"colabkit on {self.facts['platform']}: {end}", self.rows)

    def json_value(self) -> dict[str, Any]:
        """Returns all findings as plain values."""
        findings = [
            {"name": r.name, "value": r.value, "tone": r.tone.value, "advice": r.advice}
            for r in self.rows
        ]
        return {"can_start": self.can_start, "findings": findings, **self.facts}


@dataclasses.dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: a line for the eye, and values for programs."""

    row: Row
    facts: Mapping[str, Any]


def examine(ckpt_dir: str | Path | None = None, *, needs_gpu: bool = False) -> Examination:
    """Looks at machine, GPU, memory, disk, packages, Drive and a run folder; changes nothing.

    Args:
        ckpt_dir: A run folder that training is to write to, None for none in particular.
        needs_gpu: Whether training cannot start without a GPU.

    Example:
        >>> isinstance(examine().can_start, bool)
        True
    """
    platform, host = detect_platform(), read_host()
    found = [
        machine_finding(platform, host, session_clock(platform)),
        device_finding(detect_device(platform=platform), needs_gpu=needs_gpu),
        memory_finding(host),
        disk_finding(Path.cwd()),
        frameworks_finding(framework_checks()),
        packages_finding(check_packages(_required())),
    ]
    drive = drive_finding(platform)
    found += [drive] if drive is not None else []
    if ckpt_dir is not None:
        found.append(folder_finding(ckpt_dir))
    facts: dict[str, Any] = {}
    for finding in found:
        facts |= finding.facts
    return Examination(tuple(finding.row for finding in found), facts)


def machine_finding(platform: Platform, host: Host, clock: SessionClock) -> Finding:
    """Says which machine this is, and for how long."""
    words = f"{host.processor}, {host.cores} cores, Python {machine.python_version()}"
    return Finding(
        Row("Machine", f"{words}; {clock.describe()}", Tone.GOOD),
        {
            "platform": platform.value,
            "processor": host.processor,
            "cores": host.cores,
            "python": machine.python_version(),
            "machine_age_s": round(clock.machine_age_s),
            "left_s": None if clock.left_s is None else round(clock.left_s),
        },
    )


def device_finding(device: Device, *, needs_gpu: bool) -> Finding:
    """Says what training runs on, and why that is no GPU."""
    tone = Tone.GOOD
    if not device.is_gpu:
        tone = Tone.BAD if needs_gpu else Tone.NOTE
    words = device.describe() + (f": {device.reason}" if device.reason else "")
    facts = {
        "kind": device.kind.value,
        "name": device.name,
        "memory_bytes": device.memory_bytes,
        "precision": device.precision,
        "count": device.count,
        "reason": device.reason,
    }
    return Finding(Row("Device", words, tone, device.advice), {"device": facts})


def memory_finding(host: Host) -> Finding:
    """Says how much memory is free."""
    tone = Tone.GOOD if host.free_bytes >= _LITTLE_MEMORY_BYTES else Tone.NOTE
    advice = "" if tone is Tone.GOOD else "Restart the runtime, or close other notebooks."
    words = f"{_gib(host.free_bytes)} of {_gib(host.memory_bytes)} free"
    facts = {"memory_bytes": host.memory_bytes, "free_memory_bytes": host.free_bytes}
    return Finding(Row("Memory", words, tone, advice), facts)


def disk_finding(folder: Path, *, usage: Callable[[Path], Any] = shutil.disk_usage) -> Finding:
    """Says how much room the local disk has: datasets and staged checkpoints lie there."""
    disk = usage(folder)
    tone, advice = Tone.GOOD, ""
    if disk.free < _LITTLE_DISK_BYTES:
        tone = Tone.BAD if disk.free < _NO_DISK_BYTES else Tone.NOTE
        advice = "Delete what you no longer need on the local disk."
    words = f"{bytes_words(disk.free)} of {bytes_words(disk.total)} free at {folder}"
    return Finding(Row("Disk", words, tone, advice), {"free_disk_bytes": int(disk.free)})


def framework_checks(
    check: Callable[[Sequence[str]], Sequence[PackageCheck]] = check_packages,
) -> tuple[PackageCheck, ...]:
    """Returns how each framework stands; TensorFlow comes in packages of several names."""
    tensorflow, *others = check(_TENSORFLOWS)
    found = next((c for c in (tensorflow, *others) if c.version is not None), tensorflow)
    return (*check(_FRAMEWORKS), dataclasses.replace(found, name="tensorflow"))


def frameworks_finding(checks: Sequence[PackageCheck]) -> Finding:
    """Says which frameworks there are to train with."""
    there = {check.name: check.version for check in checks if check.version is not None}
    facts = {"frameworks": {check.name: check.version for check in checks}}
    if not there.keys().isdisjoint(_FRAMEWORKS):
        words = ", ".join(f"{name} {version}" for name, version in there.items())
        return Finding(Row("Frameworks", words, Tone.GOOD), facts)
    row = Row("Frameworks", "none is installed", Tone.BAD, "Run: pip install torch")
    return Finding(row, facts)


def packages_finding(checks: Sequence[PackageCheck]) -> Finding:
    """Says whether what colabkit itself needs is here."""
    in_question = [check for check in checks if not check.is_satisfied]
    facts = {"packages": {check.name: check.version for check in checks}}
    if not in_question:
        return Finding(Row("Packages", "all that colabkit needs", Tone.GOOD), facts)
    # The marker said only whether it is needed on this machine, and a shell would trip over it.
    asked = {check: check.requirement.partition(";")[0].strip() for check in in_question}
    words = ", ".join(f"{asked[check]}: {check.state.value}" for check in in_question)
    wrong = [check for check in in_question if check.state is not PackageState.UNKNOWN]
    if not wrong:
        return Finding(Row("Packages", words, Tone.NOTE), facts)
    wanted = " ".join(f"'{asked[check]}'" for check in wrong)
    return Finding(Row("Packages", words, Tone.BAD, f"Run: pip install {wanted}"), facts)


def drive_finding(platform: Platform) -> Finding | None:
    """Says whether Drive is mounted, where there is a Drive; None elsewhere."""
    if platform is not Platform.COLAB:
        return None
    mount = mount_of("MyDrive", platform=platform)
    state = mount.state if mount is not None else MountState.ABSENT
    facts = {"drive": state.value}
    if state is MountState.MOUNTED:
        return Finding(Row("Drive", "mounted", Tone.GOOD), facts)
    advice = "Run colabkit.setup() in a cell; without Drive, checkpoints end with the machine."
    return Finding(Row("Drive", state.value, Tone.NOTE, advice), facts)


def folder_finding(ckpt_dir: str | Path) -> Finding:
    """Says whether a run folder can be written to; makes nothing there."""
    if str(ckpt_dir).startswith(("http://", "https://")):
        return _web_finding(str(ckpt_dir))
    try:
        volume = volume_at(ckpt_dir)
        free = volume.free_bytes()
        if volume.root is None:
            volume.list(".")  # a bucket or a remote that is not there says so only when asked
    except ColabKitError as error:
        row = Row("Run folder", error.message, Tone.BAD, error.hint)
        return Finding(row, {"run_folder": {"path": str(ckpt_dir), "is_writable": False}})
    root = volume.root
    if root is None:
        row = Row("Run folder", f"{volume.location}, written to when training starts", Tone.PLAIN)
        return Finding(row, {"run_folder": {"path": volume.location, "is_writable": None}})
    existing = next(p for p in (root, *root.absolute().parents) if p.exists())
    is_writable = os.access(existing, os.W_OK | os.X_OK)
    new = "" if root.exists() else ", not there yet: training makes it"
    room = "" if free is None else f", {bytes_words(free)} free"
    facts = {"path": str(root), "is_writable": is_writable, "free_bytes": free}
    if is_writable:
        row = Row("Run folder", f"{ckpt_dir}{room}{new}", Tone.GOOD)
    else:
        words = f"{ckpt_dir} cannot be written: {existing} is not yours to write to."
        row = Row("Run folder", words, Tone.BAD, "Pass a folder of your own.")
    return Finding(row, {"run_folder": facts})


def _web_finding(url: str) -> Finding:
    """Says whether a file on a web server is there: a run cannot be kept on one."""
    facts = {"source": {"url": url, "is_there": False}}
    try:
        source = open_source(url)
    except ColabKitError as error:
        return Finding(Row("Source", error.message, Tone.BAD, error.hint), facts)
    source.close()
    facts = {"source": {"url": url, "is_there": True, "nbytes": source.nbytes}}
    words = f"{url} is there ({bytes_words(source.nbytes)}), to be read only"
    return Finding(Row("Source", words, Tone.GOOD), facts)


def _required() -> list[str]:
    """Returns colabkit's own requirements, extras left out."""
    try:
        listed = importlib.metadata.requires("colabkit") or []
    except importlib.metadata.PackageNotFoundError:
        return []  # it runs from its source
    return [requirement for requirement in listed if "extra ==" not in requirement]


def _gib(nbytes: int) -> str:
    return f"{nbytes / _GIB:.1f} GB"
