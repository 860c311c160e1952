"""A trainer's folder kept by ``keep`` beside one straight on Drive, each killed again and again.

``python -m benchmarks.bench_keep [TRAINER ...] [--kills N]``: on the tests' double of Colab, whose
upload is slower than the trainer writes. ``cost``: what keeping costs the trainer's steps;
``large [--gigabytes N]``: folders of large files and of 20,000 small ones, on this machine's disk.
"""

from __future__ import annotations

import argparse
import dataclasses
import random
import shutil
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil

import colabkit
from benchmarks.measuring import interleaved, machine, ratio, show, timed
from tests.colab_vm import Cloud, DriveRules, missing_ability
from tests.trainer_life import Lines, next_place, read, safe_step
from tests.trainer_patterns import PATTERNS

NBYTES, STEP_S, UPLOAD_BYTES_PER_S = 600_000, 1.5, 250_000
WAYS = {"keep": "kept", "drive": "straight on Drive"}
LIFE_S = (7.5, 11.5)
START_S = 60.0
SAVES = 4
# A checkpoint each 100 steps of 50 to 100 ms.
STEPS, EVERY, ROUNDS, CHECKPOINT_BYTES = 200, 100, 3, 30_000_000
SMALL_FILES, IDLE_S = 20_000, 30.0


@dataclasses.dataclass
class Outcome:
    """What became of the lives of one trainer.

    Attributes:
        kills: How often it was killed.
        resumed: How often the next life went on from a checkpoint.
        from_zero: How often it began anew.
        crashed: How often it could not load what it found.
        broken: How often it went on from before what was uploaded when it was killed.
        steps_lost: Of those that went on, how many steps were to be done again.
    """

    kills: int = 0
    resumed: int = 0
    from_zero: int = 0
    crashed: int = 0
    broken: int = 0
    steps_lost: list[int] = dataclasses.field(default_factory=list)

    def words(self) -> str:
        """Returns it in one line."""
        lost = f"{statistics.median(self.steps_lost):.0f}" if self.steps_lost else "-"
        return (
            f"{self.resumed:>2} of {self.kills} resumed, {self.from_zero} from zero,"
            f" {self.crashed} crashed, {self.broken} before what was uploaded; steps lost: {lost}"
        )


class Lives:
    """One trainer on one Drive, machine after machine."""

    def __init__(self, name: str, how: str, folder: Path, instants: random.Random) -> None:
        self._name, self._how, self._folder, self._instants = name, how, folder, instants
        self._diary = folder / "diary"
        self._diary.mkdir()
        self._place = "exp0"

    def run(self, kills: int) -> Outcome:
        """Kills it so often, and looks each time how the next life begins."""
        outcome, before = Outcome(), None
        with Cloud(self._folder / "cloud") as cloud:
            for number in range(kills + 1):
                lines = self._live(cloud, number, is_last=number == kills)
                if before is not None:
                    _judge(outcome, before, lines[0])
                    print(f"    {self._name}, {WAYS[self._how]}: {outcome.words()}", flush=True)
                if "crashed" in lines[0]:
                    self._place = next_place(self._place)
                before = lines
        return outcome

    def _live(self, cloud: Cloud, number: int, *, is_last: bool) -> Lines:
        diary = self._diary / f"{number}.jsonl"
        diary.touch()
        rules = DriveRules(upload_bytes_per_s=UPLOAD_BYTES_PER_S)
        lent = cloud.machine(rules=rules, visible=[self._diary])
        lent.drive.mount()
        what = [self._name, self._place, str(diary), str(NBYTES), str(STEP_S), self._how]
        command = [sys.executable, "-m", "tests.trainer_life", *what]
        process = lent.start(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE)
        until_s = time.monotonic() + START_S
        while not (lines := read(diary)) and time.monotonic() < until_s and process.poll() is None:
            time.sleep(0.05)
        if lines and not is_last:
            time.sleep(self._instants.uniform(*LIFE_S))
        lent.kill()
        _, said = process.communicate()
        if not (lines := read(diary)):
            raise RuntimeError(said.decode()[-2000:])
        return lines


def _judge(outcome: Outcome, before: Lines, first: dict[str, Any]) -> None:
    outcome.kills += 1
    if "crashed" in first:
        outcome.crashed += 1
        return
    began = first["began"]
    last = max((line["step"] for line in before if "step" in line), default=0)
    outcome.broken += began < safe_step(before)
    outcome.resumed += began > 0
    outcome.from_zero += began == 0
    if began:
        outcome.steps_lost.append(int(last - began))


