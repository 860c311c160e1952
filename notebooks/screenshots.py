"""Pictures of what a notebook shows, light and dark, wide and narrow, in a real browser.

Run ``python -m notebooks.screenshots FOLDER``; it needs Chromium, nbclient and nbconvert. A
notebook is executed in a real kernel and rendered as JupyterLab does, and every panel state is
put on a page of its own. Anything the browser's console says is an error.
"""

from __future__ import annotations

import argparse
import ast
import datetime
import math
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

import nbformat
from nbconvert import HTMLExporter

from colabkit.notebook import Card, Row, Tone, card_html
from colabkit.notebook.charts import Chart
from colabkit.notebook.panel_html import EpochRows, PanelState, Phase, Stage, panel_html
from colabkit.notebook.progress import RunProgress
from notebooks.execution import execute
from tests.abilities import BROWSERS
from tests.colab_vm import Cloud, missing_ability

THEMES = ("light", "dark")
WIDTHS = {"wide": 1000, "narrow": 480}
HOSTILE = "<img src=x onerror=\"document.title='broken in'\">"
TRAIN = """
import torch, colabkit
from torch import nn
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split

torch.set_num_threads(1)
x, y = load_digits(return_X_y=True)
x = torch.tensor(x / 16, dtype=torch.float32)
x_train, x_test, y_train, y_test = train_test_split(x, torch.tensor(y), random_state=0)
folder = "runs/digits"

def fit(epochs, **options):
    model = nn.Sequential(
        nn.Unflatten(1, (1, 8, 8)), nn.Conv2d(1, 16, 3), nn.ReLU(), nn.Conv2d(16, 32, 3), nn.ReLU(),
        nn.Flatten(), nn.Dropout(0.3), nn.Linear(512, 10))
    return colabkit.fit(
        model, (x_train, y_train), folder, epochs=epochs, validation_data=(x_test, y_test),
        metrics=["accuracy"], device="cpu", save_every="1s", **options)

seen = []
def remember(message):
    data = message["content"].get("data", {})
    if "progressbar" in data.get("text/html", ""):
        seen.append(data["text/html"])
    return message
get_ipython().display_pub.register_hook(remember)
"""
INTERRUPTED = """
def stop(event):
    if event.name == "batch_end" and event.step == 800:
        raise RuntimeError("the machine is gone")
try:
    fit(60, callbacks=[stop])
except RuntimeError as error:
    print(error)
"""
DRIVE = """
import time
from google.colab import drive
drive.mount("/content/drive")
folder = "MyDrive/runs/digits"
fit_quickly = fit
def fit(epochs, callbacks=()):
    pause = lambda event: time.sleep(0.004) if event.name == "batch_end" else None
    return fit_quickly(epochs, callbacks=[pause, *callbacks])
"""
FIT = 'history = colabkit.fit(model, data, "MyDrive/runs/digits", epochs=60)'
CELLS = (
    TRAIN,
    INTERRUPTED,
    "history = fit(60)",
    "from IPython.display import HTML; HTML(seen[len(seen) * 2 // 3])",
    "history",
    "colabkit.checkpoints(folder)",
    "from colabkit.runtime import detect_device; detect_device()",
    "history.plot()",
)
PANEL_CELL = 3


def browser() -> str | None:
    """Returns the browser's program, None when there is none."""
    return next((path for name in BROWSERS if (path := shutil.which(name))), None)


def executed() -> nbformat.NotebookNode:
    """Returns the notebook, executed in a kernel."""
    cells = [nbformat.v4.new_code_cell(code.strip()) for code in CELLS]
    document = nbformat.v4.new_notebook(cells=cells)
    with tempfile.TemporaryDirectory() as folder:
        execute(document, folder=Path(folder))
    return document


