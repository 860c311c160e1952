"""What a device looks like in a notebook."""

from __future__ import annotations

from colabkit.runtime import ComputeCapability, Device, DeviceKind, GpuFault


def test_a_gpu_says_what_it_is():
    shown = Device(
        DeviceKind.CUDA,
        "Tesla T4",
        15360 << 20,
        free_bytes=14 << 30,
        compute_capability=ComputeCapability(7, 5),
        driver_version="550.54.15",
        precision="fp16",
        count=2,
    )._repr_html_()
    for words in (
        "2 × Tesla T4",
        "15.0 GB, 14.0 GB free",
        "compute capability 7.5, driver 550.54.15",
        "fp16",
        "ck-good",
    ):
        assert words in shown


def test_a_cpu_says_why_and_what_to_do_and_all_is_escaped():
    shown = Device(
        DeviceKind.CPU,
        "<CPU>",
        fault=next(iter(GpuFault)),
        reason="There is <no> GPU.",
        advice="Choose <T4>.",
        notices=("<note>",),
    )._repr_html_()
    for words in ("&lt;CPU&gt;", "There is &lt;no&gt; GPU.", "Choose &lt;T4&gt;.", "&lt;note&gt;"):
        assert words in shown
