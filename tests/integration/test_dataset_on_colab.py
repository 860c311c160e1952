"""dataset() on a notebook machine whose Drive is slow, fails in the middle, and is lost."""

from __future__ import annotations

import os

import pytest

from tests.colab_vm import DriveRules, Fault
from tests.unit.datasets.sources import content_of, make_folder, make_tar, make_zip

FILES = {f"{n % 5}/{n:03}.bin": os.urandom(20_000 if n % 9 else 700_000) for n in range(120)}
MOUNT = "import colabkit; colabkit.mount()"
MAKERS = pytest.mark.parametrize("make", [make_zip, make_tar, make_folder])


@pytest.fixture
def machine(cloud):
    machine = cloud.machine()
    machine.run_cell(MOUNT).check()
    return machine


def dataset(machine, call: str):
    """Makes a dataset in a cell; returns what it said and the files of the folder."""
    cell = machine.run_cell(f"data_dir = {call}\nprint('FOLDER', data_dir)").check()
    said, _, folder = cell.stdout.rpartition("FOLDER ")
    return said, content_of(machine.path(folder.strip()))


@MAKERS
def test_a_name_of_drive_becomes_a_local_folder_on_each_machine(cloud, make):
    make(cloud.path("cats"), FILES)
    for _ in range(2):
        machine = cloud.machine()
        machine.run_cell(MOUNT).check()
        said, files = dataset(machine, 'colabkit.dataset("MyDrive/cats")')
        assert files == FILES
        assert "/content/datasets/cats-" in said
        said, _ = dataset(machine, 'colabkit.dataset("/content/drive/My Drive/cats")')
        assert "is there already" in said
        machine.kill()


@MAKERS
@pytest.mark.parametrize("code", [5, 107])
def test_reads_that_fail_in_the_middle_are_tried_again(cloud, machine, make, code):
    make(cloud.path("cats"), FILES)
    machine.drive.change(view_delay_s=0)
    machine.drive.inject(Fault("read", "*", (code,), skip=5, count=6))
    _, files = dataset(machine, 'colabkit.dataset("MyDrive/cats")')
    assert files == FILES


@MAKERS
def test_a_mount_that_dies_in_the_middle_is_mounted_again(cloud, make):
    make(cloud.path("cats"), FILES)
    machine = cloud.machine(rules=DriveRules(latency_s=0.02))
    machine.run_cell(MOUNT).check()
    machine.run_cell(
        "import os, threading, colabkit\n"
        "def watch():\n"
        "    is_time = False\n"
        "    while not is_time:\n"
        "        tree = os.walk('/content/datasets')\n"
        "        is_time = sum(n.endswith('.bin') for *_, names in tree for n in names) >= 10\n"
        "    open('/content/now', 'w').close()\n"
        "threading.Thread(target=watch, daemon=True).start()"
    ).check()
    cell = machine.kernel.begin('data_dir = colabkit.dataset("MyDrive/cats")')
    while not machine.path("/content/now").exists():
        assert machine.is_alive
    machine.drive.kill_mount()
    machine.kernel.finish(cell).check()
    _, files = dataset(machine, "data_dir")
    assert files == FILES


def test_drive_that_is_not_mounted_is_told_from_a_missing_file(cloud):
    make_zip(cloud.path("cats.zip"), FILES)
    machine = cloud.machine()
    cell = machine.run_cell('import colabkit; colabkit.dataset("MyDrive/cats.zip")')
    assert "Google Drive is not mounted" in cell.error
    assert "colabkit.mount()" in cell.error
    machine.run_cell(MOUNT).check()
    cell = machine.run_cell('colabkit.dataset("MyDrive/cat.zip")')
    assert "There is no MyDrive/cat.zip" in cell.error
    assert "there is 'cats.zip'" in cell.error
    cell = machine.run_cell('colabkit.dataset("cats.zip")')
    assert 'pass "MyDrive/cats.zip"' in cell.error


@pytest.mark.parametrize(
    ("disk_bytes", "words"),
    # Drive keeps what it reads on the same disk: it can become full by that alone.
    [(8_000_000, "cannot be read: this machine's disk is full"), (20_000_000, "are missing")],
)
def test_a_full_machine_is_told(cloud, disk_bytes, words):
    make_zip(cloud.path("cats.zip"), FILES)
    machine = cloud.machine(disk_bytes=disk_bytes)
    machine.run_cell(MOUNT).check()
    cell = machine.run_cell('colabkit.dataset("MyDrive/cats.zip")')
    assert "DiskFullError" in cell.error
    assert words in cell.error
    assert not list(machine.path("/content/datasets").glob("*/*.bin"))


def test_many_small_files_are_packed_once_and_the_next_machine_reads_the_archive(cloud):
    files = {f"{n}.txt": b"%d " % n * 50 for n in range(400)}
    make_folder(cloud.path("texts"), files)
    machine = cloud.machine()
    machine.run_cell(MOUNT).check()
    said, made = dataset(machine, 'colabkit.dataset("MyDrive/texts")')
    assert "400 files one by one are slow: with pack=True" in said
    assert made == files
    said, made = dataset(machine, 'colabkit.dataset("MyDrive/texts", pack=True)')
    assert made == files
    assert "Packed 400 files" in said
    assert "is there already" in said
    machine.drive.wait_until_uploaded()
    machine.kill()
    machine = cloud.machine()
    machine.run_cell(MOUNT).check()
    said, made = dataset(machine, 'colabkit.dataset("MyDrive/texts")')
    assert made == files
    assert "Unpacked 400 files" in said


# As huggingface_hub does: without a token it takes the one in Colab's Secrets, asked for once.
HUB = """
import functools, os, types
from google.colab import userdata

@functools.cache
def secret():
    return userdata.get("HF_TOKEN")

class HfApi:
    def repo_info(self, *, token, **facts):
        assert (secret() if token is None else token) == "hf_mine"
        return types.SimpleNamespace(sha="abc")

def snapshot_download(*, local_dir, token, **facts):
    assert (secret() if token is None else token) == "hf_mine"
    os.makedirs(local_dir, exist_ok=True)
    with open(os.path.join(local_dir, "one.txt"), "w") as file:
        file.write("cats")
    return local_dir
"""


def test_a_dataset_of_hugging_face_is_opened_by_the_token_in_colabs_secrets(cloud):
    machine = cloud.machine(files={"/content/huggingface_hub.py": HUB})
    machine.front_end.add_secret("HF_TOKEN", "hf_mine")
    machine.run_cell("import sys; sys.path.insert(0, '/content'); import colabkit").check()
    _, files = dataset(machine, 'colabkit.dataset("hf://datasets/zoo/cats")')
    assert files == {"one.txt": b"cats"}
    asked = [each for each in machine.front_end.requests if each["type"] == "GetSecret"]
    assert [each["request"] for each in asked] == [{"key": "HF_TOKEN"}]
