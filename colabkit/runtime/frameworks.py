"""Frameworks asked to use the GPU for real: only an allocation shows that it works."""

from __future__ import annotations

import dataclasses
import importlib.util
import sys
from collections.abc import Sequence
from typing import Protocol

from colabkit.runtime.faults import GpuFault
from colabkit.runtime.gpus import ComputeCapability

# A library missing, or a package that does not fit the others, ends an import in any of these.
IMPORT_FAILURES = (ImportError, OSError, AttributeError, RuntimeError, TypeError, ValueError)


@dataclasses.dataclass(frozen=True, slots=True)
class FrameworkReport:
    """What came of one framework's try.

    Attributes:
        framework: "PyTorch" or "TensorFlow".
        version: The framework's version: "2.11.0+cu128".
        fault: Why the GPU cannot be used, None when an allocation worked.
        said: The first line of the framework's own error.
        cuda_version: The CUDA it is built for: "12.8", "" when not known.
        backend: "cuda" or "mps".
        name: The GPU it uses.
        uuid: Names that very card, "" when not known.
        memory_bytes: The GPU's memory, None when not known.
        free_bytes: What is free of it, None when not known.
        own_bytes: What this process already holds through this framework.
        compute_capability: What the GPU's hardware can do.
        count: How many GPUs the framework sees.
        notice: What else the user should know, one sentence.
    """

    framework: str
    version: str = ""
    fault: GpuFault | None = None
    said: str = ""
    cuda_version: str = ""
    backend: str = "cuda"
    name: str = ""
    uuid: str = ""
    memory_bytes: int | None = None
    free_bytes: int | None = None
    own_bytes: int = 0
    compute_capability: ComputeCapability | None = None
    count: int = 1
    notice: str = ""


class GpuFramework(Protocol):
    """A framework that can be asked to use the GPU."""

    module: str

    def prepare(self) -> None:
        """Sets what must be set before it starts; imports nothing."""

    def probe(self) -> FrameworkReport:
        """Imports it if need be and allocates on the GPU."""

    def hide_gpu(self) -> str:
        """Keeps it, if it is imported, off the GPU; returns a notice when that is too late."""


def to_probe(frameworks: Sequence[GpuFramework]) -> list[GpuFramework]:
    """Returns the frameworks to ask: those imported, else the first that is installed."""
    imported = [framework for framework in frameworks if framework.module in sys.modules]
    if imported:
        return imported
    installed = (f for f in frameworks if importlib.util.find_spec(f.module) is not None)
    return [framework for framework, _ in zip(installed, range(1), strict=False)]


def first_line(error: BaseException) -> str:
    """Returns an error's own words, their first line."""
    lines = str(error).strip().splitlines()
    return lines[0] if lines else type(error).__name__