def on_drive() -> nbformat.NotebookNode | None:
    """Returns a notebook of the panel in mid-run on Drive, None where Colab has no double."""
    if missing_ability() is not None:
        return None
    with tempfile.TemporaryDirectory() as folder, Cloud(Path(folder, "cloud")) as cloud:
        machine = cloud.machine()
        for code in (TRAIN, DRIVE, INTERRUPTED, "history = fit(60)"):
            machine.run_cell(code).check()
        told = machine.run_cell("seen[len(seen) * 3 // 4]").check()
    output = nbformat.v4.new_output("display_data", {"text/html": ast.literal_eval(told.result)})
    cell = nbformat.v4.new_code_cell(FIT, outputs=[output], execution_count=3)
    return nbformat.v4.new_notebook(cells=[cell])


def rendered(document: nbformat.NotebookNode, *, theme: str) -> str:
    """Returns a notebook as a page that loads nothing from elsewhere."""
    exporter = HTMLExporter(theme=theme, require_js_url="", mathjax_url="", jquery_url="")
    page, _ = exporter.from_notebook_node(document)
    return str(page)


def only(document: nbformat.NotebookNode, place: int) -> nbformat.NotebookNode:
    """Returns a notebook of one cell's outputs."""
    cell = document.cells[place].copy()
    cell["source"] = FIT
    return nbformat.v4.new_notebook(cells=[cell])


def gallery(*, theme: str) -> str:
    """Returns a page with every state of a panel, and a card."""
    mark = {"light": "true", "dark": "false"}[theme]
    back = {"light": "#ffffff", "dark": "#111111"}[theme]
    drawn = "".join(panel_html(state) for state in states()) + card_html(session_card())
    return (
        '<!doctype html><html><head><meta charset="utf-8"></head>'
        f'<body data-jp-theme-light="{mark}" style="background:{back}">{drawn}</body></html>'
    )


def states() -> list[PanelState]:
    """Returns panels as they look in training, with a lost Drive, at the end, and under attack."""
    loss = [(s * 64.0, 2.3 * math.exp(-s / 20) + 0.1 + 0.1 * math.sin(7 * s)) for s in range(1, 65)]
    val = [(s * 400.0, 2.3 * math.exp(-s / 3.2) + 0.25) for s in range(1, 11)]
    accuracy = [(x, 1 - y / 2.6) for x, y in loss]
    charts = [
        Chart("loss", {"loss": loss, "val_loss": val}, unit="step", marks=[1280], best=val[8]),
        Chart("accuracy", {"accuracy": accuracy}, unit="step", marks=[1280]),
    ]
    at = datetime.datetime(2026, 1, 2, 14, 3, 12, tzinfo=datetime.UTC)
    progress = RunProgress(step=4120, epoch=10, epochs=20, total_steps=8000, steps_per_epoch=400)
    rows = [
        {"epoch": n, "loss": 2 / n, "val_loss": 2 / n + abs(n - 9) / 50, "accuracy": 1 - 1 / n}
        for n in range(6, 11)
    ]
    machine = (
        Row("GPU", "Tesla T4, 3.1 GB of 15.0 GB, 87% busy"),
        Row("Machine", "6.0 GB of 12.7 GB taken, 3.0 GB by this notebook, processors 81% busy"),
        Row(
            "Data",
            "31% of the time is spent waiting for it",
            Tone.NOTE,
            "Let a DataLoader fetch ahead: num_workers=2, persistent_workers=True.",
        ),
    )
    training = PanelState(
        title="/content/drive/MyDrive/runs/cats",
        progress=progress,
        steps_per_s=42.13,
        overall_steps_per_s=0.5,
        samples_per_s=1348.2,
        elapsed_s=98,
        machine_left_s=1800,
        epochs=EpochRows(rows, best=3),
        values={"loss": "0.2031", "accuracy": "0.9219"},
        stages=(
            Stage("this machine", 4100, 2),
            Stage("Drive", 3900, 7, Tone.NOTE, "copying for 4 s"),
            Stage("Drive: uploaded", 3200, 40),
        ),
        charts=charts,
        rows=(
            *machine,
            Row("Drive", "mounted 41 min ago at /content/drive", Tone.GOOD),
            Row("Session", "machine up 1 h 12 min, about 10 h 48 min left (an estimate)"),
        ),
        notes=("Resume is exact.",),
        drawn_at=at,
    )
    lost = PanelState(
        title="/content/drive/MyDrive/runs/cats",
        progress=RunProgress(step=510, epoch=0),
        steps_per_s=3.2,
        elapsed_s=1600,
        doing="validating, batch 12 of 40",
        values={"loss": "1.203"},
        stages=(
            Stage("this machine", 500, 3),
            Stage("Drive", 200, 95, Tone.BAD, "3 waiting"),
            Stage("Drive: uploaded"),
        ),
        rows=(Row("Drive", "lost; checkpoints are kept on this machine", Tone.BAD),),
        notes=("Drive is lost. Training goes on; the next try is in 1 min.",),
        drawn_at=at,
    )
    hostile = PanelState(
        title=HOSTILE,
        progress=RunProgress(step=10, epoch=0, total_steps=10, steps_per_epoch=10, epochs=1),
        phase=Phase.FINISHED,
        values={HOSTILE: HOSTILE},
        stages=(Stage(HOSTILE, 10, 2, remark=HOSTILE),),
        charts=(Chart(HOSTILE, {HOSTILE: [(1.0, 1.0), (2.0, 3.0)]}),),
        rows=(Row(HOSTILE, HOSTILE, advice=HOSTILE),),
        notes=(HOSTILE,),
        drawn_at=at,
    )
    return [training, lost, hostile]


