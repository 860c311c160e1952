"""The kinds of machine: what their environment, files and devices look like."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass, field

_NVIDIA_SMI = """#!/bin/sh
case "$*" in
  *--query-gpu=*) echo "Tesla T4, 15360, 0, 550.54.15, 7.5" ;;
  *-L*) echo "GPU 0: Tesla T4 (UUID: GPU-00000000-0000-0000-0000-000000000000)" ;;
  *) echo "NVIDIA-SMI 550.54.15    Driver Version: 550.54.15    CUDA Version: 12.4"
     echo "|   0  Tesla T4                       Off |   00000000:00:04.0 Off |"
     echo "|   0MiB /  15360MiB |      0%      Default |" ;;
esac
"""


class Platform(enum.StrEnum):
    """A kind of machine that a notebook runs on."""

    CPU = "cpu"
    GPU = "gpu"
    TPU = "tpu"
    KAGGLE = "kaggle"
    LOCAL = "local"
    ENTERPRISE = "enterprise"

    @property
    def has_colab_shell(self) -> bool:
        """Whether the kernel is Colab's own."""
        return self not in (Platform.KAGGLE, Platform.LOCAL)


@dataclass(frozen=True)
class Look:
    """What a program can see of its kind of machine."""

    environ: Mapping[str, str]
    files: Mapping[str, str] = field(default_factory=dict)
    workdir: str = "/content"


_HOSTED = {
    # Set on CPU machines too: nothing can be told about a GPU from it.
    "NVIDIA_VISIBLE_DEVICES": "all",
    "CLOUDSDK_CONFIG": "/content/.config",
    "COLAB_JUPYTER_IP": "172.28.0.12",
    "COLAB_RELEASE_TAG": "release-colab-external_20260408-060048_RC00",
    "COLAB_GPU": "",
    "ENABLE_DIRECTORYPREFETCHER": "1",
    "PYTHONUTF8": "1",
    "TBE_CREDS_ADDR": "172.28.0.1:8008",
    "TBE_EPHEM_CREDS_ADDR": "172.28.0.1:8009",
    "TBE_RUNTIME_ADDR": "172.28.0.1:8011",
    "USE_AUTH_EPHEM": "1",
    "VM_GCE_METADATA_HOST": "169.254.169.253",
}
_HOSTNAME = {
    "/var/colab/hostname": "m-s-double\n",
    "/content/sample_data/README.md": "Sample data.\n",
}


def look_of(platform: Platform) -> Look:
    """Returns what a machine of a kind looks like from inside."""
    match platform:
        case Platform.CPU:
            return Look(_HOSTED, _HOSTNAME)
        case Platform.GPU:
            files = _HOSTNAME | {"/opt/colab_vm/bin/nvidia-smi": _NVIDIA_SMI}
            return Look(_HOSTED | {"COLAB_GPU": "1"}, files)
        case Platform.TPU:
            tpu = {"TPU_ACCELERATOR_TYPE": "v5e-1", "TPU_WORKER_ID": "0", "PJRT_DEVICE": "TPU"}
            return Look(_HOSTED | tpu, _HOSTNAME)
        case Platform.ENTERPRISE:
            return Look(_HOSTED | {"VERTEX_PRODUCT": "COLAB_ENTERPRISE"}, _HOSTNAME)
        case Platform.KAGGLE:
            kaggle = {
                # Kaggle's image is made from Colab's and keeps its tag.
                "COLAB_RELEASE_TAG": _HOSTED["COLAB_RELEASE_TAG"],
                "KAGGLE_KERNEL_RUN_TYPE": "Interactive",
                "KAGGLE_URL_BASE": "https://www.kaggle.com",
            }
            return Look(kaggle, {"/kaggle/input/.keep": ""}, workdir="/kaggle/working")
        case Platform.LOCAL:
            return Look({})
