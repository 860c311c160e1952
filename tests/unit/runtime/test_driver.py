"""The driver's words, as recorded, become facts."""

from __future__ import annotations

import stat
import types
from pathlib import Path

import pytest

from colabkit.runtime import (
    Answer,
    ComputeCapability,
    DriverReport,
    Gpu,
    GpuProcess,
    NvmlDriver,
    SmiDriver,
    read_driver,
)
from colabkit.runtime.driver import has_driver_traces
from tests.unit.runtime import machines
from tests.unit.runtime.machines import Smi

MIB = 1 << 20


def test_a_t4_is_read_as_nvidia_smi_prints_it():
    processes = (
        f"{machines.T4}, 4321, 14892, /usr/bin/python3\n"
        f"{machines.T4}, 4400, [N/A], [Insufficient Permissions]\n"
        f"{machines.T4}, 4500, 10, /opt/a, b/tool\n"
        "GPU-of-another, 1, 2, x\n"
    )
    assert Smi(machines.T4_LINE, processes).report() == DriverReport(
        gpus=(
            Gpu(
                name="Tesla T4",
                uuid=machines.T4,
                memory_bytes=15360 * MIB,
                free_bytes=15095 * MIB,
                compute_capability=ComputeCapability(7, 5),
                processes=(
                    GpuProcess(4321, "/usr/bin/python3", 14892 * MIB),
                    GpuProcess(4400, "", None),
                    GpuProcess(4500, "/opt/a, b/tool", 10 * MIB),
                ),
            ),
        ),
        version="550.54.15",
        cuda_version="12.4",
    )


def test_a_tool_too_old_for_a_field_is_asked_without_it():
    smi = Smi(machines.OLD_DRIVER_LINE, header=machines.OLD_HEADER, is_old=True)
    report = smi.report()
    assert report.version == "470.82.01"
    assert report.cuda_version == "11.4"
    assert report.gpus[0].compute_capability is None


def test_slices_are_listed_by_their_profile():
    gpu = Smi(machines.A100_CUT_LINE, listing=machines.A100_SLICES).report().gpus[0]
    assert gpu.mig_enabled
    assert gpu.mig_slices == ("1g.5gb", "2g.10gb")
    assert gpu.free_bytes is None
    whole = Smi(machines.A100_LINE).report().gpus[0]
    assert not whole.mig_enabled


def test_no_devices_is_an_answer_and_a_broken_driver_a_failure():
    assert Smi(machines.NO_DEVICES).report() == DriverReport()
    assert Smi(machines.NO_DRIVER).report().failure.startswith("NVIDIA-SMI has failed because")
    assert Smi(machines.MISMATCH).report().failure == (
        "Failed to initialize NVML: Driver/library version mismatch"
    )
    assert SmiDriver(lambda _: Answer("", ok=False)).report().failure


@pytest.mark.parametrize("text", ["", "\n\n", ",,,,,,\n", "garbage\n"])
def test_words_that_are_none_of_its_own_show_no_gpu(text):
    assert Smi(text).report().gpus == ()


def install_smi(folder: Path, script: str, monkeypatch: pytest.MonkeyPatch) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}:/usr/bin:/bin")


def test_the_program_itself_is_run(tmp_path, monkeypatch):
    script = f"""case "$1" in
--query-gpu*) printf '{machines.T4_LINE.strip()}\\n';;
--query-compute*) ;;
*) echo 'CUDA Version: 12.4';;
esac"""
    install_smi(tmp_path, script, monkeypatch)
    report = SmiDriver().report()
    assert (report.gpus[0].name, report.cuda_version) == ("Tesla T4", "12.4")


def test_a_program_that_fails_gives_its_own_words(tmp_path, monkeypatch):
    install_smi(tmp_path, f'echo "{machines.NO_DRIVER.strip()}" >&2; exit 9', monkeypatch)
    assert SmiDriver().report().failure == machines.NO_DRIVER.strip()


def test_a_program_that_hangs_is_given_up(tmp_path, monkeypatch):
    monkeypatch.setattr("colabkit.runtime.nvidia_smi._TIMEOUT_S", 0.05)
    install_smi(tmp_path, "exec sleep 60", monkeypatch)
    assert "no answer" in SmiDriver().report().failure


