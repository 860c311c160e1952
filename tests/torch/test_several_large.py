"""Checkpoints of real sizes that several processes write together, disturbed at any instant."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import os
import random
import signal
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import colabkit
from colabkit.checkpoint import RunFolder, company
from colabkit.frameworks.torch import world
from colabkit.frameworks.torch.adapter import TorchAdapter
from colabkit.runs import several_managers
from colabkit.storage import Files
from tests import abilities
from tests.torch.killing import kill_self
from tests.torch.ranks import came_through, failure, killed, together
from tests.torch.several_ways import result, same_weights, train
from tests.torch.test_several_writers import SAVED, writers

# With AdamW's moments 9 MB, of which sharing is not worth while by itself, and 50 MB.
WIDTHS = {512: 1 << 20, 1200: company.WORTH_BYTES}
OPERATIONS = ("create", "write", "fsync", "rename", "unlink", "truncate", "fsync_folder")
NAMED = ("ProcessLostError", "CheckpointWriteError", "DiskFullError")


def trained(folder: Path, width: int, **options: Any) -> None:
    torch.manual_seed(11)
    layers = [nn.Linear(6, width), nn.Tanh(), nn.Dropout(0.2)]
    layers += [nn.Linear(width, width), nn.Tanh(), nn.Linear(width, width), nn.Tanh()]
    options = {"save_every": 1, **options}
    train(folder, model=nn.Sequential(*layers, nn.Linear(width, 3)), **options)


Whole = Callable[[int, int], tuple[dict[str, Any], float]]


def undisturbed_under(folder: Path) -> Whole:
    """Gives what so many processes end with where process 0 writes alone, and how long it takes."""
    known: dict[tuple[int, int], tuple[dict[str, Any], float]] = {}

    def by(count: int, width: int) -> tuple[dict[str, Any], float]:
        if (count, width) not in known:
            place, began_s = folder / f"{count} {width}", time.monotonic()
            came_through(lambda _: trained(place, width), count, place)
            known[count, width] = result(place), time.monotonic() - began_s
        return known[count, width]

    return by


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Whole:
    return undisturbed_under(tmp_path_factory.mktemp("undisturbed"))


@dataclasses.dataclass
class Blow:
    """What befalls some processes: at an instant, or at so many operations on their files."""

    kind: str
    ranks: tuple[int, ...]
    instant_s: float
    operation: int
    duration: int

    @classmethod
    def drawn(cls, chooser: random.Random, count: int, *, longest_s: float) -> Blow:
        kind = chooser.choice(["instant", "instant", "operation", "operation", "full", "torn"])
        one = (chooser.randrange(count),)
        ranks = chooser.choice([one, tuple(range(count))]) if kind != "torn" else one
        instant_s = chooser.uniform(0.0, longest_s)
        return cls(kind, ranks, instant_s, chooser.randrange(90), chooser.randrange(1, 12))

    def befall(self, rank: int) -> None:
        """In the process itself, before it trains."""
        if rank not in self.ranks:
            return
        if self.kind == "instant":
            signal.setitimer(signal.ITIMER_REAL, self.instant_s)
        elif self.kind == "torn":
            self._tear()
        else:
            self._disturb_files()

    def _tear(self) -> None:
        """Has one snapshot be found torn."""
        unchanged, left = TorchAdapter.unchanged, [self.operation % 8]

        def torn(adapter: TorchAdapter) -> Callable[[Any], bool]:
            check = unchanged(adapter)

            def is_unchanged(copies: Any) -> bool:
                left[0] -= 1
                if left[0] == -1:
                    adapter._writes_unseen = True
                    return False
                return check(copies)

            return is_unchanged

        TorchAdapter.unchanged = torn

    def _disturb_files(self) -> None:
        done = [0]

        def disturbed(act: Callable[..., Any], name: str) -> Callable[..., Any]:
            def acting(files: Files, *given: Any) -> Any:
                number, done[0] = done[0], done[0] + 1
                if self.kind == "operation" and number == self.operation:
                    if name == "write":
                        act(files, given[0], memoryview(given[1])[: len(given[1]) // 2])
                    kill_self()
                is_full = self.operation <= number < self.operation + self.duration
                if self.kind == "full" and is_full and name in {"create", "write"}:
                    raise OSError(errno.ENOSPC, "No space left on device")
                return act(files, *given)

            return acting

        for name in OPERATIONS:
            setattr(Files, name, disturbed(getattr(Files, name), name))


def flip_a_byte(run: Path, chooser: random.Random) -> set[str]:
    """Damages a file of the newest checkpoint, where another one is left; returns its name."""
    store = RunFolder(run).store
    names = store.names()
    if len(names) < 2 or any(store.verify(str(name)) for name in names):
        return set()
    only = {*store.manifest(names[0]).shards} - {*store.manifest(names[1]).shards}
    path = run / "shards" / chooser.choice(sorted(only))
    content = bytearray(path.read_bytes())
    content[chooser.randrange(len(content))] ^= 1 << chooser.randrange(8)
    path.write_bytes(content)
    return {str(names[0])}


def require_whole(run: Path, *, but: set[str]) -> None:
    """Nothing that is named as a checkpoint may be less than one."""
    found = colabkit.checkpoints(run, verify=True) if run.exists() else []
    assert not [info.problem for info in found if info.problem and info.name not in but]


@contextlib.contextmanager
def worth_sharing(nbytes: int) -> Iterator[None]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(several_managers, "WRITE_TOGETHER", True)
        patch.setattr(company, "WORTH_BYTES", nbytes)
        yield


def unnamed(run: Path) -> set[str]:
    """Returns the files that no checkpoint names."""
    store = RunFolder(run).store
    named = {shard for name in store.names() for shard in store.manifest(name).shards}
    return {path.name for path in (run / "shards").iterdir()} - named


def survives(folder: Path, seed: int, undisturbed: Whole, *, lives: int, width: int = 0) -> None:
    chooser = random.Random(seed)
    count = chooser.choice([2, 3])
    width = width or chooser.choice([*WIDTHS])
    (expected, usual_s), run = undisturbed(count, width), folder / "run"
    told, damaged = [], set[str]()
    with worth_sharing(WIDTHS[width]):
        for _ in range(lives):
            blow = Blow.drawn(chooser, count, longest_s=1.2 * usual_s)

            def living(rank: int, blow: Blow = blow) -> None:
                world.DEADLINE_S = 20.0  # one that dies before it comes is waited for as long
                blow.befall(rank)
                trained(folder, width)

            statuses = together(living, count, folder)
            for rank, status in enumerate(statuses):
                is_dead = killed(status) or os.WIFSIGNALED(status)
                said = failure(folder, rank)
                assert not status or is_dead or any(each in said for each in NAMED), said
            if chooser.random() < 0.3 and run.exists():
                damaged |= flip_a_byte(run, chooser)
            require_whole(run, but=damaged)
            names = RunFolder(run).store.names() if run.exists() else []
            shared = len(writers(run)) if names else 0
            told.append(f"{blow.kind}{[*blow.ranks]} {shared=} damaged={len(damaged)} {statuses}")
            if statuses == [0] * count:
                break
        print(f"{seed} {count=} {width=}", *told, sep="\n  ", flush=True)
        came_through(lambda _: trained(folder, width, **SAVED), count, folder)
    same_weights(folder, count)
    assert result(folder) == expected
    if unnamed(run):  # a manifest was emptied, and not yet removed: the sweep comes after it
        came_through(lambda _: trained(folder, width), count, folder)
    assert not unnamed(run)


@pytest.mark.soak
@pytest.mark.needs(abilities.SOAK)
@pytest.mark.parametrize("seed", range(int(os.environ.get("COLABKIT_ROUNDS", "30"))))
def test_whatever_befalls_it_a_large_run_ends_bit_for_bit(seed, undisturbed, tmp_path):
    survives(tmp_path, seed, undisturbed, lives=6)


def test_one_killed_while_it_writes_its_share_and_then_both_end_bit_for_bit(undisturbed, tmp_path):
    """What this seed draws: the seventh thing that process 1 does to its files, then the 62nd."""
    survives(tmp_path, 1518, undisturbed, lives=2, width=512)
