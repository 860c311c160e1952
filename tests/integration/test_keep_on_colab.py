"""keep() on the double: whatever kills a machine, a mount or an upload, what was whole is back."""

from __future__ import annotations

import json
import re
import time

import pytest

from tests.colab_vm import Attributes, DriveRules, Fault, MachineEndedError

OPEN = """
import colabkit, os, time, json, sys
colabkit.mount()
def checkpoint(step, nbytes=400_000, total=2):
    folder = f"/content/out/checkpoint-{step}"
    os.makedirs(folder)
    for name in ("model.bin", "optimizer.pt"):
        with open(f"{folder}/{name}", "wb") as file:
            file.write(os.urandom(nbytes // 2))
        time.sleep(0.05)
    json.dump({"step": step}, open(f"{folder}/trainer_state.json", "w"))
    there = sorted(int(n.split("-")[1]) for n in os.listdir("/content/out") if "-" in n)
    for old in there[:-total]:
        import shutil; shutil.rmtree(f"/content/out/checkpoint-{old}")
kept = colabkit.keep("/content/out", "MyDrive/exp", every=0.2)
"""
# Slower than they are written: 200 kB in half a second. Each stays for two seconds, so that
# a busy machine has a chance to take it before it is removed.
SLOW = DriveRules(upload_bytes_per_s=300_000)
LIVING = 4
TRAIN = f"""
step = int((kept.latest("checkpoint-*") or "checkpoint-0").rpartition("-")[2])
print("FROM", step, flush=True)
while True:
    step += 10
    checkpoint(step, 200_000, {LIVING})
    print("SAVED", step, kept.status.checkpoint, kept.status.is_safe, flush=True)
    time.sleep(0.4)
"""


def begun(cloud, **options):
    machine = cloud.machine(**options)
    machine.run_cell(OPEN).check()
    return machine


def whole_step(cloud):
    """The newest checkpoint of which the cloud itself has every byte, by its manifests."""
    found = [re.fullmatch(r"checkpoint-(\d+)", name) for name in whole_versions(cloud)]
    return max((int(each[1]) for each in found if each), default=0)


def whole_versions(cloud):
    """The newest checkpoint of each version of which the cloud itself has every byte."""
    files = cloud.files()
    whole = []
    for name in files:
        # Under its temporary name it may be whole there, and is no version yet.
        if re.fullmatch(r"exp/versions/[^.].*\.json", name) and files[name]:
            try:
                version = json.loads(cloud.path(name).read_text())["version"]
            except (OSError, ValueError):
                continue  # under way, or removed just now
            blobs = version["blobs"].items()
            if all(files.get(f"exp/files/{blob}") == size for blob, (size, _) in blobs):
                whole.append(version["checkpoint"])
    return whole


def test_killed_again_and_again_while_uploads_are_slower_than_writes_it_goes_on(cloud):
    reached = 0
    for life in range(3):
        machine = begun(cloud, rules=SLOW)
        cell = machine.kernel.begin(TRAIN)
        machine.kernel.wait_for_text(cell, "SAVED")
        end_s = time.monotonic() + 300
        while whole_step(cloud) <= reached:
            assert time.monotonic() < end_s
            time.sleep(0.1)
        time.sleep(0.15 * life)
        machine.kill()
        reached = whole_step(cloud)
        nbytes = sum(size for name, size in cloud.files().items() if "/files/" in name)
        nbytes += sum(cloud.trash().values())
        # Two versions and the one on its way, of so many checkpoints each.
        assert nbytes <= 3 * LIVING * 201_000 + 100_000
        following = begun(cloud)
        shown = following.run_cell("newest = kept.latest('checkpoint-*')\nprint(newest)").check()
        assert int(re.search(r"checkpoint-(\d+)", shown.stdout)[1]) >= reached
        names = following.run_cell("sorted(os.listdir(newest))").check().result
        assert names == "['model.bin', 'optimizer.pt', 'trainer_state.json']"
        following.kill()


