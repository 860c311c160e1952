"""A double of Google Colab: real kernels on real machines with a real, moody Drive."""

from tests.colab_vm.abilities import missing_ability
from tests.colab_vm.cloud import Cloud
from tests.colab_vm.drive import DriveControl, MountOutcome
from tests.colab_vm.front_end import Answer, FrontEnd
from tests.colab_vm.kernel import CellError, CellResult, Kernel, MachineEndedError
from tests.colab_vm.machine import Machine, ScriptResult
from tests.colab_vm.platforms import Platform
from tests.colab_vm.rules import Attributes, DriveRules, Fault, UploadOrder

__all__ = [
    "Answer",
    "Attributes",
    "CellError",
    "CellResult",
    "Cloud",
    "DriveControl",
    "DriveRules",
    "Fault",
    "FrontEnd",
    "Kernel",
    "Machine",
    "MachineEndedError",
    "MountOutcome",
    "Platform",
    "ScriptResult",
    "UploadOrder",
    "missing_ability",
]