def session_card() -> Card:
    """Returns a card with a line of each tone."""
    return Card(
        "Google Colab",
        (
            Row("Device", "Tesla T4, 15.0 GB, compute capability 7.5, fp16", Tone.GOOD),
            Row("Drive", "mounted at /content/drive", Tone.GOOD),
            Row("Packages", "timm is not installed", Tone.NOTE, "pip install timm"),
            Row("Disk", "0.4 GB free", Tone.BAD, "Delete what you no longer need."),
        ),
    )


def browse(page: str, *options: str) -> subprocess.CompletedProcess[str]:
    """Opens a page in the browser, and gives what it wrote."""
    program = browser()
    if program is None:
        sys.exit("Chromium is not installed: apt-get install chromium")
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder, "page.html")
        path.write_text(page, encoding="utf-8")
        command = [program, "--headless=new", "--no-sandbox", "--disable-gpu", *options]
        command += ["--disable-dev-shm-usage", "--hide-scrollbars", "--enable-logging=stderr"]
        command += [f"--user-data-dir={folder}/profile", path.as_uri()]
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=600)


def console(done: subprocess.CompletedProcess[str]) -> list[str]:
    """Returns what the browser's console said."""
    return [line for line in done.stderr.splitlines() if "CONSOLE" in line]


def shoot(page: str, picture: Path, *, width: int, height: int) -> list[str]:
    """Takes a picture of a page; returns what the browser's console said."""
    return console(browse(page, f"--window-size={width},{height}", f"--screenshot={picture}"))


def main() -> None:
    """Takes all pictures."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", type=Path, help="where the pictures go")
    folder = parser.parse_args().folder.absolute()
    folder.mkdir(parents=True, exist_ok=True)
    document = executed()
    panel = on_drive() or only(document, PANEL_CELL)
    said = []
    for theme in THEMES:
        pages = {
            "gallery": (gallery(theme=theme), 1500),
            "notebook": (rendered(document, theme=theme), 4600),
            "panel": (rendered(panel, theme=theme), 740),
        }
        for name, (page, height) in pages.items():
            for size, width in WIDTHS.items():
                tall = height if size == "wide" else int(height * 1.6)
                picture = folder / f"{name}-{theme}-{size}.png"
                said += shoot(page, picture, width=width, height=tall)
                print(f"{picture}: {picture.stat().st_size / 1e3:.0f} kB")
    sys.exit("\n".join(said))


if __name__ == "__main__":
    main()
