"""setup(packages=…) on the double: installed once, then from Drive on machine after machine."""

from __future__ import annotations

import sys

import pytest

from tests.colab_vm import DriveRules, Fault, Platform
from tests.tiny_wheels import tiny_wheel

SITE = f"/content/prefix/lib/python{sys.version_info.major}.{sys.version_info.minor}/site-packages"
SETUP = "import colabkit\nsession = colabkit.setup(gpu=False, packages={packages!r})\nsession"


class Lender:
    """Lends machines to which packages can be added, with or without a network."""

    def __init__(self, cloud, network):
        self.cloud = cloud
        self.network = network

    def machine(self, platform=Platform.CPU, *, online: bool, **options):
        machine = self.cloud.machine(platform, visible=[self.network], **options)
        # The host's own packages are read-only there: new ones go beside them.
        environ = machine._environ
        environ["PYTHONPATH"] += f":{SITE}"
        environ |= {"PIP_PREFIX": "/content/prefix", "PIP_CONFIG_FILE": "/dev/null"}
        environ |= {"PIP_NO_INDEX": "1"}
        if online:
            environ["PIP_FIND_LINKS"] = str(self.network)
        else:
            # Nobody listens at port 9.
            environ |= {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/"}
        return machine


@pytest.fixture
def lender(cloud, tmp_path):
    network = tmp_path / "network"
    tiny_wheel(network, "tinyneed", "2.1")
    tiny_wheel(network, "tinytool", "1.5", requires=("tinyneed>=2",))
    return Lender(cloud, network)


def kept_in(cloud) -> list[str]:
    names = [name for name in cloud.files() if name.startswith(".colabkit/wheels/")]
    return sorted(name.partition("~")[2] or name.rpartition(".")[2] for name in names)


def test_the_next_machine_installs_offline_what_the_first_kept_on_drive(lender, cloud):
    path = cloud.path("project/requirements.txt")
    path.parent.mkdir()
    path.write_text("tinytool\n")
    first = lender.machine(online=True)
    setup = SETUP.format(packages="MyDrive/project/requirements.txt")
    shown = first.run_cell(setup).check()
    assert "Package  tinytool 1.5" in shown.result
    assert "Installed tinytool 1.5, tinyneed 2.1 from the network in" in shown.result
    assert first.run_cell("import tinytool; tinytool.version").check().result == "'1.5'"
    again = first.run_cell(setup).check()
    assert "Installed" not in again.result
    assert again.stdout == ""
    first.drive.wait_until_uploaded()
    first.kill()
    assert kept_in(cloud) == [
        "json",
        "tinyneed-2.1-py3-none-any.whl",
        "tinytool-1.5-py3-none-any.whl",
    ]
    second = lender.machine(online=False)
    shown = second.run_cell(setup).check()
    assert "Installed tinytool 1.5, tinyneed 2.1 from kept wheels, offline in" in shown.result
    assert second.run_cell("import tinytool, tinyneed; tinytool.version").check().result == "'1.5'"


def test_a_machine_killed_in_the_middle_of_keeping_leaves_nothing_that_is_half(lender, cloud):
    slow = lender.machine(online=True, rules=DriveRules(upload_bytes_per_s=300))
    slow.run_cell(SETUP.format(packages=["tinytool"])).check()
    slow.kill()
    second = lender.machine(online=True)
    shown = second.run_cell(SETUP.format(packages=["tinytool"])).check()
    assert "Package  tinytool 1.5" in shown.result
    second.drive.wait_until_uploaded()
    second.kill()
    third = lender.machine(online=False)
    shown = third.run_cell(SETUP.format(packages=["tinytool"])).check()
    assert "from kept wheels, offline" in shown.result


@pytest.mark.parametrize(("errno", "word"), [(28, "full"), (5, "Input/output error")])
def test_a_drive_that_takes_nothing_is_one_line_and_the_packages_are_there(lender, errno, word):
    machine = lender.machine(online=True)
    machine.drive.inject(Fault("create", "MyDrive/.colabkit/*", (errno,)))
    shown = machine.run_cell(SETUP.format(packages=["tinytool"])).check()
    assert "Package  tinytool 1.5" in shown.result
    note = next(line for line in shown.result.splitlines() if "The wheels are not kept" in line)
    assert word in note
    assert note.endswith("; the next machine fetches them again.")


def test_on_kaggle_without_internet_the_line_says_where_to_switch_it_on(lender):
    machine = lender.machine(Platform.KAGGLE, online=False)
    shown = machine.run_cell(SETUP.format(packages=["tinytool"])).check()
    assert "tinytool: not installed, because the network cannot be reached" in shown.result
    assert "The internet is off for this notebook: Settings → Internet on" in shown.result


def test_on_kaggle_an_earlier_output_as_an_input_brings_its_wheels(lender):
    first = lender.machine(Platform.KAGGLE, online=True)
    first.run_cell(SETUP.format(packages=["tinytool"])).check()
    saved = first.path("/kaggle/working/.colabkit/wheels")
    wheels = {path.relative_to(saved): path.read_bytes() for path in saved.glob("*/*")}
    first.kill()
    second = lender.machine(Platform.KAGGLE, online=False)
    added = second.path("/kaggle/input/my-notebook/.colabkit/wheels")
    for name, content in wheels.items():
        (added / name).parent.mkdir(parents=True, exist_ok=True)
        (added / name).write_bytes(content)
    shown = second.run_cell(SETUP.format(packages=["tinytool"])).check()
    assert "from kept wheels, offline" in shown.result


@pytest.mark.parametrize(
    ("packages", "said"),
    [
        (["numpy<1"], "PackageChangeError: Nothing was installed: numpy<1 asks to replace numpy"),
        (["not a requirement"], "ArgumentError: packages holds 'not a requirement'"),
        ("MyDrive/requirments.txt", "Did you mean 'requirements.txt'?"),
    ],
)
def test_bad_requests_are_refused_before_anything_is_installed(lender, cloud, packages, said):
    cloud.path("requirements.txt").write_text("tinytool")
    machine = lender.machine(online=True)
    assert said in machine.run_cell(SETUP.format(packages=packages)).error
