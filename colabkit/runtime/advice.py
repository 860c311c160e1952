"""Says in a sentence why no GPU is used, and in another what changes that."""

from __future__ import annotations

import dataclasses

from colabkit.runtime.faults import GpuFault
from colabkit.runtime.findings import (
    Findings,
    gpu_in_use,
    is_held_by_itself,
    others_on,
    own_bytes_on,
)
from colabkit.runtime.frameworks import FrameworkReport
from colabkit.runtime.gpus import GpuProcess
from colabkit.runtime.platform import Platform

_GIB = 1 << 30

_MENU = {
    Platform.COLAB: "Choose one in the menu: Runtime → Change runtime type → T4 GPU.",
    Platform.COLAB_ENTERPRISE: "Connect to a runtime whose template has a GPU.",
    Platform.KAGGLE: "Choose one in the notebook's menu: Settings → Accelerator → GPU T4 x2.",
    Platform.OTHER: "Go on with the CPU, or use a machine with an NVIDIA GPU.",
}
_FRESH = {
    Platform.COLAB: "A fresh machine works: colabkit.release() gives this one back, saved.",
    Platform.COLAB_ENTERPRISE: "Delete the runtime and connect to a new one.",
    Platform.KAGGLE: "Stop the session and start it again: Run → Stop session.",
}
_OTHER_NOTEBOOKS = {
    Platform.COLAB: "Runtime → Manage sessions ends the other notebooks on this machine.",
    Platform.COLAB_ENTERPRISE: "Shut the other notebooks' kernels down, or restart the runtime.",
    Platform.KAGGLE: "Stop the session and start it again: Run → Stop session.",
    Platform.OTHER: "nvidia-smi shows on the machine itself who it is.",
}


@dataclasses.dataclass(frozen=True, slots=True)
class Explanation:
    """Two sentences for the user.

    Attributes:
        reason: Why no GPU is used.
        advice: What to do about it.
    """

    reason: str
    advice: str


@dataclasses.dataclass(frozen=True, slots=True)
class _Sentences:
    """The two sentences to be filled, and the advice on a hosted machine where it differs."""

    reason: str
    advice: str
    hosted: str = ""


_SENTENCES = {
    GpuFault.NOT_WANTED: _Sentences("No GPU was asked for.", "Pass gpu=True to use one."),
    GpuFault.NO_GPU: _Sentences("There is no GPU on {place}.", "{menu}"),
    GpuFault.TPU_MACHINE: _Sentences(
        "This machine has a {tpu} and no GPU; PyTorch trains on its CPU.", "{menu}"
    ),
    GpuFault.CPU_ONLY_BUILD: _Sentences(
        '{name} is here, but {framework} is built for the CPU only ("{said}").',
        "Install a build of {package} for CUDA, then restart the session.{where}",
        hosted="{fresh}",
    ),
    GpuFault.DRIVER_TOO_OLD: _Sentences(
        "{name} is here, but its driver{driver} is too old for {framework}{needs}.",
        "Update the NVIDIA driver, or install {package} built for an older CUDA.",
        hosted="{fresh}",
    ),
    GpuFault.DRIVER_BROKEN: _Sentences(
        'The NVIDIA driver does not work ("{driver_said}").',
        "Restart the machine; if that does not help, reinstall the driver.",
        hosted="{fresh}",
    ),
    GpuFault.BUSY: _Sentences(
        "Another process has {name} for itself{holder}.",
        "End that process, or ask who runs it to share the GPU.",
    ),
    GpuFault.HIDDEN: _Sentences(
        '{name} is here, but CUDA_VISIBLE_DEVICES="{hidden_by}" hides it.',
        "Take that variable out of the environment and restart the session.",
    ),
    GpuFault.GPU_TOO_OLD: _Sentences(
        "{name}{capability} is older than {framework} still supports.",
        "Install an older version of {package} that does.",
        hosted="{menu}",
    ),
    GpuFault.NO_MIG_SLICE: _Sentences(
        "{name} is cut into slices (MIG), and none of them is given to this machine.",
        "Ask its owner for a slice (nvidia-smi mig -cgi), or for MIG to be off.",
    ),
    GpuFault.BROKEN_FRAMEWORK: _Sentences(
        '{name} is here, but {package} cannot be imported ("{said}").',
        "Reinstall {package}, then restart the session.",
    ),
    GpuFault.NOT_SEEN: _Sentences(
        '{name} is here, but {framework} does not find it ("{said}").',
        "Restart the session; the quoted words say more.",
        hosted="{fresh}",
    ),
    GpuFault.OTHER: _Sentences(
        '{name} is here, but {framework} cannot use it ("{said}").',
        "Restart the session; the quoted words say more.",
        hosted="{fresh}",
    ),
}


