"""What the user should know of a GPU that works."""

from __future__ import annotations

from colabkit.runtime.advice import gigabytes, process_words
from colabkit.runtime.findings import (
    Findings,
    gpu_in_use,
    is_held_by_itself,
    others_on,
    own_bytes_on,
)

# Below this part of its memory, a GPU is called nearly full.
_LITTLE = 0.25


def notices_for(findings: Findings) -> tuple[str, ...]:
    """Returns what the user should know of a GPU that works, one sentence each."""
    working, gpu = findings.working, gpu_in_use(findings)
    said = [report.notice for report in findings.frameworks if report.notice]
    said += [
        f'{report.framework} cannot use the GPU ("{report.said}").'
        for report in findings.frameworks
        if report.fault is not None
    ]
    if working is None:
        said.append("No framework is installed yet that could confirm the GPU.")
    count = working.count if working is not None else len(findings.gpus)
    if count > 1:
        said.append(f"{count} GPUs are here; training uses one of them.")
    if gpu is not None and gpu.mig_enabled:
        slices = ": " + ", ".join(gpu.mig_slices) if gpu.mig_slices else ""
        said.append(f"{gpu.name} is cut into slices (MIG{slices}); a process uses one of them.")
    return (*said, *_nearly_full(findings))


def _nearly_full(findings: Findings) -> list[str]:
    working, gpu = findings.working, gpu_in_use(findings)
    free_bytes = working.free_bytes if working is not None else None
    total_bytes = working.memory_bytes if working is not None else None
    if gpu is not None and not gpu.mig_enabled:
        free_bytes = gpu.free_bytes if free_bytes is None else free_bytes
        total_bytes = gpu.memory_bytes if total_bytes is None else total_bytes
    if free_bytes is None or total_bytes is None or free_bytes >= _LITTLE * total_bytes:
        return []
    others = others_on(gpu, findings)
    if is_held_by_itself(gpu, findings):
        who = f"earlier cells of this session hold {gigabytes(own_bytes_on(gpu, findings))}"
    else:
        who = process_words(others[0]) if others else "a process not named here holds the rest"
    return [f"Only {gigabytes(free_bytes)} of {gigabytes(total_bytes)} are free: {who}."]
