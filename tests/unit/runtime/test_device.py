"""What training runs on is described, and what else there is to know of it."""

from __future__ import annotations

import subprocess
import sys

import pytest

from colabkit.errors import ArgumentError, GpuUnavailableError
from colabkit.runtime import (
    ComputeCapability,
    DeviceKind,
    FrameworkReport,
    GpuFault,
    Platform,
    Tpu,
    detect_device,
)
from tests.unit.runtime import machines
from tests.unit.runtime.machines import OTHER_PID, Said, Smi, fails, holding, probes, works

GB = 1 << 30
T4 = Smi(machines.T4_LINE)
T4_FULL = Smi(machines.T4_FULL_LINE)


def test_a_gpu_that_works_is_described_in_one_line():
    device = detect_device(probes=probes(T4, works()))
    assert str(device) == "Tesla T4, 15.0 GB, compute capability 7.5, driver 550.54, fp16"
    assert repr(device) == f"<Device cuda: {device}>"
    assert (device.kind, device.torch_device) == (DeviceKind.CUDA, "cuda")
    assert device.free_bytes == 15_727_263_744
    assert device.confirmed_by == ("PyTorch",)
    assert not device.fault
    assert device.reason == device.advice == ""
    assert device.notices == ()


@pytest.mark.parametrize(
    ("capability", "precision"),
    [((6, 0), "fp16"), ((7, 5), "fp16"), ((8, 0), "bf16"), ((9, 0), "bf16"), ((12, 0), "bf16")],
)
def test_precision_is_bf16_where_the_hardware_has_it(capability, precision):
    device = detect_device(probes=probes(T4, works(capability=capability)))
    assert device.precision == precision
    assert device.compute_capability == ComputeCapability(*capability)


def test_the_menu_is_that_of_the_platform():
    advice = {
        platform: detect_device(platform=platform, probes=probes(None)).advice
        for platform in Platform
    }
    assert "Runtime → Change runtime type → T4 GPU" in advice[Platform.COLAB]
    assert "Settings → Accelerator" in advice[Platform.KAGGLE]
    assert "→" not in advice[Platform.OTHER]
    assert len(set(advice.values())) == len(Platform)


def test_on_your_own_machine_the_advice_names_no_menu():
    looked_at = probes(T4, fails(GpuFault.DRIVER_TOO_OLD))
    own = detect_device(platform=Platform.OTHER, probes=looked_at)
    assert own.advice == "Update the NVIDIA driver, or install PyTorch built for an older CUDA."


def test_a_gpu_hidden_by_the_environment_is_named_as_that():
    for value in ("", "-1"):
        device = detect_device(
            probes=probes(
                T4,
                fails(GpuFault.NOT_SEEN, "No CUDA GPUs are available"),
                environ={"CUDA_VISIBLE_DEVICES": value},
            )
        )
        assert device.fault is GpuFault.HIDDEN
        assert device.reason == f'Tesla T4 is here, but CUDA_VISIBLE_DEVICES="{value}" hides it.'


def test_no_gpu_is_concluded_from_the_environment():
    device = detect_device(probes=probes(None, environ={"NVIDIA_VISIBLE_DEVICES": "all"}))
    assert device.fault is GpuFault.NO_GPU


def test_a_tpu_machine_is_told_apart():
    device = detect_device(platform=Platform.COLAB, probes=probes(None, tpu=Tpu("v5e", 1)))
    assert (device.kind, device.torch_device) == (DeviceKind.TPU, "cpu")
    assert str(device) == "TPU v5e, fp32"
    assert device.reason == ("This machine has a TPU v5e and no GPU; PyTorch trains on its CPU.")
    assert "Runtime → Change runtime type" in device.advice
    assert not device.is_gpu
    with pytest.raises(GpuUnavailableError, match="TPU v5e"):
        detect_device("require", platform=Platform.COLAB, probes=probes(None, tpu=Tpu("v5e", 1)))


def test_several_gpus_are_counted_and_said():
    device = detect_device(probes=probes(Smi(machines.T4_PAIR), works(count=2)))
    assert str(device) == (
        "2 × Tesla T4, 15.0 GB each, compute capability 7.5, driver 550.54, fp16"
    )
    assert device.notices == ("2 GPUs are here; training uses one of them.",)


def test_the_card_in_use_is_found_by_its_uuid():
    small = f"{machines.T4_SECOND}, Tesla T4, 8192, 8000, 550.54.15, [N/A], 7.5\n"
    smi = Smi(machines.T4_LINE + small)
    uuid = machines.T4_SECOND.removeprefix("GPU-")
    device = detect_device(probes=probes(smi, works(uuid=uuid)))
    assert device.memory_bytes == 8 * GB


