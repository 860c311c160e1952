"""run.show writes what a model makes, whatever device or type it is of."""

from __future__ import annotations

import numpy as np
import pytest
import torch

import colabkit
from colabkit.errors import ArgumentError
from colabkit.notebook import grid_of, images_of, png_of
from colabkit.runs import pictures


def shown(folder, images, **options):
    run = colabkit.Run(folder, progress=False)
    for _ in run.items(range(1)):
        run.show(images=images, **options)
    return {path.name: path.read_bytes() for path in (folder / "images").iterdir()}


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16, torch.float64])
def test_tensors_of_any_type_are_written_with_their_graph_left_alone(dtype, tmp_path):
    images = torch.rand(4, 3, 8, 8).to(dtype).requires_grad_()
    files = shown(tmp_path, images * 1)
    pixels = (images.detach().float().permute(0, 2, 3, 1).numpy() * 255 + 0.5).astype(np.uint8)
    assert files == {"images-00000000.png": png_of(grid_of(pixels))}


def test_where_both_would_do_tensors_have_their_channels_first(tmp_path):
    images = torch.rand(2, 3, 8, 3)
    assert images_of(images)[0].shape == (2, 8, 3, 3)
    assert images_of(images.numpy())[0].shape == (2, 3, 8, 3)


def test_the_newest_of_a_name_stay_and_files_of_others(tmp_path, monkeypatch):
    monkeypatch.setattr(pictures, "_KEPT", 3)
    run = colabkit.Run(tmp_path, progress=False)
    for step in run.items(range(6)):
        run.show(np.zeros((1, 4, 4)), name="fake")
        if step == 0:
            run.show(np.zeros((1, 4, 4)), name="real")
    names = sorted(path.name for path in (tmp_path / "images").iterdir())
    assert names == [*(f"fake-{step:08d}.png" for step in (3, 4, 5)), "real-00000000.png"]


def test_images_from_minus_one_are_cut_and_the_way_out_is_said_once(tmp_path, capsys):
    run = colabkit.Run(tmp_path)
    for _ in run.items(range(3)):
        run.show(torch.linspace(-1, 1, 32).reshape(2, 4, 4))
    said = capsys.readouterr().out
    assert (
        said.count("The images run from -1 to 1 and are cut to 0..1: show (images + 1) / 2.") == 1
    )


def test_a_folder_that_cannot_be_written_does_not_stop_training(tmp_path, capsys):
    run = colabkit.Run(tmp_path)
    (tmp_path / "images").write_text("a file in the way")
    for _ in run.items(range(3)):
        run.show(np.zeros((1, 4, 4)))
    assert run.step == 3
    assert capsys.readouterr().out.count("Images were not written") == 1


@pytest.mark.parametrize("name", ["", "a/b", "../up", 5])
def test_a_name_that_is_no_name_is_named(name, tmp_path):
    run = colabkit.Run(tmp_path, progress=False)
    with pytest.raises(ArgumentError, match="name is"):
        run.show(np.zeros((1, 4, 4)), name=name)


def test_showing_changes_no_bit(tmp_path):
    torch.manual_seed(0)
    model, other = torch.nn.Linear(4, 3), torch.nn.Linear(4, 3)
    other.load_state_dict(model.state_dict())
    data = torch.randn(64, 4), torch.randint(0, 3, (64,))

    def show(event):
        event.run.show(torch.rand(2, 4, 4).mul(0))

    quiet = {"device": "cpu", "progress": False, "epochs": 2}
    colabkit.fit(model, data, tmp_path / "a", callbacks=[show], **quiet)
    colabkit.fit(other, data, tmp_path / "b", **quiet)
    assert torch.equal(model.weight, other.weight)
