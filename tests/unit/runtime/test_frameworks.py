"""What frameworks say when they cannot use a GPU is understood."""

from __future__ import annotations

import builtins
import os
import sys
import types
import warnings
from typing import Any

import pytest

from colabkit.runtime import (
    ComputeCapability,
    GpuFault,
    TensorFlowFramework,
    TorchFramework,
)
from colabkit.runtime.faults import fault_in
from colabkit.runtime.frameworks import to_probe
from tests.unit.runtime.machines import Said, works

GROWTH = "TF_FORCE_GPU_ALLOW_GROWTH"
TOO_OLD = (
    "The NVIDIA driver on your system is too old (found version 11040). Please update your GPU"
    " driver by downloading and installing a new version from the URL:"
    " http://www.nvidia.com/Download/index.aspx Alternatively, go to: https://pytorch.org to"
    " install a PyTorch version that has been compiled with your version of the CUDA driver."
)
SAYINGS = [
    ("Torch not compiled with CUDA enabled", GpuFault.CPU_ONLY_BUILD),
    (TOO_OLD, GpuFault.DRIVER_TOO_OLD),
    ("CUDA driver version is insufficient for CUDA runtime version", GpuFault.DRIVER_TOO_OLD),
    (
        (
            "Unexpected error from cudaGetDeviceCount(). Did you run some cuda functions before"
            " calling NumCudaDevices() that might have already set an error? Error 803: system has"
            " unsupported display driver / cuda driver combination"
        ),
        GpuFault.DRIVER_TOO_OLD,
    ),
    (
        (
            "CUDA out of memory. Tried to allocate 2.00 MiB. GPU 0 has a total capacity of"
            " 14.74 GiB of which 1.06 MiB is free. Process 4321 has 14.74 GiB memory in use."
        ),
        GpuFault.OUT_OF_MEMORY,
    ),
    ("CUDA error: out of memory", GpuFault.OUT_OF_MEMORY),
    (
        "failed call to cuDevicePrimaryCtxRetain: CUDA_ERROR_OUT_OF_MEMORY: out of memory",
        GpuFault.OUT_OF_MEMORY,
    ),
    ("OOM when allocating tensor with shape[1]", GpuFault.OUT_OF_MEMORY),
    (
        (
            "Failed copying input tensor from CPU:0 to GPU:0 in order to run Mul: Dst tensor is not"
            " initialized."
        ),
        GpuFault.OUT_OF_MEMORY,
    ),
    (
        (
            "CUDA error: no kernel image is available for execution on the device\nCUDA kernel"
            " errors might be asynchronously reported at some other API call"
        ),
        GpuFault.GPU_TOO_OLD,
    ),
    ("CUDA error: CUDA-capable device(s) is/are busy or unavailable", GpuFault.BUSY),
    ("No CUDA GPUs are available", GpuFault.NOT_SEEN),
    (
        (
            "Found no NVIDIA driver on your system. Please check that you have an NVIDIA GPU and"
            " installed a driver from http://www.nvidia.com/Download/index.aspx"
        ),
        GpuFault.DRIVER_BROKEN,
    ),
    ("CUDA error: an illegal memory access was encountered", GpuFault.OTHER),
]


@pytest.mark.parametrize(("said", "fault"), SAYINGS)
def test_each_saying_has_its_meaning(said, fault):
    assert fault_in(said) is fault


class FakeCuda:
    """torch.cuda of a machine with two T4s, or one that refuses with some words."""

    def __init__(self, error: Exception | None) -> None:
        self.error = error
        self.is_up = False

    def init(self) -> None:
        warnings.warn("Found GPU0 which is of cuda capability 6.0", stacklevel=2)
        if self.error is not None:
            raise self.error
        self.is_up = True

    def is_initialized(self) -> bool:
        return self.is_up

    def current_device(self) -> int:
        return 0

    def get_device_properties(self, index: int) -> Any:
        return types.SimpleNamespace(
            name="Tesla T4", uuid="8f1a", total_memory=15_828_320_256, major=7, minor=5
        )

    def mem_get_info(self, index: int) -> tuple[int, int]:
        return 15_727_263_744, 15_828_320_256

    def memory_reserved(self) -> int:
        return 2 << 20

    def device_count(self) -> int:
        return 2


