"""TensorFlow asked to use the GPU, and kept from taking all of its memory."""

from __future__ import annotations

import os
import sys
from typing import Any

from colabkit.runtime.faults import GpuFault, fault_in
from colabkit.runtime.frameworks import IMPORT_FAILURES, FrameworkReport, first_line
from colabkit.runtime.gpus import ComputeCapability

_NAME = "TensorFlow"
_GROWTH = "TF_FORCE_GPU_ALLOW_GROWTH"
_STARTED = (
    "TensorFlow had started before colabkit.setup() and has taken the GPU's memory at once;"
    " restart the session and call setup first."
)
_SHOWN = (
    "TensorFlow had started before colabkit.setup() and still sees the GPU;"
    " restart the session and call setup first."
)


class TensorFlowFramework:
    """TensorFlow; imported only when it is probed."""

    module = "tensorflow"

    def prepare(self) -> None:
        """Lets TensorFlow take GPU memory as it needs it, unless the user chose otherwise."""
        if self.module not in sys.modules:
            os.environ.setdefault(_GROWTH, "true")

    def probe(self) -> FrameworkReport:
        """Imports TensorFlow and computes one number on the GPU."""
        try:
            import tensorflow as tf  # imported on use
        except IMPORT_FAILURES as error:
            return FrameworkReport(_NAME, fault=GpuFault.BROKEN_FRAMEWORK, said=first_line(error))
        version = str(tf.__version__)
        if not (tf.test.is_built_with_cuda() or tf.test.is_built_with_rocm()):
            return FrameworkReport(
                _NAME,
                version=version,
                fault=GpuFault.CPU_ONLY_BUILD,
                said="TensorFlow is built without CUDA",
            )
        try:
            return _on_gpu(tf, version)
        except (RuntimeError, tf.errors.OpError) as error:
            return FrameworkReport(
                _NAME, version=version, fault=fault_in(str(error)), said=first_line(error)
            )

    def hide_gpu(self) -> str:
        """Takes the GPUs out of TensorFlow's sight, if it is imported and has not started."""
        tf = sys.modules.get("tensorflow")
        if tf is None:
            return ""
        try:
            tf.config.set_visible_devices([], "GPU")
        except RuntimeError:
            return _SHOWN
        return ""


def _on_gpu(tf: Any, version: str) -> FrameworkReport:
    gpus = tf.config.list_physical_devices("GPU")
    if not gpus:
        return FrameworkReport(
            _NAME,
            version=version,
            fault=GpuFault.NOT_SEEN,
            said="TensorFlow lists no GPU; its CUDA libraries may be missing",
        )
    notice = "" if _grows(tf, gpus) else _STARTED
    with tf.device("/GPU:0"):
        (tf.ones([1]) + 1.0).numpy()
    details = tf.config.experimental.get_device_details(gpus[0])
    capability = details.get("compute_capability")
    return FrameworkReport(
        _NAME,
        version=version,
        cuda_version=str(tf.sysconfig.get_build_info().get("cuda_version", "")),
        name=str(details.get("device_name", "GPU")),
        own_bytes=int(tf.config.experimental.get_memory_info("GPU:0")["current"]),
        compute_capability=ComputeCapability(*capability) if capability else None,
        count=len(gpus),
        notice=notice,
    )


def _grows(tf: Any, gpus: Any) -> bool:
    """Switches memory growth on; returns False when TensorFlow has started without it."""
    try:
        for gpu in gpus:
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        if os.environ.get(_GROWTH) == "true":
            return True
        return all(tf.config.experimental.get_memory_growth(gpu) for gpu in gpus)
    return True
