"""The PyTorch that is installed here is asked for real."""

from __future__ import annotations

import pytest
import torch

from colabkit.runtime import GpuFault, TorchFramework, detect_device
from tests.abilities import CPU_TORCH
from tests.unit.runtime import machines
from tests.unit.runtime.machines import Smi, probes


@pytest.mark.needs(CPU_TORCH)
def test_a_cpu_only_build_is_known_beside_a_gpu(monkeypatch):
    report = TorchFramework().probe()
    assert report.fault is GpuFault.CPU_ONLY_BUILD
    assert report.version == torch.__version__
    with pytest.raises(AssertionError, match=report.said):
        torch.cuda.init()
    monkeypatch.setenv("TF_FORCE_GPU_ALLOW_GROWTH", "true")  # so that it is put back
    looked_at = probes(Smi(machines.T4_LINE))
    looked_at = type(looked_at)(looked_at.driver, looked_at.tpu, looked_at.host)
    device = detect_device(probes=looked_at)
    assert device.reason == (
        f"Tesla T4 is here, but PyTorch {torch.__version__} is built for the CPU only"
        ' ("Torch not compiled with CUDA enabled").'
    )
