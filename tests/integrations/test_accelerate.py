"""A loop with a real Accelerator: its states are kept, numbered on, and gone on from."""

from __future__ import annotations

import pytest
import torch

import colabkit
from colabkit.errors import ArgumentError
from tests import abilities

pytestmark = pytest.mark.needs(abilities.trainer("accelerate"))


def trained(kept, epochs: int) -> tuple[int, list[torch.Tensor]]:
    from accelerate import Accelerator

    from colabkit.integrations.accelerate import load_newest, project_in

    torch.manual_seed(1)
    accelerator = Accelerator(cpu=True, project_config=project_in(kept))
    model = torch.nn.Sequential(torch.nn.Linear(4, 8), torch.nn.Dropout(0.5), torch.nn.Linear(8, 3))
    model, optimizer = accelerator.prepare(model, torch.optim.Adam(model.parameters(), 0.01))
    x = torch.randn(16, 4, generator=torch.Generator().manual_seed(3))
    newest = load_newest(accelerator, kept)
    first = int(newest.rpartition("_")[2]) + 1 if newest else 0
    for _ in range(first, epochs):
        loss = model(x).square().mean()
        optimizer.zero_grad()
        accelerator.backward(loss)
        optimizer.step()
        accelerator.save_state()
    return first, [each.detach().clone() for each in model.parameters()]


def test_a_loop_goes_on_from_its_newest_state_on_the_next_machine(tmp_path):
    with colabkit.keep(tmp_path / "alone", tmp_path / "elsewhere", progress=False) as kept:
        _, expected = trained(kept, 5)
    place = tmp_path / "drive"
    with colabkit.keep(tmp_path / "one", place, progress=False) as kept:
        assert trained(kept, 3)[0] == 0
    with colabkit.keep(tmp_path / "two", place, progress=False) as kept:
        first, found = trained(kept, 5)
        assert first == 3
        assert kept.latest("checkpoints/checkpoint_*").endswith("checkpoint_4")
    assert all(map(torch.equal, found, expected))


@pytest.mark.parametrize("asked", [1, 2, 3])
def test_fit_gathers_as_many_batches_as_the_accelerator_is_told_or_says_so(asked, tmp_path):
    from accelerate import Accelerator

    accelerator = Accelerator(cpu=True, gradient_accumulation_steps=3)
    try:
        torch.manual_seed(1)
        model = torch.nn.Linear(4, 3)
        inner = torch.optim.SGD(model.parameters(), 0.1)
        steps: list[int] = []
        inner.register_step_post_hook(lambda *_: steps.append(1))
        rows = torch.utils.data.TensorDataset(torch.ones(18, 4), torch.zeros(18).long())
        loader = torch.utils.data.DataLoader(rows, batch_size=3)
        model, optimizer, loader = accelerator.prepare(model, inner, loader)
        given = {"optimizer": optimizer, "loss": "cross_entropy", "accumulate": asked}
        given |= {"epochs": 1, "device": "cpu", "progress": False}
        if asked == 3:
            colabkit.fit(model, loader, tmp_path, **given)
        else:
            with pytest.raises(ArgumentError, match=f"steps=3, and accumulate is {asked}"):
                colabkit.fit(model, loader, tmp_path, **given)
        assert len(steps) == (2 if asked == 3 else 0)
    finally:
        # It is one setting for the process.
        accelerator.gradient_state.plugin_kwargs = {}
