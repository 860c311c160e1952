"""A file that is written whole is the old one or the new one, whatever stops the writer."""

from __future__ import annotations

import os

import pytest

from colabkit.storage import write_whole


@pytest.mark.parametrize("durable", [True, False])
def test_the_new_content_takes_the_place_of_the_old(durable, tmp_path):
    path = tmp_path / "list.json"
    for content in (b"old", b"", b"new" * 1000):
        write_whole(path, content, durable=durable)
        assert path.read_bytes() == content
    assert [each.name for each in tmp_path.iterdir()] == ["list.json"]


@pytest.mark.parametrize("error", [OSError("disk full"), KeyboardInterrupt()])
@pytest.mark.parametrize("call", ["write", "fsync", "close", "replace"])
def test_what_stops_the_writer_leaves_the_old_and_nothing_beside_it(
    call, error, tmp_path, monkeypatch
):
    path = tmp_path / "list.json"
    write_whole(path, b"old")
    real = getattr(os, call)

    def stopped(*arguments: object) -> None:
        if call == "close":
            real(*arguments)
        raise error

    with monkeypatch.context() as patched:
        patched.setattr(os, call, stopped)
        with pytest.raises(type(error)):
            write_whole(path, b"new")
    assert path.read_bytes() == b"old"
    assert [each.name for each in tmp_path.iterdir()] == ["list.json"]