def test_a_machine_without_the_program_has_no_such_driver(tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    assert SmiDriver().report() is None
    assert not has_driver_traces(tmp_path)
    assert read_driver(root=tmp_path) is None


@pytest.mark.parametrize(
    "trace", ["dev/nvidiactl", "dev/nvidia0", "dev/dxg", "proc/driver/nvidia/version"]
)
def test_any_trace_of_a_driver_is_followed(trace, tmp_path, monkeypatch):
    monkeypatch.setenv("PATH", str(tmp_path))
    (tmp_path / trace).parent.mkdir(parents=True)
    (tmp_path / trace).touch()
    assert has_driver_traces(tmp_path)


def test_the_first_driver_that_works_is_believed(tmp_path):
    broken, works = Smi(machines.MISMATCH), Smi(machines.T4_LINE)
    assert read_driver([broken, works], root=tmp_path).gpus[0].name == "Tesla T4"


def test_tools_without_a_card_are_a_machine_without_a_gpu(tmp_path):
    assert read_driver([Smi(machines.NO_DRIVER)], root=tmp_path) == DriverReport()
    (tmp_path / "dev").mkdir()
    (tmp_path / "dev/nvidia0").touch()
    assert read_driver([Smi(machines.NO_DRIVER)], root=tmp_path).failure


class NvmlError(Exception):
    pass


class LibraryNotFoundError(NvmlError):
    pass


def nvml(**changed: object) -> types.SimpleNamespace:
    """The part of pynvml that is used, for a machine with one T4."""

    def refuse(*_: object) -> None:
        raise NvmlError("Not Supported")

    memory = types.SimpleNamespace(total=15360 * MIB, free=15095 * MIB)
    holder = types.SimpleNamespace(pid=4321, usedGpuMemory=None)
    functions = {
        "nvmlInit": lambda: None,
        "nvmlShutdown": lambda: None,
        "nvmlDeviceGetCount": lambda: 1,
        "nvmlDeviceGetHandleByIndex": lambda index: index,
        "nvmlDeviceGetName": lambda _: b"Tesla T4",
        "nvmlDeviceGetUUID": lambda _: machines.T4,
        "nvmlDeviceGetMemoryInfo": lambda _: memory,
        "nvmlDeviceGetCudaComputeCapability": lambda _: (7, 5),
        "nvmlDeviceGetMigMode": refuse,
        "nvmlDeviceGetComputeRunningProcesses": lambda _: [holder],
        "nvmlSystemGetProcessName": refuse,
        "nvmlSystemGetDriverVersion": lambda: "550.54.15",
        "nvmlSystemGetCudaDriverVersion_v2": lambda: 12040,
        "NVMLError": NvmlError,
        "NVMLError_LibraryNotFound": LibraryNotFoundError,
    }
    return types.SimpleNamespace(**{**functions, **changed})


def test_nvml_says_the_same_as_the_program():
    processes = f"{machines.T4}, 4321, [N/A], [Not Found]\n"
    assert NvmlDriver(nvml).report() == Smi(machines.T4_LINE, processes).report()


def test_nvml_lists_slices():
    def handle(_: object, index: int) -> str:
        if index != 1:
            raise NvmlError("Not Found")
        return "slice"

    def name(handle: object) -> str:
        whole = "NVIDIA A100-SXM4-40GB"
        return f"{whole} MIG 1g.5gb" if handle == "slice" else whole

    module = nvml(
        nvmlDeviceGetMigMode=lambda _: [1, 1],
        nvmlDeviceGetMaxMigDeviceCount=lambda _: 7,
        nvmlDeviceGetMigDeviceHandleByIndex=handle,
        nvmlDeviceGetName=name,
    )
    gpu = NvmlDriver(lambda: module).report().gpus[0]
    assert gpu.mig_enabled
    assert gpu.mig_slices == ("1g.5gb",)


def test_nvml_without_its_library_leaves_the_word_to_the_program():
    def absent() -> None:
        raise LibraryNotFoundError

    assert NvmlDriver(lambda: nvml(nvmlInit=absent)).report() is None
    assert NvmlDriver(lambda: None).report() is None


def test_an_nvml_that_fails_gives_its_own_words():
    def mismatch(*_: object) -> None:
        raise NvmlError("Driver/library version mismatch")

    for broken in (nvml(nvmlInit=mismatch), nvml(nvmlDeviceGetHandleByIndex=mismatch)):
        report = NvmlDriver(lambda module=broken: module).report()
        assert report == DriverReport(failure="Driver/library version mismatch")