def test_what_is_uploaded_stays_while_newer_ones_are_only_on_their_way(cloud):
    machine = begun(cloud)
    machine.run_cell("checkpoint(10); kept.flush()").check()
    machine.drive.change(upload_bytes_per_s=200)
    cell = """
for step in (20, 30, 40, 50):
    checkpoint(step)
    time.sleep(1)
while kept.status.checkpoint == "checkpoint-10":
    time.sleep(0.1)
"""
    machine.run_cell(cell).check()
    newer = machine.run_cell(
        "kept.status.checkpoint, kept.status.uploaded.step, kept.status.is_safe"
    )
    assert re.fullmatch(r"\('checkpoint-[2345]0', 10, False\)", newer.check().result)
    machine.kill()
    assert whole_step(cloud) == 10
    second = begun(cloud)
    assert "checkpoint-10" in second.run_cell("kept.latest('checkpoint-*')").check().result


@pytest.mark.parametrize("attributes", [Attributes.ALL, Attributes.NONE])
def test_a_file_rewritten_every_half_second_arrives(cloud, attributes):
    machine = begun(cloud, rules=DriveRules(attributes=attributes))
    rewrite = """
for number in itertools.cycle(range(256)):
    with open("/content/out/last.pt", "wb") as file:
        file.write(bytes([number]) * 1_000_000)
    time.sleep(0.5)
"""
    machine.kernel.begin("import itertools\n" + rewrite)
    end_s = time.monotonic() + 300
    while not whole_versions(cloud):
        assert time.monotonic() < end_s
        time.sleep(0.1)
    machine.kill()
    second = begun(cloud)
    shown = second.run_cell(
        "data = open('/content/out/last.pt', 'rb').read(); set(data), len(data)"
    )
    assert re.fullmatch(r"\({\d+}, 1000000\)", shown.check().result)


def test_a_lost_drive_never_stops_the_trainer_and_is_mended_after_the_cell(cloud):
    machine = begun(cloud)
    machine.run_cell("checkpoint(10); kept.flush()").check()
    machine.drive.kill_mount()
    shown = machine.run_cell(
        "for step in (20, 30):\n    checkpoint(step)\n    time.sleep(1)\nprint('TRAINED')"
    ).check()
    assert "TRAINED" in shown.stdout
    machine.run_cell("kept.flush()").check()
    machine.kill()
    second = begun(cloud)
    assert "checkpoint-30" in second.run_cell("kept.latest('checkpoint-*')").check().result


def test_a_cache_that_dies_with_its_uploads_is_filled_again(cloud):
    machine = begun(cloud, rules=DriveRules(upload_bytes_per_s=0, cache_survives=False))
    machine.run_cell("checkpoint(10); time.sleep(3)").check()
    machine.drive.kill_mount()
    machine.drive.change(upload_bytes_per_s=None)
    machine.run_cell("kept.flush(timeout_s=300)").check()
    machine.kill()
    second = begun(cloud)
    assert "checkpoint-10" in second.run_cell("kept.latest('checkpoint-*')").check().result


def test_over_quota_is_said_and_what_is_there_stays(cloud):
    machine = begun(cloud)
    machine.run_cell("checkpoint(10); kept.flush()").check()
    cloud.quota_bytes = cloud.used_bytes() + 1000
    error = machine.run_cell("checkpoint(20); kept.flush(timeout_s=5)").error
    assert "is not uploaded in time" in error
    assert whole_step(cloud) == 10
    second = begun(cloud)
    assert "checkpoint-10" in second.run_cell("kept.latest('checkpoint-*')").check().result


def test_once_there_is_room_again_it_goes_on_by_itself(cloud):
    machine = begun(cloud)
    machine.run_cell("checkpoint(10); kept.flush()").check()
    cloud.quota_bytes = cloud.used_bytes() + 1000
    shown = machine.run_cell("checkpoint(20); time.sleep(2); print('TRAINED')").check()
    assert "TRAINED" in shown.stdout
    assert whole_step(cloud) == 10
    cloud.quota_bytes = None
    end_s = time.monotonic() + 300
    while whole_step(cloud) != 20:
        assert time.monotonic() < end_s
        time.sleep(0.1)
    machine.run_cell("kept.flush()").check()


def test_a_place_that_keeps_one_folder_is_refused_to_another(cloud):
    machine = begun(cloud)
    machine.run_cell("checkpoint(10)").check()
    error = machine.run_cell("colabkit.keep('/content/other', 'MyDrive/exp')").error
    assert "MyDrive/exp keeps /content/out already" in error
    machine.run_cell("kept.flush()").check()
    assert whole_step(cloud) == 10