def test_a_slice_has_the_size_the_framework_sees():
    smi = Smi(machines.A100_CUT_LINE, listing=machines.A100_SLICES)
    sees = works("NVIDIA A100-SXM4-40GB MIG 1g.5gb", (8, 0), memory_bytes=5 * GB, free_bytes=5 * GB)
    device = detect_device(probes=probes(smi, sees))
    assert str(device) == (
        "NVIDIA A100-SXM4-40GB MIG 1g.5gb, 5.0 GB, compute capability 8.0, driver 535.104, bf16"
    )
    assert device.notices == (
        (
            "NVIDIA A100-SXM4-40GB is cut into slices (MIG: 1g.5gb, 2g.10gb);"
            " a process uses one of them."
        ),
    )


def test_a_gpu_that_is_nearly_full_is_used_and_said():
    smi = holding(OTHER_PID, "python3")
    device = detect_device(probes=probes(smi, works(free_bytes=GB // 5)))
    assert device.is_gpu
    assert device.notices == (
        "Only 0.2 GB of 14.7 GB are free: process 4321 (python3) holds 14.5 GB.",
    )
    own = detect_device(probes=probes(T4_FULL, works(free_bytes=GB // 5, own_bytes=14 * GB)))
    assert own.notices == (
        "Only 0.2 GB of 14.7 GB are free: earlier cells of this session hold 14.0 GB.",
    )


def test_without_a_framework_the_driver_is_believed_and_that_is_said():
    device = detect_device(probes=probes(T4))
    assert str(device) == "Tesla T4, 15.0 GB, compute capability 7.5, driver 550.54, fp16"
    assert device.confirmed_by == ()
    assert device.notices == ("No framework is installed yet that could confirm the GPU.",)


def test_one_framework_that_works_is_enough_and_the_other_is_named():
    broken = fails(GpuFault.CPU_ONLY_BUILD, "Torch not compiled with CUDA enabled")
    tensorflow = Said(FrameworkReport("TensorFlow", name="Tesla T4"))
    device = detect_device(probes=probes(T4, broken, tensorflow))
    assert device.confirmed_by == ("TensorFlow",)
    assert device.notices == (
        'PyTorch cannot use the GPU ("Torch not compiled with CUDA enabled").',
    )


def test_only_the_preferred_framework_is_imported_when_none_is():
    torch, tensorflow = works(), works()
    torch.module, tensorflow.module = "xml.dom.pulldom", "xml.sax.expatreader"
    for module in (torch.module, tensorflow.module):
        sys.modules.pop(module, None)
    detect_device(probes=probes(T4, torch, tensorflow))
    assert torch.calls == ["prepare", "probe"]
    assert tensorflow.calls == ["prepare"]


def test_apples_gpu_is_used_in_single_precision():
    apple = Said(FrameworkReport("PyTorch", backend="mps", name="Apple GPU", memory_bytes=12 * GB))
    device = detect_device(probes=probes(None, apple, is_apple=True))
    assert (device.kind, device.torch_device) == (DeviceKind.MPS, "mps")
    assert str(device) == "Apple GPU, 12.0 GB, fp32"


def test_an_old_macos_says_why_its_gpu_is_not_used():
    old = Said(FrameworkReport("PyTorch", "2.11.0", GpuFault.NOT_SEEN, "this macOS is too old"))
    device = detect_device(probes=probes(None, old, is_apple=True))
    assert device.reason == (
        'The GPU is here, but PyTorch 2.11.0 does not find it ("this macOS is too old").'
    )


def test_no_gpu_wanted_takes_the_cpu_and_asks_no_driver():
    def never() -> None:
        raise AssertionError

    framework = works()
    framework.hidden = "TensorFlow still sees the GPU."
    looked_at = probes(T4, framework)
    device = detect_device(
        gpu=False, probes=type(looked_at)(never, never, looked_at.host, (framework,))
    )
    assert device.kind is DeviceKind.CPU
    assert device.fault is GpuFault.NOT_WANTED
    assert device.notices == ("TensorFlow still sees the GPU.",)
    assert framework.calls == ["hide"]


@pytest.mark.parametrize("gpu", ["yes", None, 1, 0, "cuda"])
def test_any_other_wish_is_refused_before_anything_is_looked_at(gpu):
    with pytest.raises(ArgumentError, match="require") as caught:
        detect_device(gpu)
    assert caught.value.argument == "gpu"


def test_on_a_machine_without_a_driver_nothing_is_imported_and_it_is_quick():
    code = """
import sys, time
from colabkit.runtime import Probes, detect_device
probes = Probes(driver=lambda: None, tpu=lambda: None)
began_s = time.process_time()
detect_device(probes=probes)
print(time.process_time() - began_s, {"torch", "tensorflow", "pynvml"} & set(sys.modules))
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    took_s, loaded = done.stdout.split(maxsplit=1)
    assert loaded.strip() == "set()"
    assert float(took_s) < 5
