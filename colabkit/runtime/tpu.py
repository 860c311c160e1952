"""Whether this is a TPU machine."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Mapping
from pathlib import Path

_GOOGLE = "0x1ae0"
_GENERATIONS = {
    "0x0027": "v2 or v3",
    "0x005e": "v4",
    "0x0062": "v5p",
    "0x0063": "v5e",
    "0x006f": "v6e",
    "0x0076": "v7x",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Tpu:
    """The TPU of this machine.

    Attributes:
        generation: "v5e", "" when not known.
        chips: How many, 1 when not known.
    """

    generation: str
    chips: int


def find_tpu(environ: Mapping[str, str] | None = None, root: str | Path = "/") -> Tpu | None:
    """Returns the TPU of this machine, None when it has none.

    Args:
        environ: The environment; the process's own by default.
        root: Where the file system begins, for tests.

    Source:
        A TPU is a PCI device of Google's, as JAX's ``hardware_utils`` looks for it. Colab's
        TPU machines set ``TPU_ACCELERATOR_TYPE=v5e-1`` and ``COLAB_TPU_1VM=1``, which is set
        to nothing on the others; older ones set ``COLAB_TPU_ADDR``, clouds ``TPU_NAME``.

    Example:
        >>> find_tpu({"TPU_ACCELERATOR_TYPE": "v5e-1"}, root="/nowhere")
        Tpu(generation='v5e', chips=1)
    """
    environ = os.environ if environ is None else environ
    chips = _pci_generations(Path(root))
    told = environ.get("TPU_ACCELERATOR_TYPE", "").partition("-")[0].replace("litepod", "e")
    if chips:
        return Tpu(told or chips[0], len(chips))
    # Google's drivers number their devices in /dev; others' lie in the folder /dev/accel.
    numbered = [
        path for path in (Path(root) / "dev").glob("accel[0-9]*") if path.name[5:].isdigit()
    ]
    names = ("TPU_ACCELERATOR_TYPE", "COLAB_TPU_1VM", "COLAB_TPU_ADDR", "TPU_NAME")
    if numbered or any(environ.get(name) for name in names):
        groups = list((Path(root) / "dev/vfio").glob("[0-9]*"))
        return Tpu(told, len(numbered) or len(groups) or 1)
    return None


def _pci_generations(root: Path) -> list[str]:
    found = []
    for vendor in sorted((root / "sys/bus/pci/devices").glob("*/vendor")):
        try:
            if vendor.read_text().strip() == _GOOGLE:
                found.append(_GENERATIONS.get((vendor.parent / "device").read_text().strip()))
        except OSError:
            continue  # a device that went away while it was looked at
    return [generation for generation in found if generation is not None]
