"""A notebook that a program runs, as papermill does: no page draws it, and nobody can be asked."""

from __future__ import annotations

import json
import re
import sys

import nbformat
import pytest

from tests.abilities import package
from tests.colab_vm import Answer
from tests.integration.training import SETUP

pytestmark = pytest.mark.needs(package("torch"))

# Colab's own kernel is what its machines start under this name.
KERNEL = {
    "argv": [
        sys.executable,
        "-m",
        "ipykernel_launcher",
        "--IPKernelApp.kernel_class=google.colab._kernel.Kernel",
        "-f",
        "{connection_file}",
    ],
    "display_name": "Python 3",
    "language": "python",
}
RUN = """
import nbclient, nbformat
from traitlets.config import Config
notebook = nbformat.read("/content/train.ipynb", as_version=4)
config = Config({"KernelManager": {"transport": "ipc", "ip": "/content/kernel"}})
limits = {"timeout": 600, "startup_timeout": 600, "iopub_timeout": 600}
nbclient.NotebookClient(notebook, config=config, **limits).execute()
nbformat.write(notebook, "/content/done.ipynb")
"""
FIT = """
import torch
torch.manual_seed(0)
x, y = torch.randn(64, 8), torch.randint(0, 3, (64,))
history = colabkit.fit(torch.nn.Linear(8, 3), (x, y), "MyDrive/runs/a", epochs={epochs})
history
"""


@pytest.fixture
def machine(cloud):
    place = "/root/jupyter/kernels/python3/kernel.json"
    environ = {"JUPYTER_PATH": "/root/jupyter"}
    machine = cloud.machine(environ=environ, files={place: json.dumps(KERNEL)})
    machine.front_end.answer = Answer.NOBODY
    return machine


def outputs_of(machine, *cells: str) -> list[list[nbformat.NotebookNode]]:
    """Runs cells as papermill does; returns what each has shown."""
    notebook = nbformat.v4.new_notebook(cells=[*map(nbformat.v4.new_code_cell, cells)])
    machine.path("/content/train.ipynb").write_text(nbformat.writes(notebook))
    machine.run_script(RUN).check()
    done = nbformat.reads(machine.path("/content/done.ipynb").read_text(), as_version=4)
    return [cell.outputs for cell in done.cells]


def said(outputs: list[nbformat.NotebookNode]) -> str:
    return "".join(each.text for each in outputs if each.output_type == "stream")


def test_what_it_trains_is_told_in_sentences_saved_on_drive_and_gone_on_from(cloud, machine):
    machine.front_end.answer = Answer.SILENT
    machine.run_cell("from google.colab import drive; drive.mount('/content/drive')").check()
    machine.front_end.answer = Answer.NOBODY
    asked = len(machine.front_end.requests)
    setup, fit = outputs_of(machine, SETUP, FIT.format(epochs=2))
    assert "mounted, /content/drive/MyDrive" in setup[-1].data["text/plain"]
    # A panel would be drawn here once for each time it is drawn anew.
    assert [each.output_type for each in fit if each.output_type != "stream"] == ["execute_result"]
    lines = said(fit).splitlines()
    assert any(re.match(r"Epoch 2 of 2, .*step 4 of 4, .*: loss [\d.]+, ", line) for line in lines)
    assert all(line.endswith(".") for line in lines), lines
    _setup, fit = outputs_of(machine, SETUP, FIT.format(epochs=3))
    assert "Resumed at epoch 3, step 4" in said(fit)
    assert len(machine.front_end.requests) == asked
    machine.drive.wait_until_uploaded()
    assert any(name.startswith("runs/a/checkpoints/") for name in cloud.files())


def test_that_nobody_can_answer_is_said_within_seconds_with_what_helps(machine):
    # The wait of 120 s is over after 15; nothing is said for 4.
    machine.front_end.clock_rate = 8.0
    (setup,) = outputs_of(machine, SETUP)
    words = said(setup)
    assert words.startswith("Waiting up to 120 s for access to Drive: ")
    assert "`colab drivemount`" in words
    assert "Drive is not mounted at /content/drive" in setup[-1].data["text/plain"]
