"""The double's machines: what they look like, and that nothing outlives them but the cloud."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time

import nbformat
import pytest

from tests.abilities import CPU_TORCH
from tests.colab_vm import Answer, DriveRules, MachineEndedError, Platform

MOUNT = "from google.colab import drive; drive.mount('/content/drive')"
LOOK = """
import json, os, shutil
print(json.dumps({
    "hostname": os.path.exists("/var/colab/hostname"),
    "shell": type(get_ipython()).__module__,
    "workdir": os.getcwd(),
    "smi": shutil.which("nvidia-smi") is not None,
    "environ": dict(os.environ),
}))
"""


def look(machine) -> dict:
    return json.loads(machine.run_cell(LOOK).check().stdout)


def test_a_hosted_cpu_machine_says_nothing_about_its_gpu_in_the_environment(cloud):
    seen = look(cloud.machine(Platform.CPU))
    assert seen["hostname"]
    assert seen["shell"] == "google.colab._shell"
    assert seen["workdir"] == "/content"
    assert seen["environ"]["NVIDIA_VISIBLE_DEVICES"] == "all"
    assert not seen["smi"]
    assert seen["environ"]["HOME"] == "/root"
    assert "KAGGLE_KERNEL_RUN_TYPE" not in seen["environ"]


@pytest.mark.needs(CPU_TORCH)
def test_a_cpu_machine_has_a_torch_without_cuda(cloud):
    cell = "import torch; torch.zeros(1).cuda()"
    error = cloud.machine(Platform.CPU).run_cell(cell).error
    assert error == "AssertionError: Torch not compiled with CUDA enabled"


def test_a_gpu_machine_has_the_driver_s_program(cloud):
    machine = cloud.machine(Platform.GPU)
    seen = look(machine)
    assert seen["smi"]
    assert seen["environ"]["COLAB_GPU"] == "1"
    smi = "import subprocess; print(subprocess.check_output(['nvidia-smi', '-L'], text=True))"
    assert "Tesla T4" in machine.run_script(smi).check().stdout


def test_a_tpu_machine_names_its_accelerator(cloud):
    seen = look(cloud.machine(Platform.TPU))
    assert seen["environ"]["TPU_ACCELERATOR_TYPE"] == "v5e-1"
    assert seen["hostname"]


def test_kaggle_has_colab_s_tag_but_not_its_hostname(cloud):
    seen = look(cloud.machine(Platform.KAGGLE))
    assert not seen["hostname"]
    assert seen["shell"] == "ipykernel.zmqshell"
    assert seen["workdir"] == "/kaggle/working"
    assert seen["environ"]["KAGGLE_KERNEL_RUN_TYPE"] == "Interactive"
    assert "COLAB_RELEASE_TAG" in seen["environ"]


def test_a_local_runtime_is_an_ordinary_jupyter(cloud):
    seen = look(cloud.machine(Platform.LOCAL))
    assert not seen["hostname"]
    assert seen["shell"] == "ipykernel.zmqshell"
    assert "COLAB_RELEASE_TAG" not in seen["environ"]


def test_enterprise_is_hosted_and_named(cloud):
    seen = look(cloud.machine(Platform.ENTERPRISE))
    assert seen["hostname"]
    assert seen["environ"]["VERTEX_PRODUCT"] == "COLAB_ENTERPRISE"


def test_after_a_kill_only_the_cloud_is_left_and_the_disk_is_fresh(cloud, tmp_path):
    machine = cloud.machine(rules=DriveRules(upload_bytes_per_s=4_000))
    machine.run_cell(MOUNT).check()
    cell = """
import os, subprocess
open('/content/local', 'w').write('gone')
open('/root/home', 'w').write('gone')
open('/tmp/temporary', 'w').write('gone')
child = subprocess.Popen(['sleep', '1000'])
with open('/content/drive/MyDrive/small', 'w') as file:
    file.write('kept')
with open('/content/drive/MyDrive/large', 'wb') as file:
    file.write(bytes(1_000_000))
"""
    machine.run_cell(cell).check()
    while cloud.files().get("large", 0) == 0:
        time.sleep(0.005)
    processes = [int(p) for p in os.listdir(machine.path("/proc")) if p.isdigit()]
    assert len(processes) >= 4
    machine.kill()
    assert not machine.is_alive
    files = cloud.files()
    assert files["small"] == 4
    # The upload was cut: the object is there, and it is truncated.
    assert 0 < files["large"] < 1_000_000
    time.sleep(0.1)
    assert cloud.files() == files

    second = cloud.machine()
    second.run_cell(MOUNT).check()
    look = """
