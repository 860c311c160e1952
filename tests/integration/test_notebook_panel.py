"""The panel of a run in a real Jupyter kernel, as it stands in the saved notebook."""

from __future__ import annotations

import nbformat
import pytest

from notebooks.execution import execute

LONG_STEPS = 100_000
SETUP = """
import torch, tempfile, colabkit
from pathlib import Path
torch.set_num_threads(1)
folder = Path(tempfile.mkdtemp())
x, y = torch.randn(64, 4), torch.randint(0, 3, (64,))
"""
LONG = f"""
run = colabkit.Run(folder / "long")
for step in run.items(range({LONG_STEPS})):
    run.log(loss=1.0 / (step + 1), accuracy=step / {LONG_STEPS})
"""
HOSTILE = """
name = "<img src=x onerror=alert(1)>"
history = colabkit.fit(
    torch.nn.Linear(4, 3), (x, y), folder / name, epochs=2, validation_data=(x, y), device="cpu",
    metrics={name: lambda output, target: output.mean()})
"""
SILENT = """
history = colabkit.fit(
    torch.nn.Linear(4, 3), (x, y), folder / "silent", epochs=2, device="cpu", progress=False)
"""
TWICE = """
run = colabkit.Run(folder / "twice")
for word in ("one", "two"):
    for item in run.items(range(10)):
        run.log(loss=item)
"""
BROKEN = """
try:
    for item in colabkit.Run(folder / "broken").items(range(10)):
        if item == 4:
            raise ValueError("the user's own")
except ValueError as error:
    print(error)
"""
RESUMED = """
history = colabkit.fit(torch.nn.Linear(4, 3), (x, y), folder / name, epochs=3, device="cpu",
    validation_data=(x, y), metrics={name: lambda output, target: output.mean()})
"""
SEARCH = """
for number in range(12):
    for item in colabkit.Run(folder / f"search {number}").items(range(number)):
        pass
"""
CELLS = {
    "setup": SETUP,
    "long": LONG,
    "hostile": HOSTILE,
    "silent": SILENT,
    "twice": TWICE,
    "broken": BROKEN,
    "search": SEARCH,
    "resumed": RESUMED,
    "history": "history",
}


@pytest.fixture(scope="module")
def outputs() -> dict[str, list[nbformat.NotebookNode]]:
    cells = [nbformat.v4.new_code_cell(code) for code in CELLS.values()]
    document = nbformat.v4.new_notebook(cells=cells)
    execute(document)
    return {name: cell.outputs for name, cell in zip(CELLS, document.cells, strict=True)}


def panels(outputs: list[nbformat.NotebookNode]) -> list[nbformat.NotebookNode]:
    return [output.data for output in outputs if output.output_type == "display_data"]


def printed(outputs: list[nbformat.NotebookNode]) -> str:
    return "".join(output.text for output in outputs if output.output_type == "stream")


def test_a_run_of_100_000_steps_leaves_one_small_output(outputs):
    size = len(nbformat.writes(nbformat.v4.new_notebook(cells=[cell_of(outputs["long"])])))
    assert len(outputs["long"]) == 1
    assert size < 25_000, f"{size / 1e3:.0f} kB"
    panel = panels(outputs["long"])[0]
    assert f"step {LONG_STEPS:,}" in panel["text/plain"]
    assert panel["text/html"].count("<polyline") == 4  # each line, and the smooth one over it


def cell_of(outputs: list[nbformat.NotebookNode]) -> nbformat.NotebookNode:
    return nbformat.v4.new_code_cell("", outputs=outputs)


def test_what_stands_in_the_notebook_is_the_end_of_the_run(outputs):
    text = panels(outputs["hostile"])[0]["text/plain"]
    assert "finished" in text
    assert "epoch 2 of 2, batch 2 of 2, step 4 of 4, 100%" in text
    assert "run folder" in text
    assert "step 4, saved " in text
    assert "Resume is exact." in text
    assert "machine up" in text


def test_a_hostile_run_folder_and_metric_stay_text(outputs):
    for name in ("hostile", "resumed"):
        page = panels(outputs[name])[0]["text/html"]
        assert "<img" not in page
        assert page.count("&lt;img src=x onerror=alert(1)&gt;") >= 3
    assert "<img" not in outputs["history"][0].data["text/html"]


def test_without_progress_there_is_no_output(outputs):
    assert outputs["silent"] == []


def test_loops_of_one_cell_share_one_place(outputs):
    assert len(panels(outputs["twice"])) == 1
    assert "step 20" in panels(outputs["twice"])[0]["text/plain"]


def test_a_loop_that_breaks_leaves_the_place_it_broke_at(outputs):
    assert "step 4" in panels(outputs["broken"])[0]["text/plain"]
    assert printed(outputs["broken"]) == "the user's own\n"


def test_a_resume_is_said_and_marked(outputs):
    assert printed(outputs["resumed"]).startswith("Resumed at epoch 3, step 4 (saved ")
    assert "<title>resumed</title>" in panels(outputs["resumed"])[0]["text/html"]
    assert "<title>resumed</title>" in outputs["history"][0].data["text/html"]


def test_a_cell_that_trains_again_and_again_keeps_a_few_panels_and_the_last(outputs):
    shown = panels(outputs["search"])
    assert len(shown) == 8
    assert "search 11" in shown[-1]["text/plain"]
