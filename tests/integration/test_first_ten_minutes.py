"""The page of the first ten minutes shows what its cells show, on two fresh machines."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from notebooks.lives import RULES, has_trained, taken_away
from tests.abilities import SOAK, package
from tests.colab_vm import CellResult, Machine, MachineEndedError
from tests.integration.training import said_in

DOCS = Path(__file__).parents[2] / "docs"
PAGES = ["first-ten-minutes.md", "zh-CN/first-ten-minutes.md"]
# What the page calls "python before" is run here, and not once more with all others.
BLOCK = re.compile(r"```(python|text)(?: before)?\n(.*?)```", re.DOTALL)


def blocks(page: str) -> list[tuple[str, str]]:
    return BLOCK.findall((DOCS / page).read_text())


def plain(text: str) -> str:
    """Text with its numbers, and the units of times, left open."""
    text = re.sub(r"\d+ h \d+ min|\d[\d,.:]*( (?:s|min|h)\b)?", "#", text)
    return re.sub(r"\s+", " ", text)


def run(machine: Machine, cells: list[str]) -> list[CellResult]:
    return [machine.run_cell(cell, timeout_s=None).check() for cell in cells]


@pytest.mark.soak
@pytest.mark.needs(SOAK)
@pytest.mark.timeout(600)
def test_the_cells_show_what_the_page_says(cloud):
    package("torch", "sklearn").require()
    cells = [text for kind, text in blocks(PAGES[0]) if kind == "python"]
    training = next(n for n, cell in enumerate(cells) if "callbacks=" in cell)
    first = cloud.machine(rules=RULES)
    with (
        taken_away(first, lambda: has_trained(cloud.path("runs"))),
        pytest.raises(MachineEndedError),
    ):
        run(first, cells[: training + 1])
    second = cloud.machine(rules=RULES)
    shown = ""
    for result in run(second, cells):
        texts = [each.get("text/plain", "") for each in (*result.data, *result.updates[-1:])]
        shown += plain("\n".join([said_in(result), result.stdout, *texts]))
    told = [line for kind, text in blocks(PAGES[0]) if kind == "text" for line in text.splitlines()]
    assert len(told) >= 10
    missing = [line for line in told if plain(line).strip() not in shown]
    assert not missing, shown


def test_both_languages_show_the_same_cells_and_the_same_output():
    assert blocks(PAGES[0]) == blocks(PAGES[1])
