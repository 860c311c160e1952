"""The panel and TensorBoard's files on Colab's double, with a real FUSE Drive."""

from __future__ import annotations

import ast

import pytest

from tests.abilities import package
from tests.colab_vm import Client

pytestmark = pytest.mark.needs(package("torch"))

PREPARE = """
import time, torch, colabkit
torch.set_num_threads(1)
torch.manual_seed(0)
x, y = torch.randn(1280, 8), torch.randint(0, 3, (1280,))
texts, pages = [], []
def remember(message):
    data = message["content"].get("data", {})
    if "text/html" in data:
        texts.append(data["text/plain"])
        pages.append(data["text/html"])
    return message
get_ipython().display_pub.register_hook(remember)
from google.colab import drive; drive.mount('/content/drive')
folder = "MyDrive/runs/<b>cats"
def slowly(event):
    if event.name == "batch_end":
        time.sleep(0.02)
def fit(epochs):
    return colabkit.fit(
        torch.nn.Linear(8, 3), (x, y), folder, epochs=epochs, save_every="1s", device="cpu",
        tensorboard=True, callbacks=[slowly])
"""
READ = """
import warnings; warnings.simplefilter("ignore")
from google.colab import drive; drive.mount('/content/drive')
from tensorboard.backend.event_processing.event_multiplexer import EventMultiplexer
reader = EventMultiplexer(size_guidance={"scalars": 0})
reader.AddRunsFromDirectory("/content/drive/MyDrive/runs/<b>cats").Reload()
{run: [e.step for e in reader.Scalars(run, "step/loss")] for run in reader.Runs()}
"""


@pytest.fixture
def machine(cloud):
    machine = cloud.machine()
    machine.run_cell(PREPARE).check()
    return machine


def told(machine, code: str) -> object:
    return ast.literal_eval(machine.run_cell(code).check().result)


def test_the_panel_follows_checkpoints_from_this_machine_to_drive(machine):
    shown = machine.run_cell("history = fit(4)").check()
    assert shown.stderr == ""
    assert len(shown.data) == 1
    first, last = told(machine, "texts[1]"), told(machine, "texts[-1]")
    assert first.startswith("/content/drive/MyDrive/runs/<b>cats: training, epoch ")
    for words in (
        "this machine",
        "Drive: uploaded",
        "mounted ",
        "machine up ",
        "left (an estimate)",
    ):
        assert words in first
    lines = last.splitlines()
    assert any(line.startswith("Saved (this machine): step 160, saved ") for line in lines)
    assert any(line.startswith("Saved (Drive: uploaded): ") for line in lines)
    assert "step 160, saved" in last.partition("\nSaved (Drive)")[2]
    assert all(line.endswith(".") for line in lines)
    pages = told(machine, "pages")
    assert not any("<b>" in page for page in pages)
    assert "&lt;b&gt;cats" in pages[-1]


def test_tensorboard_shows_the_run_on_the_next_machine(machine, cloud):
    package("tensorboard").require()
    machine.run_cell("history = fit(2)").check()
    machine.run_cell("drive.flush_and_unmount()").check()
    assert told(cloud.machine(), READ) == {"tensorboard": list(range(80))}


def test_who_prints_each_drawing_anew_gets_sentences_of_text(machine):
    machine.front_end.kind = Client.TERMINAL
    shown = machine.run_cell("history = fit(4)").check()
    assert (shown.data, shown.updates, shown.stderr) == ([], [], "")
    line = next(line for line in shown.stdout.splitlines() if "step 160 of 160" in line)
    assert line.startswith("Epoch 4 of 4, ")
    assert ": loss " in line
    assert line.endswith(".")
    assert len(shown.stdout) < 1000


@pytest.mark.parametrize("kind", [Client.PAGE, Client.EDITOR])
def test_a_page_and_an_editor_get_one_panel_which_is_drawn_in_place(machine, kind):
    machine.front_end.kind = kind
    shown = machine.run_cell("history = fit(4)").check()
    assert (len(shown.data), shown.stderr) == (1, "")
    assert shown.updates
