"""Whatever instant a machine dies at, the newest acknowledged version or a later one is back.

Every primitive file operation of two sessions' versions and prunings is recorded. For each prefix
of the record the disk is made as a crash may leave it.
"""

from __future__ import annotations

import random
import shutil

import pytest

from colabkit.checkpoint import Lease
from colabkit.keeping import staging
from colabkit.keeping.bringing import bring_back
from colabkit.keeping.keeper import Keeper
from colabkit.keeping.notes import Notes
from colabkit.keeping.publishing import Publisher
from colabkit.keeping.store import VersionStore
from colabkit.keeping.taking import Taker
from colabkit.keeping.units import WHOLE
from colabkit.storage import LocalVolume
from tests.unit.checkpoint.test_crash_consistency import Disk, Recording


def put(folder, step):
    """What a trainer has written after a step: two checkpoints, a file of weights, a log."""
    for name, text in (("model.bin", "w"), ("trainer_state.json", "{}")):
        path = folder / f"checkpoint-{step}" / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text if text == "{}" else f"{step}" * 300)
    (folder / "last.pt").write_text(f"{step:03}" * 100)
    (folder / "log.csv").write_text("\n".join(map(str, range(step + 1))))
    shutil.rmtree(folder / f"checkpoint-{step - 2}", ignore_errors=True)


class Session:
    def __init__(self, volume, folder, cache):
        folder.mkdir(exist_ok=True)
        self.clock_s = 0.0
        store = VersionStore(volume)
        brought = bring_back(folder, store, whole=WHOLE, skip=(), remembered=None, inputs={})
        lease = Lease(volume)
        lease.acquire(max((name.generation for name in store.names()), default=0))
        clock = lambda: self.clock_s  # noqa: E731
        area = staging.StagingArea(folder, cache / "staged")
        taker = Taker(folder, area, WHOLE, (), {}, dict(brought.stamps), clock)
        self.brought = brought
        self.keeper = Keeper(
            taker,
            store,
            lease,
            Publisher(folder, store, lease, WHOLE),
            newest=brought.version,
            held=brought.held,
            trusted=set() if brought.version is None else {brought.version.name},
            copies=2,
            period_s=0.001,
            notes=Notes(folder, "there", {}),
            say=lambda _: None,
            clock=clock,
        )

    def rounds(self, count=3):
        for _ in range(count):
            self.clock_s += 5
            self.keeper._round()


@pytest.fixture(scope="module")
def recorded(tmp_path_factory):
    root = tmp_path_factory.mktemp("recorded")
    files = Recording(root / "place")
    acknowledged = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("COLABKIT_CACHE", str(root / "cache"))
        patch.setattr(staging, "SMALL_BYTES", 100)
        for number, steps in enumerate(([1, 2, 3, 4], [5, 6])):
            volume = LocalVolume(root / "place", files, empty_first=True)
            session = Session(volume, root / f"disk-{number}", root / "cache")
            for step in steps:
                put(root / f"disk-{number}", step)
                session.rounds()
                assert session.keeper.progress.is_safe
                acknowledged.append((len(files.log), step))
    return files.log, acknowledged


def test_the_record_holds_versions_and_prunings(recorded):
    log, _ = recorded
    written = {o.target.partition("/")[0] for o in log if o.kind == "rename"}
    removed = {o.path.partition("/")[0] for o in log if o.kind == "unlink"}
    assert written >= {"versions", "files", "lease.json"}
    assert removed >= {"versions", "files"}


@pytest.mark.parametrize("seed", range(2))
def test_every_prefix_brings_back_a_whole_version_no_older_than_promised(
    recorded, seed, tmp_path, monkeypatch
):
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    log, acknowledged = recorded
    chooser = random.Random(seed)
    disk = Disk()
    for count, operation in enumerate(log, 1):
        disk.apply(operation)
        promised = max((step for done, step in acknowledged if done <= count), default=0)
        root = tmp_path / str(count)
        for name, content in disk.crashed(chooser).items():
            (root / "place" / name).parent.mkdir(parents=True, exist_ok=True)
            (root / "place" / name).write_bytes(content)
        if not promised:
            continue
        folder = root / "runs"
        folder.mkdir(parents=True)
        store = VersionStore(LocalVolume(root / "place"))
        bring_back(folder, store, whole=WHOLE, skip=(), remembered=None, inputs={})
        assert int((folder / "last.pt").read_text()[:3]) >= promised, count
        steps = {int(path.name.rpartition("-")[2]) for path in folder.glob("checkpoint-*")}
        assert max(steps) >= promised, count
        for step in steps:
            assert (folder / f"checkpoint-{step}/model.bin").read_text() == f"{step}" * 300
            assert (folder / f"checkpoint-{step}/trainer_state.json").read_text() == "{}"
        shutil.rmtree(root)


def test_a_session_after_a_crash_goes_on_and_leaves_no_orphan(recorded, tmp_path, monkeypatch):
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(staging, "SMALL_BYTES", 100)
    log, _ = recorded
    disk = Disk()
    for operation in log[: len(log) * 2 // 3]:
        disk.apply(operation)
    for name, content in disk.crashed(random.Random(1)).items():
        (tmp_path / "place" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "place" / name).write_bytes(content)
    volume = LocalVolume(tmp_path / "place", empty_first=True)
    volume.sweep()
    session = Session(volume, tmp_path / "disk", tmp_path / "cache")
    for step in (7, 8, 9):
        put(tmp_path / "disk", step)
        session.rounds()
    store = VersionStore(volume)
    versions = [store.version(name) for name in store.names()]
    assert len(versions) == 2
    named = {blob for version in versions for blob in version.blobs}
    assert set(volume.list("files")) == named
