"""What a device looks like as the last value of a notebook cell."""

from __future__ import annotations

from typing import TYPE_CHECKING

from colabkit.notebook import Card, Row, Tone, card_html
from colabkit.runtime.advice import gigabytes

if TYPE_CHECKING:
    from colabkit.runtime.device import Device


def device_rows(device: Device) -> tuple[Row, ...]:
    """Returns what there is to say of a device, line by line."""
    several = f"{device.count} × " if device.count > 1 else ""
    tone = Tone.GOOD if device.fault is None else Tone.NOTE
    rows = [Row("Trains on", f"{several}{device.name}", tone)]
    if device.memory_bytes is not None:
        free = f", {gigabytes(device.free_bytes)} free" if device.free_bytes is not None else ""
        rows.append(Row("Memory", gigabytes(device.memory_bytes) + free))
    if device.compute_capability is not None:
        driver = f", driver {device.driver_version}" if device.driver_version else ""
        rows.append(Row("Hardware", f"compute capability {device.compute_capability}{driver}"))
    rows.append(Row("Precision", device.precision))
    if device.reason:
        rows.append(Row("Why no GPU", device.reason, Tone.NOTE, device.advice))
    rows += [Row("Note", notice, Tone.NOTE) for notice in device.notices]
    return tuple(rows)


def device_card_html(device: Device) -> str:
    return card_html(Card("Device", device_rows(device)))
