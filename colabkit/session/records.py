"""What setup() found and did, frozen, and how it looks."""

from __future__ import annotations

import dataclasses
import shutil
from pathlib import Path

from colabkit.notebook import Card, Row, Tone, card_html, card_text
from colabkit.runtime import Device, PackageCheck, Platform, SessionClock
from colabkit.storage import MountState

_GB = 1e9


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class DriveStatus:
    """How Drive stood when it was looked at.

    Attributes:
        state: ABSENT, MOUNTED or LOST.
        path: Where My Drive begins, None when it is not mounted.
        backend: The program that mounts it, "" without one.
        reason: Why it is not mounted, "" when it is.
        advice: What to do about it, or what works without.
        is_readonly: Whether it is mounted to be read only.
    """

    state: MountState
    path: Path | None = None
    backend: str = ""
    reason: str = ""
    advice: str = ""
    is_readonly: bool = False

    @property
    def is_mounted(self) -> bool:
        """Whether Drive can be used."""
        return self.state is MountState.MOUNTED

    def describe(self) -> str:
        """Returns the status in one line."""
        if not self.is_mounted:
            return self.reason or self.state.value
        how = "mounted to be read only" if self.is_readonly else "mounted"
        return f"{how}, {self.path}"

    def row(self) -> Row:
        """Returns the status as a line of a card."""
        tone = Tone.GOOD if self.is_mounted else Tone.NOTE
        return Row("Drive", self.describe(), tone, self.advice)

    def __repr__(self) -> str:
        return card_text(self._card())

    def _repr_html_(self) -> str:
        return card_html(self._card())

    def _card(self) -> Card:
        return Card("Google Drive", (self.row(),))


@dataclasses.dataclass(frozen=True, slots=True, repr=False)
class Session:
    """The machine as ``setup`` left it.

    Attributes:
        platform: The kind of machine.
        device: What training runs on.
        drive: How Drive stood.
        workdir: The working folder.
        clock: How long the machine has been up, and about how long it has left.
        packages: How each package that was asked for stands.
        notes: What else there is to know, one sentence each.

    Example:
        >>> import colabkit
        >>> session = colabkit.setup(gpu=False, drive=False)
        >>> session.device.torch_device, session.drive.is_mounted
        ('cpu', False)
    """

    platform: Platform
    device: Device
    drive: DriveStatus
    workdir: Path
    clock: SessionClock
    packages: tuple[PackageCheck, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def precision(self) -> str:
        """The precision that ``fit`` takes here: "fp32", "bf16" or "fp16"."""
        return self.device.precision

    def card(self) -> Card:
        """Returns the session as a card."""
        device = self.device
        tone = Tone.NOTE if device.reason else Tone.GOOD
        rows = [
            Row("Machine", f"{self.platform.value}, {self.clock.describe()}"),
            Row("Device", _device_words(device), tone, device.advice),
            self.drive.row(),
            Row(
                "Disk", f"{self.workdir}, {shutil.disk_usage(self.workdir).free / _GB:.1f} GB free"
            ),
        ]
        rows += [_package_row(check) for check in self.packages]
        rows += [Row("Note", note, Tone.NOTE) for note in (*device.notices, *self.notes)]
        return Card("colabkit session", tuple(rows))

    def __repr__(self) -> str:
        return card_text(self.card())

    def _repr_html_(self) -> str:
        return card_html(self.card())


def _device_words(device: Device) -> str:
    words = device.describe()
    return f"{words}: {device.reason}" if device.reason else words


def _package_row(check: PackageCheck) -> Row:
    version = f" {check.version}" if check.version else ""
    if check.is_satisfied:
        return Row("Package", f"{check.name}{version}", Tone.GOOD)
    advice = check.advice or f"Run in a cell: %pip install {check.requirement!r}"
    value = f"{check.requirement}: {check.state.value}{version}"
    if check.reason:
        value += f", because {check.reason}"
    return Row("Package", value, Tone.BAD, advice)