def test_a_drive_that_takes_nothing_is_said_once_and_tried_again(cloud):
    machine = begun(cloud)
    machine.drive.inject(Fault("create", "MyDrive/exp/*", (28,)))
    cell = "checkpoint(10)\nwhile kept.status.error is None:\n    time.sleep(0.1)\ntime.sleep(2)"
    shown = machine.run_cell(cell).check()
    assert shown.stdout.count("cannot be kept at the moment") == 1
    machine.drive.heal()
    machine.run_cell("kept.flush()").check()
    assert whole_step(cloud) == 10


def test_two_machines_the_newer_one_goes_on_and_neither_harms_the_other(cloud):
    first = begun(cloud)
    first.run_cell("checkpoint(10); kept.flush()").check()
    second = begun(cloud)
    second.run_cell("checkpoint(20); kept.flush()").check()
    time.sleep(0.5)
    error = first.run_cell("checkpoint(30); kept.flush()").error
    assert error.startswith("LeaseLostError")
    third = begun(cloud)
    assert "checkpoint-20" in third.run_cell("kept.latest('checkpoint-*')").check().result


def test_release_waits_for_what_is_kept(cloud):
    machine = begun(cloud, rules=SLOW)
    with pytest.raises(MachineEndedError):
        machine.run_cell("checkpoint(10)\ncolabkit.release()")
    machine.wait_until_ended()
    second = begun(cloud)
    assert "checkpoint-10" in second.run_cell("kept.latest('checkpoint-*')").check().result


def test_what_a_dead_kernel_left_is_kept_before_the_machine_goes(cloud):
    machine = begun(cloud, rules=DriveRules(upload_bytes_per_s=0))
    machine.run_cell("checkpoint(10)").check()
    machine.restart_kernel()
    machine.drive.change(upload_bytes_per_s=None)
    with pytest.raises(MachineEndedError):
        machine.run_cell("import colabkit\ncolabkit.mount()\ncolabkit.release()")
    machine.wait_until_ended()
    second = begun(cloud)
    assert "checkpoint-10" in second.run_cell("kept.latest('checkpoint-*')").check().result


# What trainers do to a folder beside writing checkpoints: names, links, twins, a database.
HABITS = """
import hashlib, sqlite3
root = "/content/out/"
def put(name, data):
    os.makedirs(os.path.dirname(root + name), exist_ok=True)
    open(root + name, "wb").write(data)
names = ["DONE", "A.txt", "a.txt", "what? <b> | c*:.txt", "new\\nline.txt", "tail.", " x "]
names += ["n" * 250, "CON", "ünïcode 😀.txt", "deep/" * 15 + "file", "Icon\\r", "~$lock.doc"]
for name in names:
    put(name, b"" if name == "DONE" else name.encode())
put("weights/epoch=3.ckpt", b"\\x80\\x02" * 300_000)
os.link(root + "weights/epoch=3.ckpt", root + "weights/best.pt")
os.symlink("epoch=3.ckpt", root + "weights/last.ckpt")
os.symlink(root + "weights", root + "latest-run")
database = sqlite3.connect(root + "study.db")
database.execute("PRAGMA journal_mode=WAL")
database.execute("CREATE TABLE trials (number INTEGER)")
for number in range(50):
    with database:
        database.execute("INSERT INTO trials VALUES (?)", (number,))
"""
DIGEST = """
print({os.path.relpath(os.path.join(d, f), root): hashlib.md5(open(os.path.join(d, f), "rb").read())
    .hexdigest() for d, _, fs in os.walk(root) for f in fs if not f.startswith("study.db")})
"""


def test_names_links_twins_and_a_database_are_back(cloud):
    machine = begun(cloud)
    machine.run_cell(HABITS).check()
    before = machine.run_cell(f"kept.flush()\n{DIGEST}").check().stdout
    machine.kill()
    second = begun(cloud)
    second.run_cell(HABITS.partition("def put")[0]).check()
    after = second.run_cell(DIGEST).check().stdout
    assert eval(after.splitlines()[-1]) == eval(before.splitlines()[-1])
    newest = second.run_cell("kept.latest('last.ckpt')").check().result
    assert newest == "'/content/out/weights/last.ckpt'"
    assert second.run_cell("os.readlink(root + 'latest-run')").check().result == "'weights'"
    count = "sqlite3.connect(root + 'study.db').execute('SELECT count(*) FROM trials').fetchone()"
    assert second.run_cell(count).check().result == "(50,)"
