"""What versions of a kept folder say of one another: what is newer, what they share, old forms."""

from __future__ import annotations

import io
import json
import os
import tarfile
import zipfile

import pytest
import xxhash

from colabkit.keeping.version import FORMAT

LARGE = 300_000


def put_back_in_time(machine, path, seconds):
    place = machine.folder / path
    at_ns = place.stat().st_mtime_ns - seconds * 1_000_000_000
    os.utime(place, ns=(at_ns, at_ns))


@pytest.mark.parametrize(
    ("pattern", "names", "suffix"),
    [
        ("checkpoint-*", ("checkpoint-900", "checkpoint-1000"), "/model.bin"),
        ("*-state", ("b-state", "a-state"), "/model.bin"),
        ("*.pt", ("b.pt", "a.pt"), ""),
    ],
)
def test_what_came_with_a_later_version_is_newer_whatever_a_clock_says(
    machine, pattern, names, suffix
):
    kept = machine.keep()
    machine.put(names[0] + suffix, b"\x80\x02" * LARGE)
    kept.flush()
    machine.put(names[1] + suffix, b"\x80\x03" * LARGE)
    put_back_in_time(machine, names[1] + suffix, 3600)
    newest = str(machine.folder / names[1])
    assert kept.latest(pattern) == newest
    kept.flush()
    assert kept.latest(pattern) == newest
    assert kept.status.checkpoint == names[1]
    machine.kill()
    again = machine.keep()
    assert again.latest(pattern) == str(machine.folder / names[1])
    machine.put(names[0] + suffix, b"\x80\x04" * LARGE)
    put_back_in_time(machine, names[0] + suffix, 7200)
    assert again.latest(pattern) == str(machine.folder / names[0])
    again.flush()
    assert again.latest(pattern) == str(machine.folder / names[0])


def test_of_an_input_the_clock_alone_tells_whether_it_is_newer(machine):
    machine.put("old.pt", b"\x80\x02")
    put_back_in_time(machine, "old.pt", 3600)
    machine.put("new.pt", b"\x80\x02")
    put_back_in_time(machine, "new.pt", -3600)
    kept = machine.keep()
    machine.put("mine.pt", b"\x80\x02")
    kept.flush()
    assert kept.latest("*.pt") == str(machine.folder / "new.pt")
    assert kept.latest("[om]*.pt") == str(machine.folder / "mine.pt")


def test_what_another_machine_removed_of_a_version_gone_on_from_is_sent_again(machine, tree):
    kept = machine.keep()
    machine.put("checkpoint-1/model.bin", b"\x80\x02" * LARGE)
    machine.put("log.txt", "1")
    kept.flush()
    machine.kill()
    kept = machine.keep()
    machine.rounds(kept)
    for path in (machine.place / "files").iterdir():
        path.unlink()
    machine.put("new.txt", "2")
    kept.flush()
    assert kept.status.is_safe
    before = tree(machine.folder)
    machine.kill()
    machine.keep()
    assert tree(machine.folder) == before


def test_anybody_can_open_a_bundle_and_it_adds_little(machine):
    kept = machine.keep()
    for number in range(300):
        machine.put(f"samples/{number}.txt", os.urandom(1000))
    kept.flush()
    assert kept.status.sent_nbytes <= 1.1 * 300_000
    found = {}
    for bundle in machine.there("files"):
        with tarfile.open(machine.place / "files" / bundle) as archive:
            found |= {name: archive.extractfile(name).read() for name in archive.getnames()}
    assert found["samples/7.txt"] == (machine.folder / "samples/7.txt").read_bytes()


def told(data):
    return xxhash.xxh3_128(data).hexdigest()


def test_a_folder_of_the_first_format_is_back_and_goes_on(machine, tree):
    """Its bundles are zips, and its rows tell of no revision."""
    log, weights, at_ns = b"epoch\n1\n", b"\x80\x02" * LARGE, 1_700_000_000_000_000_123
    index = json.dumps({"deep/log.txt": [len(log), at_ns, 0o644, told(log)]})
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as bundle:
        bundle.writestr("deep/log.txt", log)
        bundle.writestr(".colabkit-tmp-index/colabkit.json", index)
    blobs = {
        "small-files.g0001-00000001-0123abcd-0.zip": buffer.getvalue(),
        "last.g0001-00000001-0123abcd-1.pt": weights,
    }
    small, large = blobs
    body = {
        "format": 1,
        "name": "a01-g0001-00000001-0123abcd",
        "saved_s": 1_700_000_000.0,
        "checkpoint": "last.pt",
        "count": 2,
        "nbytes": len(log) + len(weights),
        "blobs": {name: [len(data), told(data)] for name, data in blobs.items()},
        "files": {"last.pt": [len(weights), at_ns, 0o644, told(weights), large]},
        "bundles": [small],
        "gone": [],
        "links": {},
    }
    text = json.dumps(body, separators=(",", ":"))
    for folder in ("versions", "files"):
        (machine.place / folder).mkdir(parents=True)
    for name, data in blobs.items():
        (machine.place / "files" / name).write_bytes(data)
    manifest = machine.place / "versions/a01-g0001-00000001-0123abcd.json"
    manifest.write_text(f'{{"xxh3_128":"{told(text.encode())}","version":{text}}}')
    kept = machine.keep()
    assert tree(machine.folder) == {"deep/log.txt": log, "last.pt": weights}
    machine.put("deep/new.txt", "new")
    machine.put("checkpoint-2/model.bin", b"\x80\x02" * LARGE)
    put_back_in_time(machine, "checkpoint-2/model.bin", 10**9)
    kept.flush()
    assert kept.status.checkpoint == "checkpoint-2"
    assert kept.status.sent_nbytes < 10_000 + 2 * LARGE
    newest = json.loads((machine.place / "versions" / machine.there("versions")[-1]).read_text())
    assert newest["version"]["format"] == FORMAT
    before = tree(machine.folder)
    machine.kill()
    machine.keep()
    assert tree(machine.folder) == before
