"""A TPU is known by its hardware and by what its machines set."""

from __future__ import annotations

from pathlib import Path

import pytest

from colabkit.runtime import Tpu, find_tpu


def plug(root: Path, slot: str, vendor: str, device: str) -> None:
    folder = root / "sys/bus/pci/devices" / slot
    folder.mkdir(parents=True)
    (folder / "vendor").write_text(f"{vendor}\n")
    (folder / "device").write_text(f"{device}\n")


def test_chips_are_counted_on_the_bus(tmp_path):
    for number in range(4):
        plug(tmp_path, f"0000:00:0{number}.0", "0x1ae0", "0x0063")
    plug(tmp_path, "0000:00:09.0", "0x1ae0", "0x0042")  # a network card of the same maker
    plug(tmp_path, "0000:00:0a.0", "0x10de", "0x1eb8")
    assert find_tpu({}, tmp_path) == Tpu("v5e", 4)


@pytest.mark.parametrize(
    ("environ", "expected"),
    [
        ({"TPU_ACCELERATOR_TYPE": "v5e-1", "COLAB_TPU_1VM": "1"}, Tpu("v5e", 1)),
        ({"TPU_ACCELERATOR_TYPE": "v5litepod-8"}, Tpu("v5e", 1)),
        ({"TPU_ACCELERATOR_TYPE": "v6e-1"}, Tpu("v6e", 1)),
        ({"COLAB_TPU_ADDR": "10.0.0.2:8470"}, Tpu("", 1)),
        ({"TPU_NAME": "local"}, Tpu("", 1)),
        ({"COLAB_TPU_1VM": ""}, None),
        ({"NVIDIA_VISIBLE_DEVICES": "all"}, None),
        ({}, None),
    ],
)
def test_the_environment_names_it(environ, expected, tmp_path):
    assert find_tpu(environ, tmp_path) == expected


def test_devices_name_it(tmp_path):
    (tmp_path / "dev/vfio").mkdir(parents=True)
    (tmp_path / "dev/vfio/0").touch()
    assert find_tpu({}, tmp_path) is None  # any machine may pass devices through
    assert find_tpu({"COLAB_TPU_1VM": "1"}, tmp_path) == Tpu("", 1)
    (tmp_path / "dev/accel").mkdir()
    (tmp_path / "dev/accel/accel0").touch()
    assert find_tpu({}, tmp_path) is None  # another maker's
    for number in range(8):
        (tmp_path / f"dev/accel{number}").touch()
    assert find_tpu({}, tmp_path) == Tpu("", 8)
