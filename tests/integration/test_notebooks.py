"""The notebooks, in real kernels on Colab's double: top to bottom, and again after a kill."""

from __future__ import annotations

import contextlib
import re
import threading
import tomllib
from collections.abc import Iterator
from pathlib import Path

import nbformat
import pytest

import colabkit
from colabkit.errors import CheckpointNotFoundError
from tests.abilities import newer_package, package
from tests.colab_vm import CellResult, Cloud, DriveRules, Machine, MachineEndedError
from tests.integration.training import said_in

REPOSITORY = Path(__file__).parents[2]
NOTEBOOKS = sorted((REPOSITORY / "notebooks").glob("*.ipynb"))
NAMES = [path.stem for path in NOTEBOOKS]
KILLS_ITSELF = "survive_a_disconnect"
RULES = DriveRules(upload_delay_s=0.05)
COLAB = "https://colab.research.google.com/"
RESUMED = re.compile(r"Resumed at epoch [\d,]+, step ([\d,]+)")


def document(name: str) -> nbformat.NotebookNode:
    return nbformat.read(REPOSITORY / "notebooks" / f"{name}.ipynb", as_version=4)


def code_cells(name: str) -> list[str]:
    return [cell.source for cell in document(name).cells if cell.cell_type == "code"]


def run_all(machine: Machine, name: str) -> dict[str, CellResult]:
    """Runs a notebook from top to bottom; returns what each cell showed."""
    return {code: machine.run_cell(code).check() for code in code_cells(name)}


def has_trained(cloud: Cloud) -> bool:
    """Whether a whole checkpoint of a trained step is in the cloud."""
    found = []
    for folder in cloud.path("runs").glob("*"):
        # A manifest may be replaced, and the folder be new, while it is looked at.
        with contextlib.suppress(CheckpointNotFoundError, FileNotFoundError):
            found += colabkit.checkpoints(folder, verify=True)
    return any(info.step and not info.problem for info in found)


@contextlib.contextmanager
def taken_away_in_training(machine: Machine, cloud: Cloud) -> Iterator[None]:
    """Kills the machine as soon as a checkpoint of a trained step is uploaded."""
    over = threading.Event()

    def watch() -> None:
        while not over.wait(0.05):
            if has_trained(cloud):
                machine.pull_the_plug()
                return

    watcher = threading.Thread(target=watch, name="watcher")
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def needs(name: str) -> None:
    of_jax, of_keras = newer_package("jax", "optax"), package("keras")
    of_framework = {"quickstart_jax": of_jax, "quickstart_keras": of_keras}
    of_framework.get(name, package("torch")).require()


@pytest.mark.parametrize("name", [name for name in NAMES if name != KILLS_ITSELF])
def test_a_notebook_goes_on_where_it_was_when_its_machine_was_taken_away(cloud, name):
    needs(name)
    machine = cloud.machine(rules=RULES)
    with taken_away_in_training(machine, cloud), pytest.raises(MachineEndedError):
        run_all(machine, name)
    again = cloud.machine(rules=RULES)
    shown = run_all(again, name)
    (resumed,) = filter(None, (RESUMED.search(said_in(result)) for result in shown.values()))
    assert int(resumed[1].replace(",", "")) > 0
    assert any("resumed 1×" in result.result + result.stdout for result in shown.values())


def test_the_notebook_that_kills_itself_ends_with_the_same_bits(cloud):
    needs(KILLS_ITSELF)
    machine = cloud.machine(rules=RULES)
    with pytest.raises(MachineEndedError):
        run_all(machine, KILLS_ITSELF)
    machine.restart_kernel()  # as Colab does when a session has crashed
    shown = "".join(said_in(result) for result in run_all(machine, KILLS_ITSELF).values())
    assert "Went on after step" in shown
    assert "The same, bit for bit." in shown
    assert "exact: True" in shown


def test_the_notebook_that_kills_itself_also_survives_the_loss_of_its_machine(cloud):
    needs(KILLS_ITSELF)
    machine = cloud.machine(rules=RULES)
    with pytest.raises(MachineEndedError):
        run_all(machine, KILLS_ITSELF)
    machine.kill()
    shown = "".join(said_in(r) for r in run_all(cloud.machine(), KILLS_ITSELF).values())
    went_on = re.search(r"Went on after step (\d+), in epoch \d+: exact", shown)
    assert int(went_on[1]) > 0
    assert "The same, bit for bit." in shown


@pytest.mark.parametrize("name", NAMES)
class TestNotebook:
    def test_is_valid_and_holds_no_output(self, name):
        notebook = document(name)
        nbformat.validate(notebook)
        for cell in notebook.cells:
            if cell.cell_type == "code":
                assert not cell.outputs
                assert cell.execution_count is None

    def test_begins_with_a_badge_and_a_title(self, name):
        first = document(name).cells[0].source
        address = re.match(
            r"\[!\[Open in Colab\]\(https://\S+colab-badge\.svg\)\]\((\S+)\)\n\n# \S", first
        )[1]
        project = tomllib.loads((REPOSITORY / "pyproject.toml").read_text())["project"]
        home = project.get("urls", {}).get("Repository", "")
        expected = COLAB
        if home.startswith("https://github.com/"):
            where = home.removeprefix("https://github.com/")
            expected = f"{COLAB}github/{where}/blob/main/notebooks/{name}.ipynb"
        assert address == expected

    def test_installs_in_its_first_cell_and_trains_in_a_folder_on_drive(self, name):
        codes = code_cells(name)
        assert f"```python\n{codes[0]}\n```" in (REPOSITORY / "README.md").read_text()
        assert "colabkit.setup(" in codes[1]
        assert re.search(r'"MyDrive/runs/\w+"', "".join(codes))

    def test_names_only_notebooks_that_are_there(self, name):
        text = "".join(cell.source for cell in document(name).cells)
        for other in re.findall(r"`(\w+)\.ipynb`", text):
            assert other in NAMES
