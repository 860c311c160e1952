"""Two processes on hosts of their own: networks apart, one cable between them, one shared disk."""

from __future__ import annotations

import ctypes
import os
import signal
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch.distributed as dist

import colabkit
from colabkit.frameworks.torch import heartbeats, world
from tests import abilities
from tests.torch.killing import forked, reaped
from tests.torch.ranks import WAIT_S, failure
from tests.torch.several_pieces import KillTogether, train_in_pieces, undisturbed_in_pieces
from tests.torch.several_ways import ShortWaits, result, same_weights, train, undisturbed_in
from tests.torch.test_several_places import hide, on_network_file_system, writers

needs = pytest.mark.needs
pytestmark = needs(abilities.NETWORKS)

_NEW_NETWORK = 0x40000000
_PORT = 29_500  # free: the networks are new


class Host(NamedTuple):
    """One side of the cable."""

    name: str
    card: str
    address: str

    def run(self, *words: str) -> None:
        run("ip", "-n", self.name, *words)

    def enter(self) -> None:
        """Moves this process there."""
        libc = ctypes.CDLL(None, use_errno=True)
        with Path("/run/netns", self.name).open() as network:
            assert not libc.setns(network.fileno(), _NEW_NETWORK), os.strerror(ctypes.get_errno())


def run(*words: str) -> None:
    subprocess.run(words, check=True, capture_output=True)


@pytest.fixture
def hosts() -> Iterator[list[Host]]:
    """Gives two hosts that reach each other, and nobody else."""
    own = f"ck{os.getpid()}"
    found = [Host(f"{own}-{n}", f"{own}v{n}", f"10.99.0.{n + 1}") for n in (0, 1)]
    try:
        for host in found:
            run("ip", "netns", "add", host.name)
            host.run("link", "set", "lo", "up")
        found[0].run(
            *("link", "add", found[0].card, "type", "veth"),
            *("peer", "name", found[1].card, "netns", found[1].name),
        )
        for host in found:
            host.run("addr", "add", f"{host.address}/24", "dev", host.card)
            host.run("link", "set", host.card, "up")
        yield found
    finally:
        for host in found:
            subprocess.run(["ip", "netns", "delete", host.name], check=False, capture_output=True)


class Cut:
    """Takes the cable out after a step."""

    def __init__(self, step: int, host: Host) -> None:
        self.step, self.host = step, host

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if step == self.step and dist.get_rank() == 0:
            run.flush()
            self.host.run("link", "set", self.host.card, "down")


def on_hosts(
    hosts: list[Host],
    folder: Path,
    *,
    training: Callable[..., Any] = train,
    own_disk: Path | None = None,
    **options: Any,
) -> list[int]:
    """Trains with a process on each of them, and returns how these have ended.

    Args:
        hosts: One for each process.
        folder: Where what comes of it is written.
        training: What trains.
        own_disk: A folder of which each host has its own.
        options: For what trains.
    """

    def begun(rank: int) -> int:
        def work() -> None:
            signal.signal(signal.SIGALRM, signal.SIG_DFL)
            signal.alarm(WAIT_S)
            host = hosts[rank]
            host.enter()
            if own_disk is not None:
                hide(own_disk)
            job = {"RANK": f"{rank}", "LOCAL_RANK": "0", "WORLD_SIZE": f"{len(hosts)}"}
            meeting = {"MASTER_ADDR": hosts[0].address, "MASTER_PORT": f"{_PORT}"}
            os.environ.update(job, **meeting, GLOO_SOCKET_IFNAME=host.card)
            world.DEADLINE_S, heartbeats.UNANSWERED_S = 30.0, 5.0
            training(folder, save_every=1, **options)

        return forked(work, report=folder / f"failure-{rank}")

    folder.mkdir(exist_ok=True)
    return [reaped(child) for child in [begun(rank) for rank in range(len(hosts))]]


@needs(abilities.MOUNTS)
@needs(abilities.PIECES)
@pytest.mark.parametrize("how", ["killed", "cut off"])
def test_two_hosts_write_and_read_their_pieces_on_a_disk_that_both_see(
    how, hosts, monkeypatch, tmp_path, tmp_path_factory
):
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    on_network_file_system(tmp_path, monkeypatch)

    def training(folder: Path, **options: Any) -> None:
        dist.init_process_group("gloo")
        train_in_pieces(folder, **options)

    options: dict[str, Any] = {"training": training, "own_disk": tmp_path / "cache"}
    cut = [ShortWaits(4, 0), ShortWaits(4, 1), Cut(5, hosts[0])]
    callbacks = [KillTogether(5, (1,))] if how == "killed" else cut
    statuses = on_hosts(hosts, tmp_path, callbacks=callbacks, **options)
    assert 0 not in statuses
    assert "ProcessLostError" in failure(tmp_path, 0)
    assert how == "killed" or "ProcessLostError" in failure(tmp_path, 1)
    hosts[0].run("link", "set", hosts[0].card, "up")
    assert 0 < colabkit.checkpoints(tmp_path / "run", verify=True)[0].step < 8
    statuses = on_hosts(hosts, tmp_path, **options)
    assert statuses == [0, 0], failure(tmp_path, 0) + failure(tmp_path, 1)
    same_weights(tmp_path)
    assert writers(tmp_path / "run") == {0, 1}
    wanted = undisturbed_in_pieces(tmp_path_factory)("dropout_and_arrays", 2)
    assert result(tmp_path) == wanted


@pytest.mark.soak
@needs(abilities.SOAK)
def test_two_hosts_train_as_two_processes_of_one(hosts, tmp_path, tmp_path_factory):
    statuses = on_hosts(hosts, tmp_path)
    assert statuses == [0, 0], failure(tmp_path, 0) + failure(tmp_path, 1)
    same_weights(tmp_path)
    assert result(tmp_path) == undisturbed_in(2, tmp_path_factory)("dropout_and_arrays")


@pytest.mark.soak
@needs(abilities.SOAK)
def test_hosts_that_are_cut_off_from_each_other_end_and_go_on_bit_for_bit(
    hosts, tmp_path, tmp_path_factory
):
    statuses = on_hosts(hosts, tmp_path, callbacks=[Cut(5, hosts[0])])
    assert 0 not in statuses
    for rank in (0, 1):
        assert "ProcessLostError" in failure(tmp_path, rank)
    saved = colabkit.checkpoints(tmp_path / "run", verify=True)
    assert all(each.step <= 6 for each in saved)
    hosts[0].run("link", "set", hosts[0].card, "up")
    statuses = on_hosts(hosts, tmp_path)
    assert statuses == [0, 0], failure(tmp_path, 0) + failure(tmp_path, 1)
    same_weights(tmp_path)
    assert result(tmp_path) == undisturbed_in(2, tmp_path_factory)("dropout_and_arrays")
