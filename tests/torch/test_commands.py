"""The command line on a run folder that training made."""

from __future__ import annotations

import json

import pytest
import torch

import colabkit
from colabkit import cli


@pytest.fixture
def folder(tmp_path):
    data = (torch.randn(64, 4), torch.randint(0, 3, (64,)))
    colabkit.fit(torch.nn.Linear(4, 3), data, tmp_path, epochs=2, device="cpu", progress=False)
    return tmp_path


def test_checkpoints_are_listed_with_place_and_size(folder, capsys):
    assert cli.main(["checkpoints", str(folder)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert lines[0].endswith("the newest first")
    assert "epochs done" in lines[1]
    assert lines[2].split()[:2] == ["2", "4"]
    assert "listed" in lines[2]


def test_verified_checkpoints_are_called_whole(folder, capsys):
    assert cli.main(["checkpoints", str(folder), "--verify"]) == 0
    assert "whole" in capsys.readouterr().out


def test_a_damaged_checkpoint_is_named_and_fails_the_command(folder, capsys):
    newest = colabkit.checkpoints(folder)[0]
    newest.weights_files[0].write_bytes(b"damaged")
    assert cli.main(["checkpoints", str(folder), "--verify", "--json"]) == 1
    told = json.loads(capsys.readouterr().out)
    assert told[0]["name"] == newest.name
    assert told[0]["step"] == 4
    assert told[0]["problem"]
    assert cli.main(["checkpoints", str(folder), "--verify"]) == 1
    assert told[0]["problem"] in capsys.readouterr().out