def fake_torch(error: Exception | None = None, cuda: str | None = "12.8") -> Any:
    class Number:
        def add_(self, _: int) -> Number:
            return self

        def item(self) -> float:
            return 2.0

    def ones(size: int, *, device: str) -> Number:
        assert device in {"cuda:0", "mps"}
        return Number()

    mps = types.SimpleNamespace(is_available=lambda: cuda != "too old")
    return types.SimpleNamespace(
        __version__="2.11.0+cu128",
        version=types.SimpleNamespace(cuda=cuda),
        cuda=FakeCuda(error),
        ones=ones,
        backends=types.SimpleNamespace(mps=mps),
        mps=types.SimpleNamespace(recommended_max_memory=lambda: 12 << 30),
    )


def probe_torch(monkeypatch: pytest.MonkeyPatch, torch: Any) -> Any:
    monkeypatch.setitem(sys.modules, "torch", torch)
    return TorchFramework().probe()


def test_a_torch_that_works_tells_the_card_it_uses(monkeypatch):
    report = probe_torch(monkeypatch, fake_torch())
    assert report.fault is None
    assert (report.framework, report.cuda_version) == ("PyTorch", "12.8")
    assert (report.name, report.uuid, report.count) == ("Tesla T4", "8f1a", 2)
    assert report.compute_capability == ComputeCapability(7, 5)
    assert (report.free_bytes, report.memory_bytes) == (15_727_263_744, 15_828_320_256)
    assert report.own_bytes == 2 << 20


@pytest.mark.parametrize(("said", "fault"), SAYINGS)
def test_a_torch_that_refuses_is_quoted(said, fault, monkeypatch):
    report = probe_torch(monkeypatch, fake_torch(RuntimeError(said)))
    assert report.fault is fault
    assert report.said == said.splitlines()[0]
    assert report.own_bytes == 0


def test_a_torch_without_cuda_is_known_before_it_is_tried(monkeypatch):
    report = probe_torch(monkeypatch, fake_torch(AssertionError("never asked"), cuda=None))
    assert report.fault is GpuFault.CPU_ONLY_BUILD
    assert report.said == "Torch not compiled with CUDA enabled"


def test_apples_gpu_is_tried_too(monkeypatch):
    monkeypatch.setattr(sys, "platform", "darwin")
    report = probe_torch(monkeypatch, fake_torch(cuda=None))
    assert (report.fault, report.backend, report.memory_bytes) == (None, "mps", 12 << 30)
    assert probe_torch(monkeypatch, fake_torch(cuda="too old")).fault is GpuFault.NOT_SEEN


@pytest.mark.parametrize("framework", [TorchFramework(), TensorFlowFramework()])
@pytest.mark.parametrize(
    "error",
    [
        ImportError("no module"),
        OSError("libcudart.so.12"),
        ValueError("numpy.dtype size changed, may indicate binary incompatibility"),
        TypeError("Descriptors cannot be created directly."),
    ],
)
def test_a_framework_that_cannot_be_imported_is_quoted(framework, error, monkeypatch):
    real = builtins.__import__

    def refuse(name: str, *given: Any, **named: Any) -> Any:
        if name == framework.module:
            raise error
        return real(name, *given, **named)

    monkeypatch.setattr(builtins, "__import__", refuse)
    report = framework.probe()
    assert (report.fault, report.said) == (GpuFault.BROKEN_FRAMEWORK, str(error))


class FakeConfig:
    """tf.config of a machine with one T4, before or after TensorFlow has started."""

    def __init__(self, *, started: bool, gpus: int, grows: bool = False) -> None:
        self.started = started
        self.gpus = [f"GPU:{number}" for number in range(gpus)]
        self.grown: list[str] = list(self.gpus) if grows else []
        self.visible: list[str] = list(self.gpus)
        self.experimental = self

    def list_physical_devices(self, kind: str) -> list[str]:
        assert kind == "GPU"
        return self.gpus

    def _change(self) -> None:
        if self.started:
            raise RuntimeError("Physical devices cannot be modified after being initialized")

    def set_memory_growth(self, gpu: str, enable: bool) -> None:
        self._change()
        self.grown.append(gpu)

    def get_memory_growth(self, gpu: str) -> bool:
        return gpu in self.grown

    def set_visible_devices(self, devices: list[str], kind: str) -> None:
        self._change()
        self.visible = devices

    def get_device_details(self, gpu: str) -> dict[str, Any]:
        return {"device_name": "Tesla T4", "compute_capability": (7, 5)}

    def get_memory_info(self, gpu: str) -> dict[str, int]:
        return {"current": 1280, "peak": 2560}


