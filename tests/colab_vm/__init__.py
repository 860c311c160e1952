"""A double of Google Colab: real kernels on real machines with a real, moody Drive.

A machine is a mount and a PID namespace of its own: a fresh local disk in memory, the real paths
(/content, /var/colab/hostname), the stub of google.colab, a Jupyter kernel, and a FUSE file
system for Drive, whose daemon uploads to a folder, the cloud. Killing a machine is one SIGKILL,
after which only the cloud is left::

    def test_...(cloud):                       # fixture of tests/integration/conftest.py
        machine = cloud.machine("gpu", rules=DriveRules(upload_bytes_per_s=1_000_000))
        machine.run_cell("import colabkit; colabkit.mount()").check()
        cell = machine.kernel.begin("train()")
        machine.kernel.wait_for_text(cell, "epoch 1")
        machine.kill()                         # or pull_the_plug() from another thread
        assert "run/weights" in cloud.files()  # path below My Drive: size
        again = cloud.machine("cpu")

Cells: ``run_cell(code) -> CellResult`` (stdout, stderr, result, error, traceback; ``check()``
raises CellError), ``kernel.begin``/``finish`` for two things at a time, ``interrupt()``,
``restart_kernel()``; ``run_script(source or path, *args) -> ScriptResult`` runs with no kernel.
``machine.path("/content/x")`` is the host's window on the machine's files, the mount included.

The front end: ``machine.front_end.answer = Answer.NOBODY`` (SILENT, CONSENT, DENIED);
``.kind = Client.EDITOR`` (PAGE, TERMINAL); ``.clock_rate = 60`` lets the stub's time-outs pass
sixty times as fast; ``.requests`` is all that was asked, also off the main thread. The starts of
Drive: ``machine.drive.will_mount(MountOutcome.FAILED, MountOutcome.FAILED)`` fails twice,
``will_mount(then=FAILED)`` for ever.

Drive: ``machine.drive.change(upload_bytes_per_s=0)`` sets any of DriveRules at once;
``inject(Fault("write", "MyDrive/runs/*", (2, 107), skip=3, count=2))``, ``heal()``;
``kill_mount()`` (ENOTCONN), ``unmount()`` (a plain, empty folder), ``mount()`` (as if a cell had
done it), ``waiting()`` (what is not uploaded, and why), ``wait_until_uploaded()``.

The cloud: ``files()``, ``trash()``, ``used_bytes()``, ``quota_bytes = n``, ``empty_trash()``,
``path("x")`` to read or plant a file as another machine would.

``python -m tests.colab_vm notebook.ipynb --kill-after 20s`` runs a notebook over two machines.
"""

from tests.colab_vm.abilities import missing_ability
from tests.colab_vm.cloud import Cloud
from tests.colab_vm.drive import DriveControl, MountOutcome
from tests.colab_vm.front_end import Answer, Client, FrontEnd
from tests.colab_vm.kernel import CellError, CellResult, Kernel, MachineEndedError
from tests.colab_vm.machine import Machine, ScriptResult
from tests.colab_vm.platforms import Platform
from tests.colab_vm.rules import Attributes, DriveRules, Fault, UploadOrder

__all__ = [
    "Answer",
    "Attributes",
    "CellError",
    "CellResult",
    "Client",
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