import os
print(sorted(os.listdir('/content')))
print([os.path.exists(path) for path in ('/root/home', '/tmp/temporary')])
print(open('/content/drive/MyDrive/small').read())
"""
    assert second.run_cell(look).check().stdout == (
        "['drive', 'sample_data']\n[False, False]\nkept\n"
    )


def test_a_machine_cannot_change_its_host(cloud):
    machine = cloud.machine()
    for folder in ("/usr", "/etc", os.path.dirname(__file__), sys.prefix):
        write = f"open({folder + '/from-a-machine'!r}, 'w')"
        assert "Read-only file system" in machine.run_script(write).stderr


def test_a_kill_in_the_middle_of_a_cell_is_told(cloud):
    machine = cloud.machine()
    cell = machine.kernel.begin("print('on'); import time; time.sleep(1000)")
    machine.kernel.wait_for_text(cell, "on")
    machine.pull_the_plug()
    with pytest.raises(MachineEndedError):
        machine.kernel.finish(cell)


def test_unassigning_ends_the_machine_without_a_flush(cloud):
    machine = cloud.machine(rules=DriveRules(upload_delay_s=1000))
    machine.front_end.ends_after_s = 10
    machine.run_cell(MOUNT).check()
    cell = """
open('/content/drive/MyDrive/x', 'w').write('never flushed')
from google.colab import runtime
runtime.unassign()
"""
    # It only asks: the next cell still runs, and the machine ends seconds later.
    machine.run_cell(cell).check()
    machine.run_cell("open('/content/drive/MyDrive/y', 'w').write('for nothing')").check()
    machine.wait_until_ended()
    assert not machine.is_alive
    assert cloud.files() == {}


def test_a_script_that_unassigns_fails_after_it_was_heard(cloud):
    machine = cloud.machine()
    ended = machine.run_script("from google.colab import runtime; runtime.unassign()")
    assert ended.stderr.endswith("AttributeError: 'NoneType' object has no attribute 'kernel'\n")
    machine.wait_until_ended()


def test_unassigning_may_be_refused(cloud):
    machine = cloud.machine()
    machine.front_end.refuses_unassign = True
    unassign = "from google.colab import runtime; runtime.unassign()"
    assert machine.run_cell(unassign).error == (
        "RuntimeManagementError: Unable to request VM unassignment."
    )
    machine.front_end.has_network = False
    error = machine.run_cell(unassign).error
    assert error == "ServerNotFoundError: Unable to find the server at 172.28.0.1"
    local = cloud.machine(Platform.LOCAL)
    assert local.run_cell(unassign).error == (
        "RuntimeManagementError: Unable to find the runtime management service."
    )


def test_a_restarted_kernel_finds_the_mount_and_the_disk(cloud):
    machine = cloud.machine()
    machine.run_cell(MOUNT + "\nopen('/content/x', 'w').write('here'); y = 1").check()
    machine.restart_kernel()
    assert machine.run_cell("y").error == "NameError: name 'y' is not defined"
    machine.front_end.answer = Answer.SILENT
    again = machine.run_cell(MOUNT + "\nprint(open('/content/x').read())").check()
    assert again.stdout.startswith("Drive already mounted at /content/drive;")
    assert again.stdout.endswith("\nhere\n")


def test_the_command_runs_a_notebook_over_two_machines(cloud, tmp_path):
    cell = """
from pathlib import Path
from google.colab import drive
drive.mount('/content/drive')
seen = Path('/content/drive/MyDrive/seen')
if not seen.exists():
    seen.write_text('one')
    import time; time.sleep(1000)
print('second machine read', seen.read_text())
"""
    notebook = tmp_path / "notebook.ipynb"
    document = nbformat.v4.new_notebook(cells=[nbformat.v4.new_code_cell(cell)])
    nbformat.write(document, notebook)
    # Twenty times what it takes to get there: the clock does not wait for a slow computer.
    command = [sys.executable, "-m", "tests.colab_vm", str(notebook), "--kill-after", "20s"]
    command += ["--upload-delay", "0.02s"]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert "machine 1 was killed after" in ran.stdout
    assert "with 0 of 1 cells done; the cloud has 1 files, 3 bytes" in ran.stdout
    assert "second machine read one\n" in ran.stdout