def fake_tensorflow(
    monkeypatch: pytest.MonkeyPatch,
    *,
    started: bool = False,
    gpus: int = 1,
    cuda: bool = True,
    error: Exception | None = None,
    grows: bool = False,
) -> Any:
    class Number:
        def __add__(self, _: float) -> Number:
            return self

        def numpy(self) -> float:
            return 2.0

    class Place:
        def __enter__(self) -> None:
            if error is not None:
                raise error

        def __exit__(self, *_: object) -> None:
            pass

    class OpError(Exception):
        pass

    module = types.SimpleNamespace(
        __version__="2.20.0",
        config=FakeConfig(started=started, gpus=gpus, grows=grows),
        test=types.SimpleNamespace(
            is_built_with_cuda=lambda: cuda, is_built_with_rocm=lambda: False
        ),
        errors=types.SimpleNamespace(OpError=OpError),
        sysconfig=types.SimpleNamespace(get_build_info=lambda: {"cuda_version": "12.5.1"}),
        device=lambda name: Place(),
        ones=lambda shape: Number(),
    )
    monkeypatch.setitem(sys.modules, "tensorflow", module)
    return module


def test_tensorflow_takes_memory_as_it_needs_it(monkeypatch):
    module = fake_tensorflow(monkeypatch, gpus=2)
    report = TensorFlowFramework().probe()
    assert module.config.grown == ["GPU:0", "GPU:1"]
    assert (report.fault, report.name, report.count) == (None, "Tesla T4", 2)
    assert report.compute_capability == ComputeCapability(7, 5)
    assert report.notice == ""


def test_before_tensorflow_is_imported_only_the_environment_is_set(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setenv(GROWTH, "x")
    monkeypatch.delenv(GROWTH)
    TensorFlowFramework().prepare()
    assert os.environ[GROWTH] == "true"
    assert "tensorflow" not in sys.modules


def test_the_users_own_choice_on_memory_stands(monkeypatch):
    monkeypatch.delitem(sys.modules, "tensorflow", raising=False)
    monkeypatch.setenv(GROWTH, "false")
    TensorFlowFramework().prepare()
    assert os.environ[GROWTH] == "false"


def test_a_tensorflow_that_has_all_the_memory_already_is_told(monkeypatch):
    monkeypatch.setenv(GROWTH, "false")
    fake_tensorflow(monkeypatch, started=True)
    assert "restart the session" in TensorFlowFramework().probe().notice
    fake_tensorflow(monkeypatch, started=True, grows=True)
    assert TensorFlowFramework().probe().notice == ""
    monkeypatch.setenv(GROWTH, "true")
    fake_tensorflow(monkeypatch, started=True)
    assert TensorFlowFramework().probe().notice == ""


def test_what_stops_tensorflow_is_told_apart(monkeypatch):
    faults = {}
    for name, facts in {
        "cpu": {"cuda": False},
        "libraries": {"gpus": 0},
        "memory": {"error": RuntimeError("CUDA_ERROR_OUT_OF_MEMORY: out of memory")},
    }.items():
        fake_tensorflow(monkeypatch, **facts)
        faults[name] = TensorFlowFramework().probe().fault
    assert faults == {
        "cpu": GpuFault.CPU_ONLY_BUILD,
        "libraries": GpuFault.NOT_SEEN,
        "memory": GpuFault.OUT_OF_MEMORY,
    }


def test_tensorflow_is_kept_off_the_gpu_when_none_is_wanted(monkeypatch):
    module = fake_tensorflow(monkeypatch)
    assert TensorFlowFramework().hide_gpu() == ""
    assert module.config.visible == []
    fake_tensorflow(monkeypatch, started=True)
    assert "restart the session" in TensorFlowFramework().hide_gpu()
    monkeypatch.delitem(sys.modules, "tensorflow")
    assert TensorFlowFramework().hide_gpu() == ""
    assert TorchFramework().hide_gpu() == ""


def test_the_imported_frameworks_are_asked_else_the_first_installed():
    def named(module: str) -> Said:
        said = works()
        said.module = module
        return said

    one, two, absent = named("sys"), named("os"), named("no_such_framework")
    for module in ("xml.dom.pulldom", "xml.sax.expatreader"):
        sys.modules.pop(module, None)
    idle, later = named("xml.dom.pulldom"), named("xml.sax.expatreader")
    assert to_probe([one, idle, two]) == [one, two]
    assert to_probe([absent, idle, later]) == [idle]
    assert to_probe([absent]) == []
