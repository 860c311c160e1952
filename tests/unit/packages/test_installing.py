"""setup(packages=…) in an environment of its own, with real pip and a folder as the network."""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sysconfig
import venv
from pathlib import Path

import pytest

from tests.abilities import package
from tests.tiny_wheels import tiny_wheel

REPOSITORY = Path(__file__).parents[3]
INSTALL = """
import dataclasses, json, sys
from colabkit.errors import ColabKitError
from colabkit.packages import install_packages, read_request

{before}
said = []
try:
    done = install_packages(
        read_request({packages!r}), places={places!r}, say=said.append, **{options!r})
except ColabKitError as error:
    told = {{"error": type(error).__name__, "message": str(error),
            "changes": getattr(error, "changes", None)}}
else:
    told = {{
        "states": {{check.name: check.state.name for check in done.checks}},
        "reasons": [check.reason for check in done.checks if check.reason],
        "advice": [check.advice for check in done.checks if check.advice],
        "notes": list(done.notes), "said": said, "framework": done.has_new_framework}}
{after}
print("TOLD", json.dumps(told))
"""


@dataclasses.dataclass
class Machine:
    """An environment that has what this one has, and to which packages can be added."""

    folder: Path
    network: Path | None

    def __post_init__(self) -> None:
        venv.create(self.folder, with_pip=False, symlinks=True)
        site = next(self.folder.glob("lib/python*/site-packages"))
        here = [sysconfig.get_paths()["purelib"], str(REPOSITORY)]
        (site / "here.pth").write_text("\n".join(here))

    def install(self, *packages, places=(), before="", after="", path="", **options):
        asked = packages[0] if len(packages) == 1 else list(packages)
        source = INSTALL.format(
            packages=asked, places=list(map(str, places)), options=options,
            before=before, after=after,
        )  # fmt: skip
        environ = {k: v for k, v in os.environ.items() if not k.startswith(("PIP_", "UV_"))}
        environ |= {
            "PIP_CONFIG_FILE": os.devnull,
            "PIP_NO_INDEX": "1",
            "PATH": path or "/usr/bin:/bin",
            "PYTHONDONTWRITEBYTECODE": "1",
        }
        if self.network is not None:
            environ["PIP_FIND_LINKS"] = str(self.network)
        done = subprocess.run(
            [self.folder / "bin/python", "-c", source],
            env=environ, cwd=self.folder, capture_output=True, text=True, check=False,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        lines = done.stdout.splitlines()
        return json.loads(next(line[5:] for line in lines if line.startswith("TOLD ")))

    def version(self, name):
        code = f"import {name}; print({name}.version)"
        command = [self.folder / "bin/python", "-c", code]
        return subprocess.run(command, capture_output=True, text=True, check=False).stdout.strip()


@pytest.fixture
def network(tmp_path):
    folder = tmp_path / "network"
    tiny_wheel(folder, "tinyneed", "2.1")
    tiny_wheel(folder, "tinytool", "1.5", requires=("tinyneed>=2", "numpy>=1"))
    return folder


@pytest.fixture
def machine(tmp_path, network):
    return Machine(tmp_path / "machine", network)


@pytest.fixture
def kept(tmp_path):
    return tmp_path / "drive/.colabkit/wheels"


def wheels_in(kept):
    return sorted(path.name.split("~")[1] for path in kept.glob("*/*~*.whl"))


def test_installs_once_and_then_on_other_machines_without_the_network(tmp_path, machine, kept):
    first = machine.install("tinytool>=1", places=[kept])
    assert first["states"] == {"tinytool": "PRESENT"}
    assert first["notes"][0].startswith("Installed tinytool 1.5, tinyneed 2.1 from the network in ")
    assert machine.version("tinytool") == "1.5"
    assert wheels_in(kept) == ["tinyneed-2.1-py3-none-any.whl", "tinytool-1.5-py3-none-any.whl"]
    other = Machine(tmp_path / "other", network=None)
    second = other.install("tinytool >= 1", places=[kept])
    assert second["notes"][0].startswith("Installed tinytool 1.5, tinyneed 2.1 from kept wheels")
    assert second["said"] == []
    assert other.version("tinytool") == "1.5"


def test_what_is_there_is_not_touched_and_nothing_is_run_for_it(machine, kept):
    told = machine.install("numpy", "xxhash>=3", places=[kept])
    assert set(told["states"].values()) == {"PRESENT"}
    assert told["notes"] == told["said"] == []
    assert not kept.exists()


def test_extras_and_addresses_are_settled_by_pip(machine, network):
    told = machine.install(
        "numpy[anything]", f"tinyneed @ file://{network}/tinyneed-2.1-py3-none-any.whl"
    )
    assert set(told["states"].values()) == {"PRESENT"}
    assert machine.version("tinyneed") == "2.1"


def test_a_kept_wheel_is_not_taken_for_what_its_address_leads_to_by_now(tmp_path, network, kept):
    address = f"tinyneed @ file://{network}/tinyneed-2.1-py3-none-any.whl"
    first, second, third = (Machine(tmp_path / f"machine{n}", network) for n in range(3))
    first.install(address, places=[kept])
    tiny_wheel(network, "tinyneed", "2.1", code="version = 'of another commit'")
    assert "from the network" in second.install(address, places=[kept])["notes"][0]
    assert second.version("tinyneed") == "of another commit"
    assert "from kept wheels" in third.install(address, places=[kept])["notes"][0]
    assert third.version("tinyneed") == "of another commit"


def test_a_package_that_would_change_a_framework_is_refused_with_its_name(machine, network):
    tiny_wheel(network, "numpy", "0.9")
    tiny_wheel(network, "oldtool", "3.0", requires=("numpy<1",))
    told = machine.install("oldtool", "tinyneed")
    assert told["error"] == "PackageChangeError"
    assert "oldtool 3.0 needs another version than numpy" in told["message"]
    assert "allow_changes=True" in told["message"]
    assert told["changes"]["numpy"][1] == "0.9"
    assert machine.version("tinyneed") == ""


def test_a_framework_asked_for_in_another_version_is_refused_at_once(machine):
    told = machine.install("numpy<1")
    assert told["error"] == "PackageChangeError"
    assert "numpy<1 asks to replace numpy" in told["message"]


def test_allowed_changes_are_made_and_named_and_a_restart_is_asked_for(machine, network):
    tiny_wheel(network, "tf-keras", "1.0")
    machine.install("tf-keras")
    tiny_wheel(network, "tf-keras", "2.0")
    refused = machine.install("tf-keras>=2")
    assert refused["changes"] == {"tf-keras": ["1.0", "tf-keras>=2"]}
    told = machine.install("tf-keras>=2", before="import tf_keras", allow_changes=True)
    assert "Changed: tf-keras 1.0 → 2.0." in told["notes"]
    assert told["notes"][-1].startswith("tf-keras was imported before it changed: restart")
    assert told["framework"]
    assert machine.version("tf_keras") == "2.0"


def test_a_framework_that_is_missing_is_installed_when_it_is_asked_for_by_name(machine, network):
    tiny_wheel(network, "tf-keras", "1.0")
    told = machine.install("tf-keras")
    assert told["states"] == {"tf-keras": "PRESENT"}
    assert told["framework"]


def test_what_was_installed_can_be_imported_at_once(machine):
    before = "import importlib.util; assert importlib.util.find_spec('tinytool') is None"
    told = machine.install("tinytool", before=before, after="import tinytool")
    assert told["states"] == {"tinytool": "PRESENT"}


def test_a_damaged_wheel_is_noticed_and_fetched_anew(tmp_path, machine, kept):
    machine.install("tinytool", places=[kept])
    wheel = next(kept.glob("*/*~tinyneed*.whl"))
    whole = wheel.read_bytes()
    # One after the other: what one machine has mended is damaged for the next.
    for number, damaged in enumerate((whole[:100], whole[:-9] + b"x" + whole[-8:], None)):
        wheel.unlink()
        if damaged is not None:
            wheel.write_bytes(damaged)
        other = Machine(tmp_path / f"other{number}", machine.network)
        told = other.install("tinytool", places=[kept])
        assert "so fetched anew: tinyneed-2.1-py3-none-any.whl." in told["notes"][0]
        assert told["notes"][1].startswith("Installed tinytool 1.5, tinyneed 2.1 from the network")
        assert wheel.read_bytes() == whole
    last = Machine(tmp_path / "last", network=None)
    assert "from kept wheels" in last.install("tinytool", places=[kept])["notes"][0]


def test_a_damaged_list_is_as_good_as_none(tmp_path, machine, kept):
    machine.install("tinytool", places=[kept])
    listed = next(kept.glob("*/*.json"))
    whole = listed.read_text()
    listed.write_text(whole.replace("tinyneed-2.1", "../../x"))
    other = Machine(tmp_path / "other", machine.network)
    assert "from the network" in other.install("tinytool", places=[kept])["notes"][0]
    assert listed.read_text() == whole


def test_a_place_that_cannot_be_written_is_one_line_and_the_packages_are_there(machine, tmp_path):
    (tmp_path / "file").write_text("")
    told = machine.install("tinytool", places=[tmp_path / "file/wheels"])
    assert told["states"] == {"tinytool": "PRESENT"}
    assert told["notes"][-1].endswith("; the next machine fetches them again.")


def test_a_name_that_nobody_has_is_one_line_in_pips_words(machine):
    told = machine.install("tinytol")
    assert told["states"] == {"tinytol": "MISSING"}
    assert told["reasons"] == ["pip refused (No matching distribution found for tinytol)"]


def test_without_a_network_it_says_so_and_what_helps(tmp_path, network):
    machine = Machine(tmp_path / "machine", network=None)
    # Nobody listens at port 9.
    index = {"PIP_NO_INDEX": "0", "PIP_INDEX_URL": "http://127.0.0.1:9/"}
    told = machine.install("tinytool", before=f"import os; os.environ.update({index})")
    assert told["reasons"] == ["the network cannot be reached"]
    assert told["advice"] == ["Run the cell again when the network is there; all else works."]


def test_requirements_that_contradict_each_other_are_one_line(machine, network):
    tiny_wheel(network, "othertool", "1.0", requires=("tinyneed<2",))
    told = machine.install("tinytool", "othertool")
    assert told["reasons"] == ["the requirements contradict each other"] * 2


def test_a_requirements_file_is_read_with_what_it_includes(machine, tmp_path):
    project = tmp_path / "project"
    project.mkdir()
    (project / "base.txt").write_text("tinyneed >=2, \\\n  <3   # what tinytool needs\n")
    (project / "requirements.txt").write_text(
        "-r base.txt\n\n# tools\ntinytool ; python_version>'3'\n--pre\n"
    )
    told = machine.install(str(project / "requirements.txt"))
    assert told["states"] == {"tinyneed": "PRESENT", "tinytool": "PRESENT"}


def test_uv_installs_where_it_is_present(machine, kept):
    package("uv").require()
    uv = Path(sysconfig.get_paths()["scripts"], "uv")
    (machine.folder / "uv").mkdir()
    (machine.folder / "uv/uv").symlink_to(uv)
    told = machine.install("tinytool", places=[kept], path=f"{machine.folder}/uv:/usr/bin:/bin")
    assert told["states"] == {"tinytool": "PRESENT"}
    installer = next(machine.folder.glob("lib/python*/site-packages/tinytool*/INSTALLER"))
    assert installer.read_text().strip() == "uv"


def test_a_uv_that_fails_leaves_it_to_pip(machine):
    folder = machine.folder / "uv"
    folder.mkdir()
    (folder / "uv").write_text("#!/bin/sh\nexit 2\n")
    (folder / "uv").chmod(0o755)
    told = machine.install("tinytool", path=f"{folder}:/usr/bin:/bin")
    assert told["states"] == {"tinytool": "PRESENT"}
