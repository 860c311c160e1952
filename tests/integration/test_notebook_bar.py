"""The bar in a real Jupyter kernel."""

from __future__ import annotations

import nbformat
import pytest

from notebooks.execution import execute

BAR = """
from colabkit.notebook import TrainingBar, say
with TrainingBar(total_steps=None, epochs=2, initial_step=5) as bar:
    bar.update(5, 1, dict)
    bar.set_length(total_steps=10, steps_per_epoch=5)
    say("Resumed at epoch 2, step 5.")
    bar.update(10, 1, lambda: {"loss": "0.43"})
"""
WITHOUT_WIDGETS = "import sys; sys.modules['ipywidgets'] = None\n"
FIGURE = "from colabkit.notebook import plot_history; plot_history({'loss': [1.0, 0.5]})"
SVG = "import sys; sys.modules['matplotlib'] = None\n" + FIGURE


@pytest.fixture(scope="module")
def notebook() -> nbformat.NotebookNode:
    cells = [nbformat.v4.new_code_cell(code) for code in (BAR, FIGURE, SVG, WITHOUT_WIDGETS + BAR)]
    document = nbformat.v4.new_notebook(cells=cells)
    execute(document)
    return document


def text_of(cell: nbformat.NotebookNode, stream: str) -> str:
    return "".join(o["text"] for o in cell.outputs if o.get("name") == stream)


def test_widgets_show_the_bar_and_text_shows_the_sentence(notebook):
    cell = notebook.cells[0]
    assert text_of(cell, "stdout") == "Resumed at epoch 2, step 5.\n"
    assert text_of(cell, "stderr") == ""
    states = notebook.metadata.widgets["application/vnd.jupyter.widget-state+json"]["state"]
    values = [state["state"].get("value") for state in states.values()]
    assert 10 in values
    shown = " ".join(value.replace("\u2007", " ") for value in values if isinstance(value, str))
    assert "epoch 2/2 · 5/5" in shown
    assert "loss 0.43" in shown
    assert all(state["state"].get("bar_style") != "danger" for state in states.values())


def test_without_widgets_the_bar_is_text(notebook):
    cell = notebook.cells[3]
    shown = text_of(cell, "stdout")
    assert "epoch 2/2 · 5/5 |" in shown
    assert "loss 0.43" in shown
    assert "Resumed at epoch 2, step 5.\n" in shown
    assert text_of(cell, "stderr") == ""


def test_curves_are_drawn_once(notebook):
    figure, svg = notebook.cells[1], notebook.cells[2]
    assert [sorted(output.data) for output in figure.outputs] == [["image/png", "text/plain"]]
    assert [sorted(output.data) for output in svg.outputs] == [["image/svg+xml", "text/plain"]]