def gigabytes(nbytes: int) -> str:
    """Returns a size as GPU makers print it, in units of 2**30 bytes.

    Example:
        >>> gigabytes(15360 << 20)
        '15.0 GB'
    """
    return f"{nbytes / _GIB:.1f} GB"


def process_words(process: GpuProcess) -> str:
    """Returns who holds how much.

    Example:
        >>> process_words(GpuProcess(4321, "python3", 14 << 30))
        'process 4321 (python3) holds 14.0 GB'
    """
    name = f" ({process.name})" if process.name else ""
    held = gigabytes(process.memory_bytes) if process.memory_bytes else "its memory"
    return f"process {process.pid}{name} holds {held}"


def explain(fault: GpuFault, findings: Findings) -> Explanation:
    """Returns why no GPU is used and what to do about it."""
    if fault is GpuFault.OUT_OF_MEMORY:
        return _memory_taken(findings)
    words, sentences = _words(findings), _SENTENCES[fault]
    reason = sentences.reason.format(**words)
    is_hosted = findings.platform.is_hosted
    advice = (is_hosted and sentences.hosted) or sentences.advice
    return Explanation(reason[0].upper() + reason[1:], advice.format(**words))


def _words(findings: Findings) -> dict[str, str]:
    """Returns what the sentences are filled with."""
    gpu, driver, platform = gpu_in_use(findings), findings.driver, findings.platform
    report = findings.frameworks[0] if findings.frameworks else FrameworkReport("the framework")
    others = others_on(gpu, findings)
    able = gpu.compute_capability if gpu is not None else None
    version = f" {driver.version}" if driver is not None and driver.version else ""
    runs = f" (CUDA {driver.cuda_version})" if driver is not None and driver.cuda_version else ""
    is_torch = report.framework == "PyTorch"
    return {
        "name": gpu.name if gpu is not None else "the GPU",
        "capability": f" (compute capability {able})" if able is not None else "",
        "package": report.framework,
        "framework": f"{report.framework} {report.version}".strip(),
        "said": report.said,
        "needs": f", which needs CUDA {report.cuda_version}" if report.cuda_version else "",
        "driver": f"{version}{runs}",
        "driver_said": (driver.failure if driver is not None else "") or report.said,
        "holder": f": {process_words(others[0])}" if others else "",
        "hidden_by": findings.visible_devices or "",
        "tpu": f"TPU {findings.tpu.generation}".strip() if findings.tpu is not None else "TPU",
        "place": f"this {platform.value} machine" if platform.is_hosted else "this machine",
        "menu": _MENU[platform],
        "fresh": _FRESH.get(platform, ""),
        "where": " pytorch.org/get-started shows the command." if is_torch else "",
    }


def _memory_taken(findings: Findings) -> Explanation:
    gpu, platform = gpu_in_use(findings), findings.platform
    name = gpu.name if gpu is not None else "The GPU"
    size = f" of its {gigabytes(gpu.memory_bytes)}" if gpu and gpu.memory_bytes else ""
    others = others_on(gpu, findings)
    if is_held_by_itself(gpu, findings):
        own = gigabytes(own_bytes_on(gpu, findings))
        held = f"earlier cells of this session hold {own}{size}"
        advice = "Restart the session, or delete what they hold (del model), call"
        advice += " torch.cuda.empty_cache() and run setup again."
        return Explanation(f"{name} is full: {held}.", advice)
    if not others:
        reason = f"{name} is full: a process that the driver does not name here holds its memory."
        return Explanation(reason, _OTHER_NOTEBOOKS[platform])
    pid = others[0].pid
    advice = f"End it if it is yours (kill {pid}), or wait for it."
    if platform.is_hosted:
        advice = f"End it if it is yours (!kill {pid}). {_OTHER_NOTEBOOKS[platform]}"
    told = size if others[0].memory_bytes else ""
    return Explanation(f"{name} is full: {process_words(others[0])}{told}.", advice)
