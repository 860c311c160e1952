"""What the panel costs a run in a real Jupyter kernel: steps per second with and without."""

from __future__ import annotations

import statistics

import nbformat

from benchmarks.measuring import show
from notebooks.execution import execute

ROUNDS = 7
SETUP = """
import shutil, tempfile, time, torch, colabkit
from colabkit.notebook.panel import TrainingPanel
from torch import nn
torch.set_num_threads(1)
x, y = torch.randn(6400, 32), torch.randint(0, 10, (6400,))

drawing_s, draw = [0.0], TrainingPanel._draw
def timed(*arguments):
    began_s = time.thread_time()
    try:
        return draw(*arguments)
    finally:
        drawing_s[0] += time.thread_time() - began_s
TrainingPanel._draw = timed

def fit(epochs, progress):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(32, 256), nn.ReLU(), nn.Linear(256, 256), nn.ReLU(),
        nn.Linear(256, 10))
    folder = tempfile.mkdtemp()
    drawing_s[0], began_s = 0.0, (time.process_time(), time.perf_counter())
    of_thread_s = time.thread_time()
    history = colabkit.fit(model, (x, y), folder, epochs=epochs, validation_data=(x[:320], y[:320]),
        metrics=["accuracy"], device="cpu", save_every=None, progress=progress)
    of_thread_s = time.thread_time() - of_thread_s
    took_s = time.process_time() - began_s[0], time.perf_counter() - began_s[1]
    shutil.rmtree(folder)
    rates = [history.epochs[-1]["step"] / took for took in took_s]
    return [*rates, drawing_s[0] / of_thread_s]
fit(2, True), fit(2, False)
"""
ROUND = "[fit(40, False), fit(40, True)]"


def main() -> None:
    cells = [nbformat.v4.new_code_cell(code) for code in (SETUP, *[ROUND] * ROUNDS)]
    document = nbformat.v4.new_notebook(cells=cells)
    execute(document)
    rounds = []
    for cell in document.cells[1:]:
        told = next(o for o in cell.outputs if o.output_type == "execute_result")
        rounds.append(eval(told.data["text/plain"]))
    without, panel = (statistics.median(r[place][1] for r in rounds) for place in (0, 1))
    ratio = statistics.median(r[1][1] / r[0][1] for r in rounds)
    by_cpu = statistics.median(r[1][0] / r[0][0] for r in rounds)
    drawn = statistics.median(r[1][2] for r in rounds)
    saved = len(nbformat.writes(nbformat.v4.new_notebook(cells=document.cells[1:2]))) / 1e3
    show(
        f"panel: fit in a Jupyter kernel, {ROUNDS} rounds of 8,000 steps, interleaved",
        [
            ("progress=False", f"{without:,.0f} steps/s", ""),
            ("with the panel", f"{panel:,.0f} steps/s", ""),
            ("  ratio", f"{ratio:.3f}", "wanted >= 0.99"),
            ("  ratio by processor time", f"{by_cpu:.3f}", ""),
            ("  drawing, of the training thread's", f"{100 * drawn:.2f}%", "wanted <= 1%"),
            ("saved in the notebook", f"{saved:.0f} kB", "wanted < 25 kB"),
        ],
    )


if __name__ == "__main__":
    main()