def sent_over_changed(name: str) -> float:
    """Returns how many bytes are sent for each that changed, over saves that all arrive."""
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "exp"
        trainer = PATTERNS[name](folder, 8_000_000)
        with colabkit.keep(folder, Path(scratch) / "place", progress=False) as kept:
            changed, known = 0, {}
            for step in range(1, SAVES + 1):
                trainer.save(step)
                found = {
                    path: (path.stat().st_mtime_ns, path.stat().st_size)
                    for path in folder.rglob("*")
                    if path.is_file()
                }
                changed += sum(each[1] for path, each in found.items() if known.get(path) != each)
                known = found
                kept.flush()
            return kept.status.sent_nbytes / changed


@dataclasses.dataclass(frozen=True, slots=True)
class Steps:
    """What a trainer's steps took, saves not counted.

    Attributes:
        mean_s: The mean step, in seconds.
        keep_share: What keeping took of one processor meanwhile.
    """

    mean_s: float
    keep_share: float = 0.0


def train(*, is_kept: bool) -> Steps:
    """Trains a while, half arithmetic that needs no interpreter, half Python."""
    rng = np.random.default_rng(0)
    one = rng.random((500, 500))
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "exp"
        trainer = PATTERNS["trainer"](folder, CHECKPOINT_BYTES)
        kept = colabkit.keep(folder, Path(scratch) / "place", progress=False) if is_kept else None
        took_s, all_began_s = 0.0, time.perf_counter()
        for step in range(1, STEPS + 1):
            began_s = time.perf_counter()
            for _ in range(6):
                one = one @ one
                one /= np.abs(one).max()
            sum(number * number for number in range(400_000))
            took_s += time.perf_counter() - began_s
            if step % EVERY == 0:
                trainer.save(step)
        share = _keep_s() / (time.perf_counter() - all_began_s)
        if kept is not None:
            kept.close()
    return Steps(took_s / STEPS, share)


def _keep_s() -> float:
    """Returns the processor seconds of the thread that keeps, 0 where there is none."""
    names = {each.native_id: each.name for each in threading.enumerate()}
    threads = psutil.Process().threads()
    mine = [each for each in threads if names.get(each.id) == "colabkit-keep"]
    return sum(each.user_time + each.system_time for each in mine)


def show_large(gigabytes: float) -> None:
    """Keeps files of 1 GB each, changes one, brings all back; then 20,000 small files."""
    piece = np.random.default_rng(0).bytes(64 << 20)

    def write_large(folder: Path) -> int:
        for number in range(int(gigabytes)):
            with (folder / f"part-{number}.bin").open("wb") as file:
                for part in range(15):
                    file.write(number.to_bytes(4, "big") + part.to_bytes(4, "big") + piece)
        return sum(path.stat().st_size for path in folder.iterdir())

    def change_large(folder: Path) -> int:
        with (folder / "part-0.bin").open("r+b") as file:
            file.write(b"changed")
        return (folder / "part-0.bin").stat().st_size

    def write_small(folder: Path) -> int:
        for number in range(SMALL_FILES):
            place = folder / f"{number % 100}/{number}.txt"
            place.parent.mkdir(exist_ok=True)
            # None begins like another: nothing is saved by what they have in common.
            place.write_bytes(piece[number * 1000 : number * 1000 + 1000])
        return SMALL_FILES * 1000

    def change_small(folder: Path) -> int:
        for number in range(0, SMALL_FILES, 200):
            start = (SMALL_FILES + number) * 1000
            (folder / f"{number % 100}/{number}.txt").write_bytes(piece[start : start + 999])
        return 999 * SMALL_FILES // 200

    what = f"keep: {SMALL_FILES:,} files of 1 kB"
    show(what, _kept_rows(write_small, change_small))
    what = f"keep: {gigabytes:g} files of 1 GB"
    show(what, _kept_rows(write_large, change_large))


