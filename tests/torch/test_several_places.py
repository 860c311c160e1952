"""Several processes write and read their pieces wherever a run folder lies, on hosts of their own.

A host is a process with mounts of its own, which sees no other's disk.
"""

from __future__ import annotations

import ctypes
import logging
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch.distributed as dist

import colabkit
from colabkit.checkpoint import RunFolder
from colabkit.storage import mounts
from tests import abilities
from tests.torch.ranks import came_through, failure, killed, together
from tests.torch.several_pieces import KillTogether, train_in_pieces, undisturbed_in_pieces
from tests.torch.several_ways import result, same_weights
from tests.torch.test_several_writers import PART

pytestmark = pytest.mark.needs(abilities.PIECES)
_NEW_MOUNTS = 0x00020000


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str, int], dict[str, Any]]:
    """Gives what processes end with that nobody disturbs, by the way of training and number."""
    return undisturbed_in_pieces(tmp_path_factory)


def hide(folder: Path) -> None:
    """Gives this process a disk of its own at a folder, which no other process sees."""
    folder.mkdir(exist_ok=True)
    libc = ctypes.CDLL(None, use_errno=True)
    assert not libc.unshare(_NEW_MOUNTS), os.strerror(ctypes.get_errno())
    subprocess.run(["mount", "--make-rprivate", "/"], check=True)
    subprocess.run(["mount", "-t", "tmpfs", "tmpfs", str(folder)], check=True)


def on_network_file_system(folder: Path, patch: pytest.MonkeyPatch) -> None:
    """Has what a folder lies on count as one, as NFS does."""
    kind = mounts.filesystem_type(folder)
    patch.setattr(mounts, "_SLOW", (*mounts._SLOW, kind))


class Watch:
    """Takes down whether checkpoints wait on this machine's disk on their way."""

    def __init__(self, folder: Path) -> None:
        self.target = folder / "way"

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if dist.get_rank() == 0 and step == 2:
            status = run.save_status
            self.target.write_text("directly" if status.upload is None else "by way of the disk")


def writers(place: str | Path) -> set[int]:
    """Returns the ranks of those that have written files of the newest checkpoint."""
    store = RunFolder(place).store
    ranks = (PART.search(name) for name in store.manifest(store.names()[0]).shards)
    return {int(found[1]) if found else 0 for found in ranks}


def lives(folder: Path, place: str | Path, become: Callable[[int], None]) -> None:
    """Has process 1 of two die in mid-epoch, and both go on; each becomes a host before."""
    way = "dropout_and_arrays"

    def live(rank: int, **options: Any) -> None:
        become(rank)
        train_in_pieces(folder, way, ckpt_dir=place, **options)

    callbacks = [KillTogether(5, (1,)), Watch(folder)]
    statuses = together(lambda rank: live(rank, save_every=4, callbacks=callbacks), 2, folder)
    assert killed(statuses[1]), failure(folder, 0) + failure(folder, 1)
    assert "ProcessLostError" in failure(folder, 0)
    came_through(live, 2, folder)
    same_weights(folder)


def test_pieces_wait_on_the_disk_of_one_machine_on_their_way_to_a_bucket(
    bucket, undisturbed, tmp_path
):
    place = f"{bucket}/runs/cats"
    lives(tmp_path, place, lambda _: None)
    assert (tmp_path / "way").read_text() == "by way of the disk"
    assert writers(place) == {0, 1}
    assert result(tmp_path) == undisturbed("dropout_and_arrays", 2)
    assert not any(each.problem for each in colabkit.checkpoints(place, verify=True))


@pytest.mark.needs(abilities.MOUNTS)
def test_hosts_write_their_pieces_into_a_bucket_themselves(bucket, undisturbed, tmp_path):
    place = f"{bucket}/runs/cats"
    lives(tmp_path, place, lambda _: hide(tmp_path / "cache"))
    assert (tmp_path / "way").read_text() == "directly"
    assert writers(place) == {0, 1}
    assert result(tmp_path) == undisturbed("dropout_and_arrays", 2)
    assert not any(each.problem for each in colabkit.checkpoints(place, verify=True))


@pytest.mark.needs(abilities.MOUNTS)
def test_hosts_write_their_pieces_into_a_network_file_system_themselves(
    undisturbed, monkeypatch, tmp_path
):
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    on_network_file_system(tmp_path, monkeypatch)
    lives(tmp_path, tmp_path / "run", lambda _: hide(tmp_path / "cache"))
    assert (tmp_path / "way").read_text() == "directly"
    assert writers(tmp_path / "run") == {0, 1}
    assert result(tmp_path) == undisturbed("dropout_and_arrays", 2)
    assert not any(each.problem for each in colabkit.checkpoints(tmp_path / "run", verify=True))


@pytest.mark.needs(abilities.MOUNTS)
def test_where_hosts_do_not_see_the_folder_one_writes_all_of_it_and_says_so(undisturbed, tmp_path):
    def become(rank: int) -> None:
        if rank:
            hide(tmp_path / "run")
        else:
            logging.getLogger("colabkit").addHandler(logging.FileHandler(tmp_path / "said"))

    lives(tmp_path, tmp_path / "run", become)
    assert writers(tmp_path / "run") == {0}
    found, wanted = result(tmp_path), undisturbed("dropout_and_arrays", 2)
    assert {**found, "hashes": {}} == {**wanted, "hashes": {}}
    said = (tmp_path / "said").read_text()
    assert "Process 0 writes all of each checkpoint: process 1 on " in said
    assert "is not the folder that process 0 writes to" in said
