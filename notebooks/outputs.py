"""Saves the notebooks with what they show after their machine was taken away in mid-training.

``python -m notebooks.outputs [NAME ...]``; it needs Chromium and what ``notebooks.lives`` needs. A
card or panel is saved as a picture, which every reader of notebooks shows, and as text. Badges lead
to the address that ``[project.urls]`` in pyproject.toml names as ``Repository``, once it does.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
import sys
import tempfile
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import nbformat
from PIL import Image

from notebooks.lives import FOLDER, NAMES, code_cells, document, run_all, two_lives
from notebooks.lives import machine_for as fresh_machine
from notebooks.screenshots import browse
from tests.colab_vm import CellResult, Cloud, MachineEndedError

KILLS_ITSELF = "survive_a_disconnect"
COLAB, KAGGLE = "https://colab.research.google.com/", "https://www.kaggle.com/"
_GITHUB = "https://github.com/"
_BADGE = re.compile(r"^(\[!\[Open in \w+\]\(\S+\)\])\(\S+\)")
WIDTH = 900
_COLOURS = 48
# What a window's own frame may take of its height: a low card was drawn in its upper half only.
_FRAME = 200
_PICTURED = "image/png"
_MARK = 'class="colabkit"'
# Of a panel's head: a bar it has only once the length of its run is known.
_PANEL = 'class="ck-where"'
_TALL = re.compile(r'<pre id="tall">(\d+)</pre>')
_MEASURE = """<script>window.addEventListener("load", () => {
const told = document.body.appendChild(document.createElement("pre"));
told.id = "tall"; told.textContent = Math.ceil(
document.querySelector(".colabkit").getBoundingClientRect().bottom) + 8;});</script>"""


def digest_of(name: str) -> str:
    """Returns a hash of a notebook's code: outputs of other code are old."""
    return hashlib.sha256("\n\n".join(code_cells(name)).encode()).hexdigest()[:16]


def badge_address(name: str) -> str:
    """Returns where a notebook's badge leads."""
    project = tomllib.loads((FOLDER.parent / "pyproject.toml").read_text())["project"]
    home = project.get("urls", {}).get("Repository", "")
    is_kaggle = "open-in-kaggle" in document(name).cells[0].source
    if not home.startswith(_GITHUB):
        return KAGGLE if is_kaggle else COLAB
    path = f"{home.removeprefix(_GITHUB).strip('/')}/blob/main/notebooks/{name}.ipynb"
    if is_kaggle:
        return f"{KAGGLE}kernels/welcome?src={_GITHUB}{path}"
    return f"{COLAB}github/{path}"


def shown_by(name: str, cloud: Cloud) -> list[CellResult]:
    """Returns what each cell of a notebook shows in its second life."""
    if name != KILLS_ITSELF:
        return two_lives(cloud, name)
    machine = fresh_machine(name, cloud)
    try:
        run_all(machine, name)
    except MachineEndedError:
        machine.restart_kernel()
    return run_all(machine, name)


def outputs_of(result: CellResult) -> list[nbformat.NotebookNode]:
    """Returns what a cell shows as outputs of a notebook, its end state alone."""
    outputs = []
    if result.stdout:
        outputs.append(nbformat.v4.new_output("stream", name="stdout", text=result.stdout))
    bundles = [*result.data]
    panels = [n for n, each in enumerate(bundles) if _PANEL in each.get("text/html", "")]
    if panels and result.updates:
        bundles[panels[-1]] = result.updates[-1]
    return outputs + [nbformat.v4.new_output("display_data", as_saved(b)) for b in bundles]


def as_saved(bundle: Mapping[str, Any]) -> dict[str, Any]:
    """Returns what is saved of something shown: a picture of what has a style of its own."""
    html = bundle.get("text/html", "")
    saved = {kind: bundle[kind] for kind in ("text/plain", _PICTURED) if kind in bundle}
    if _MARK in html:
        saved[_PICTURED] = base64.b64encode(_picture_of(html)).decode()
    return saved or dict(bundle)


def _picture_of(html: str) -> bytes:
    """Returns a picture of a card or panel, as wide as a notebook's page and as tall as it is."""
    page = '<!doctype html><html><head><meta charset="utf-8">%s</head><body>%s</body></html>'
    found = _TALL.search(
        browse(page % (_MEASURE, html), f"--window-size={WIDTH},200", "--dump-dom").stdout
    )
    tall = int(found[1]) if found else 600
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder, "shot.png")
        window = f"--window-size={WIDTH},{tall + _FRAME}"
        browse(page % ("", html), window, f"--screenshot={shot}")
        drawn = Image.open(shot).crop((0, 0, WIDTH, tall)).convert("RGB").quantize(_COLOURS)
    data = io.BytesIO()
    drawn.save(data, "png", optimize=True)
    return data.getvalue()


def write(name: str, shown: list[CellResult] | None) -> None:
    """Writes a notebook with its badge, and with outputs where there are new ones."""
    notebook = document(name)
    first = notebook.cells[0]
    first.source = _BADGE.sub(rf"\1({badge_address(name)})", first.source)
    if shown is not None:
        cells = [cell for cell in notebook.cells if cell.cell_type == "code"]
        for number, (cell, result) in enumerate(zip(cells, shown, strict=True), 1):
            cell.outputs, cell.execution_count = outputs_of(result), number
        notebook.metadata["colabkit"] = {"outputs_of": digest_of(name)}
    nbformat.validate(notebook)
    text = nbformat.writes(notebook, version=nbformat.NO_CONVERT, ensure_ascii=False, indent=1)
    (FOLDER / f"{name}.ipynb").write_text(text.rstrip("\n") + "\n", encoding="utf-8")


def main() -> None:
    """Saves those that are named, by default those whose code is newer than their outputs."""
    asked = sys.argv[1:]
    for name in NAMES:
        is_old = document(name).metadata.get("colabkit", {}).get("outputs_of") != digest_of(name)
        if name not in asked and (asked or not is_old):
            write(name, None)
            continue
        with tempfile.TemporaryDirectory() as folder, Cloud(Path(folder, "cloud")) as cloud:
            shown = shown_by(name, cloud)
        write(name, shown)
        print(f"{name}: {(FOLDER / f'{name}.ipynb').stat().st_size / 1e3:.0f} kB")


if __name__ == "__main__":
    main()
