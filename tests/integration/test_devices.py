"""Several devices from the cell of a real kernel: classes of its cells, its stop button."""

from __future__ import annotations

import pytest

# All of it is the cell's own, so that no other process could import it.
CELL = """
import time, torch, colabkit
torch.manual_seed(0)

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        layers = torch.nn.Linear(6, 8), torch.nn.Dropout(), torch.nn.Linear(8, 3)
        self.inner = torch.nn.Sequential(*layers)

    def forward(self, x):
        return self.inner(x)

class Rows(torch.utils.data.Dataset):
    def __init__(self):
        self.x = torch.randn(40, 6)

    def __len__(self):
        return len(self.x)

    def __getitem__(self, index):
        return self.x[index] + torch.rand(6), int(self.x[index].sum() > 0)

class Slow:
    def on_batch_end(self, run, step, logs):
        if step == 3:
            print("in step", step, flush=True)
        # Until the stop has come, however late.
        time.sleep(1 if step >= 3 else 0.1)

def train(folder, epochs=2, **options):
    torch.manual_seed(1)
    model, data = Net(), torch.utils.data.DataLoader(Rows(), batch_size=4, shuffle=True)
    history = colabkit.fit(model, data, folder, epochs=epochs, loss="cross_entropy",
                           device="cpu", progress=False, **options)
    losses = history.numbers()["steps"]["loss"].tolist()
    return [each.tolist() for each in model.parameters()], losses
"""


def test_a_cell_trains_its_own_classes_in_two_processes_and_is_stopped(cloud):
    pytest.importorskip("torch")
    machine = cloud.machine("cpu")
    machine.run_cell(CELL).check()
    machine.run_cell("whole = train('/content/whole', devices=2)").check()
    cell = machine.kernel.begin("train('/content/run', devices=2, callbacks=[Slow()])")
    machine.kernel.wait_for_text(cell, "process 1: in step 3")
    machine.interrupt()
    machine.kernel.finish(cell).check()
    step = int(machine.run_cell("colabkit.checkpoints('/content/run')[0].step").check().result)
    assert 3 <= step < 20
    assert machine.run_cell("train('/content/run') == whole").check().result == "True"