def _kept_rows(
    write: Callable[[Path], int], change: Callable[[Path], int]
) -> list[tuple[str, str, str]]:
    with tempfile.TemporaryDirectory() as scratch:
        folder, place = Path(scratch) / "exp", Path(scratch) / "place"
        with colabkit.keep(folder, place, progress=False) as kept, Peak() as peak:
            written = write(folder)
            flush_s = timed(kept.flush)
            sent = kept.status.sent_nbytes
            changed = change(folder)
            change_s = timed(kept.flush)
            sent_again = kept.status.sent_nbytes - sent
            before_s, looks = _keep_s(), kept._opened.keeper.progress.rounds
            time.sleep(IDLE_S)
            idle = (_keep_s() - before_s) / IDLE_S
            looks = kept._opened.keeper.progress.rounds - looks
        shutil.rmtree(folder)
        shutil.rmtree(kept._opened.notes.root, ignore_errors=True)
        with Peak() as bringing:
            bring_s = timed(lambda: colabkit.keep(folder, place, progress=False).close())
        shutil.rmtree(kept._opened.notes.root, ignore_errors=True)
    return [
        ("first version", f"{flush_s:.1f} s", f"{written / flush_s / 1e6:.0f} MB/s"),
        ("extra memory at its peak", f"{peak.extra_bytes / 1e6:.0f} MB", ""),
        ("bytes sent over bytes written", f"{sent / written:.3f}", "<= 1.1"),
        ("bytes sent over bytes changed", f"{sent_again / changed:.3f}", f"{change_s:.1f} s"),
        ("of one core while nothing changes", f"{idle:.2%}", f"{looks} looks in {IDLE_S:.0f} s"),
        ("brought back", f"{bring_s:.1f} s", f"{written / bring_s / 1e6:.0f} MB/s"),
        ("extra memory while it is brought", f"{bringing.extra_bytes / 1e6:.0f} MB", ""),
    ]


class Peak:
    """How much more memory is in use at the worst moment than at the beginning."""

    def __enter__(self) -> Peak:
        self._process, self._stop = psutil.Process(), threading.Event()
        self._base = self._most = self._process.memory_info().rss
        self._thread = threading.Thread(target=self._watch)
        self._thread.start()
        return self

    def _watch(self) -> None:
        while not self._stop.wait(0.02):
            self._most = max(self._most, self._process.memory_info().rss)

    def __exit__(self, *_: object) -> None:
        self._stop.set()
        self._thread.join()

    @property
    def extra_bytes(self) -> int:
        """The difference."""
        return self._most - self._base


def _outcome(name: str, how: str, kills: int) -> Outcome:
    with tempfile.TemporaryDirectory() as scratch:
        return Lives(name, how, Path(scratch), random.Random(name)).run(kills)


def main() -> None:
    """Prints a line for each trainer and way, then what keeping costs."""
    parser = argparse.ArgumentParser()
    parser.add_argument("trainers", nargs="*", default=list(PATTERNS))
    parser.add_argument("--kills", type=int, default=10)
    parser.add_argument("--gigabytes", type=float, default=6)
    options = parser.parse_args()
    if options.kills and (lack := missing_ability()):
        print(f"keep: nothing can be killed here: {lack}")
        options.kills = 0
    rates = f"{NBYTES / STEP_S / 1e6:.2f} MB/s written, {UPLOAD_BYTES_PER_S / 1e6:.2f} MB/s sent"
    print(f"keep: {rates}\n  {machine()}")
    names = [name for name in options.trainers if name in PATTERNS and options.kills]
    ways = [(name, how) for name in names for how in WAYS]
    # Their machines mostly wait: all of a few trainers live at once.
    with ThreadPoolExecutor(4) as at_once:
        outcomes = at_once.map(lambda way: _outcome(*way, options.kills), ways)
        for (name, how), outcome in zip(ways, outcomes, strict=True):
            print(f"  {name:<11} {WAYS[how]:<18} {outcome.words()}", flush=True)
    if "large" in options.trainers:
        show_large(options.gigabytes)
    if "cost" in options.trainers or len(options.trainers) == len(PATTERNS):
        for name in PATTERNS:
            words = f"{name}: bytes sent over bytes changed"
            print(f"  {words:<44} {sent_over_changed(name):.3f}  (wanted <= 1.1)", flush=True)
        show("keep: what it costs", _cost_rows())


def _cost_rows() -> list[tuple[str, str, str]]:
    shares: list[float] = []

    def kept() -> float:
        steps = train(is_kept=True)
        shares.append(steps.keep_share)
        return steps.mean_s

    contenders = {"kept": kept, "alone": lambda: train(is_kept=False).mean_s}
    took = interleaved(contenders, rounds=ROUNDS)
    rounds = ", ".join(f"{k / a:.3f}" for k, a in zip(took["kept"], took["alone"], strict=True))
    share = statistics.median(shares)
    return [
        ("a step alone", f"{statistics.median(took['alone']) * 1e3:.1f} ms", ""),
        (
            "the trainer's steps, kept over alone",
            f"{ratio(took, 'kept', 'alone'):.3f}",
            f"<= 1.02 ({rounds})",
        ),
        ("keep's own processor time, of one core", f"{share:.2%}", ""),
    ]


if __name__ == "__main__":
    main()
