"""What cannot be made is refused with what happened, where, and what to do; nothing is harmed."""

from __future__ import annotations

import errno
import gzip
import os
import socket
import sys
import time
import zipfile
from pathlib import Path

import pytest

import colabkit
from colabkit import errors
from colabkit.datasets.folders.listing import FolderReader
from colabkit.datasets.reading import web
from colabkit.datasets.reading.retrying import URL_PATIENCE_S, Retrier
from colabkit.datasets.writing.tree import Tree
from tests.unit.datasets.serving import serving
from tests.unit.datasets.sources import (
    content_of,
    make_folder,
    make_zip,
    put,
    some_files,
)

FILES = some_files(6)


def dataset(source, *args, **options) -> Path:
    return colabkit.dataset(source, *args, progress=False, **options)


def refused(kind: type[Exception], source, *args, **options) -> str:
    """Returns the message with which a call is refused."""
    with pytest.raises(kind) as caught:
        dataset(source, *args, **options)
    assert isinstance(caught.value, errors.ColabKitError)
    return str(caught.value)


@pytest.fixture(autouse=True)
def in_folder(tmp_path, cache, monkeypatch) -> None:
    monkeypatch.chdir(tmp_path)


class TestMissing:
    def test_names_like_it_are_told(self, tmp_path):
        make_zip(tmp_path / "Cats.zip", FILES)
        said = refused(FileNotFoundError, tmp_path / "cats.zip")
        assert f"There is no {tmp_path}/cats.zip." in said
        assert "there is 'Cats.zip'" in said

    def test_the_folder_that_is_missing_on_the_way_is_told(self, tmp_path):
        (tmp_path / "data").mkdir()
        said = refused(errors.DatasetNotFoundError, tmp_path / "dta/cats.zip")
        assert (
            f"The folder {tmp_path} is there, 'dta' in it is not. In {tmp_path} there is 'data'."
            in said
        )

    def test_a_relative_path_says_where_it_was_looked_for(self, tmp_path):
        assert f"There is no cats.zip ({tmp_path}/cats.zip)." in refused(
            FileNotFoundError, "cats.zip"
        )

    def test_a_broken_link_is_told_from_a_wrong_name(self, tmp_path):
        (tmp_path / "cats.zip").symlink_to(tmp_path / "gone")
        said = refused(FileNotFoundError, tmp_path / "cats.zip")
        assert "cannot be reached" in said
        assert "is no broken link" in said

    @pytest.mark.parametrize(
        "text", ["C:\\Users\\me\\cats.zip", "D:/cats.zip", "/Users/me/cats.zip"]
    )
    def test_a_path_of_the_users_own_computer_is_called_so(self, text):
        assert "a path of another computer" in refused(FileNotFoundError, text)

    def test_a_pattern_that_matches_nothing(self, tmp_path):
        assert "There is no" in refused(FileNotFoundError, tmp_path / "*.tif")

    def test_a_url_that_is_not_there(self):
        assert "memory://nowhere/cats.zip cannot be opened" in refused(
            OSError, "memory://nowhere/cats.zip"
        )

    def test_a_web_address_says_which_packages_it_needs(self, monkeypatch):
        monkeypatch.setitem(sys.modules, "aiohttp", None)
        monkeypatch.delitem(sys.modules, "fsspec.implementations.http", raising=False)
        said = refused(errors.MissingPackageError, "https://example.org/cats.zip")
        assert "pip install requests aiohttp" in said

    def test_a_web_address_that_nobody_answers_says_so(self, monkeypatch):
        monkeypatch.setattr("colabkit.datasets.call.URL_PATIENCE_S", 0.1)
        with socket.create_server(("127.0.0.1", 0)) as free:
            port = free.getsockname()[1]
        said = refused(errors.StorageError, f"http://127.0.0.1:{port}/cats.zip")
        assert "Cannot connect" in said
        assert "Check the address and the network" in said

    def test_a_shard_that_is_missing_in_a_list(self, tmp_path):
        first = make_zip(tmp_path / "1.zip", FILES)
        assert "There is no" in refused(FileNotFoundError, [first, tmp_path / "9.zip"])


class TestNoArchive:
    def test_a_web_page_is_called_one(self, tmp_path):
        page = put(tmp_path / "cats.zip", b"<!DOCTYPE html><title>Sign in</title>")
        said = refused(errors.ArchiveCorruptError, page)
        assert "It is a web page" in said
        assert not list(tmp_path.glob("cache/datasets/[!.]*"))

    @pytest.mark.parametrize("share", [0.1, 0.5, 0.99])
    def test_a_truncated_archive_publishes_nothing(self, tmp_path, share):
        archive = make_zip(tmp_path / "cats.zip", FILES)
        data = archive.read_bytes()
        put(archive, data[: int(share * len(data))])
        refused(errors.ArchiveError, archive)
        assert not list(tmp_path.glob("cache/datasets/[!.]*"))

    def test_a_damaged_member_is_named_and_nothing_published(self, tmp_path):
        archive = tmp_path / "cats.zip"
        with zipfile.ZipFile(archive, "w") as z:
            z.writestr("good.txt", b"good")
            z.writestr("bad.txt", b"x" * 1000)
        put(archive, archive.read_bytes().replace(b"xxx", b"xyx", 1))
        assert "bad.txt" in refused(errors.ArchiveCorruptError, archive)
        assert not list(tmp_path.glob("cache/datasets/[!.]*"))

    def test_an_archive_that_unpacks_too_far_asks_for_larger_limits(self, tmp_path):
        archive = make_zip(tmp_path / "cats.zip", {"a": b"1" * 5000})
        limits = colabkit.datasets.Limits(total_bytes=4000)
        assert "total_bytes" in refused(errors.ArchiveUnsafeError, archive, limits=limits)
        assert dataset(archive).is_dir()


class TestServers:
    @pytest.mark.parametrize("status", [401, 403, 404, 410])
    def test_what_a_server_refuses_for_good_is_said_at_once(self, status):
        with serving(b"", statuses=[status] * 100) as url:
            began_s = time.monotonic()
            refused(errors.StorageError, url)
        assert time.monotonic() - began_s < URL_PATIENCE_S / 2

    @pytest.mark.parametrize("status", [429, 503])
    def test_what_a_server_refuses_for_now_is_waited_out(self, tmp_path, monkeypatch, status):
        monkeypatch.setitem(Retrier.__init__.__kwdefaults__, "pauses_s", (0.01,))
        archive = make_zip(tmp_path / "cats.zip", FILES)
        with serving(archive.read_bytes(), statuses=[status] * 4) as url:
            assert content_of(dataset(url)) == FILES

    @pytest.mark.parametrize(
        "troubles", [[429, 503, 500], ["cut"] * 3, ["silent"], [503, "cut", "silent"]], ids=str
    )
    def test_what_befalls_a_part_on_its_way_is_asked_for_again(
        self, tmp_path, monkeypatch, troubles
    ):
        monkeypatch.setitem(Retrier.__init__.__kwdefaults__, "pauses_s", (0.01,))
        monkeypatch.setattr(web, "_SILENCE_S", 1.0)
        archive = make_zip(tmp_path / "cats.zip", FILES)
        with serving(archive.read_bytes(), troubles=troubles) as url:
            assert content_of(dataset(url)) == FILES

    @pytest.mark.parametrize(
        "manners",
        [{"head_status": 403}, {"head_status": 405}, {"redirects": True}, {"head_is_empty": True}],
        ids=str,
    )
    def test_an_address_that_was_signed_for_reading_alone_is_read(self, tmp_path, manners):
        archive = make_zip(tmp_path / "cats.zip", FILES)
        with serving(archive.read_bytes(), **manners) as url:
            assert content_of(dataset(url)) == FILES

    @pytest.mark.parametrize(
        "query", ["sig=a%2Fb%3D%3D&filename*=UTF-8''c.zip", "X-Amz-Expires=9&name=[1]", "e=*&f=?"]
    )
    def test_what_stands_behind_an_address_as_services_sign_it_is_no_pattern(self, tmp_path, query):
        archive = make_zip(tmp_path / "cats.zip", FILES)
        with serving(archive.read_bytes()) as url:
            assert content_of(dataset(f"{url}?{query}")) == FILES

    def test_an_address_that_leads_in_circles_is_said(self):
        with serving(b"", circles=True) as url:
            assert "one address to the next" in refused(errors.StorageError, url)


class TestDestination:
    def test_a_folder_of_somebody_elses_is_left_alone(self, tmp_path):
        archive = make_zip(tmp_path / "cats.zip", FILES)
        mine = make_folder(tmp_path / "mine", {"thesis.txt": b"years"})
        said = refused(FileExistsError, archive, mine, refresh=True)
        assert "holds something that colabkit did not unpack there" in said
        assert content_of(mine) == {"thesis.txt": b"years"}

    def test_a_file_in_the_way_is_left_alone(self, tmp_path):
        archive = make_zip(tmp_path / "cats.zip", FILES)
        refused(FileExistsError, archive, put(tmp_path / "mine", b"years"))
        assert (tmp_path / "mine").read_bytes() == b"years"

    def test_another_dataset_is_named(self, tmp_path):
        first = make_zip(tmp_path / "first.zip", FILES)
        second = make_zip(tmp_path / "second.zip", {"other": b"1"})
        made = dataset(first, tmp_path / "data")
        assert f"holds another dataset, from {first}" in refused(FileExistsError, second, made)
        assert content_of(made) == FILES
        assert content_of(dataset(second, made, refresh=True)) == {"other": b"1"}

    def test_a_folder_is_not_copied_into_itself(self, tmp_path):
        folder = make_folder(tmp_path / "photos", FILES)
        for dest in (folder, folder / "copy", tmp_path):
            assert "lie in one another" in refused(ValueError, folder, dest)

    def test_a_mount_point_is_told_from_a_folder_on_it(self, tmp_path):
        archive = make_zip(tmp_path / "cats.zip", FILES)
        assert "Pass a folder on it, as '/proc/data'" in refused(ValueError, archive, "/proc")

    def test_an_empty_folder_is_taken(self, tmp_path):
        (tmp_path / "data").mkdir()
        archive = make_zip(tmp_path / "cats.zip", FILES)
        assert content_of(dataset(archive, tmp_path / "data")) == FILES

    def test_a_place_that_cannot_be_written_to_is_told(self, tmp_path):
        archive = make_zip(tmp_path / "cats.zip", FILES)
        put(tmp_path / "file", b"")
        said = refused(OSError, archive, tmp_path / "file/data")
        assert "cannot be written to" in said
        assert "COLABKIT_CACHE" in said


class TestArguments:
    @pytest.mark.parametrize(
        ("source", "options", "words"),
        [
            ("", {}, "source is empty"),
            ([], {}, "a list of them"),
            (7, {}, "not 7"),
            ([7], {}, "not [7]"),
            (b"a.zip", {}, "not b'a.zip'"),
            ("a.zip", {"sha256": 7}, "64 hex digits"),
            ("a.zip", {"password": 123}, "password is text or bytes, not int"),
            ("a.zip", {"dest": 7}, "dest is a folder, not 7"),
            ("a.zip", {"members": 7}, "not 7"),
            ("a.zip", {"members": Path("cats")}, "not PosixPath('cats')"),
            ("a.zip", {"sha256": "abc"}, "64 hex digits"),
            ("a.zip", {"verify": "maybe"}, '"quick" or "full"'),
            ("a.zip", {"dest": ""}, "dest is empty"),
            ("a.zip", {"members": []}, "members is"),
            ("a.zip", {"pack": True}, "the source is an archive"),
            ("https://host/*.tar", {}, "shard-{000..099}.tar"),
            (["a.zip", "a.zip"], {}, "twice"),
            (["a.zip", "."], {}, "names the folder"),
            (["a.zip", "b.zip"], {"sha256": "0" * 64}, "sha256 is of one archive"),
            ("a.zip", {"members": "nothing/*"}, "'nothing/*' names nothing"),
            (".", {"sha256": "0" * 64}, "the source is a folder"),
        ],
    )
    def test_what_makes_no_sense_is_refused(self, tmp_path, source, options, words):
        make_zip(tmp_path / "a.zip", FILES)
        make_zip(tmp_path / "b.zip", {"other": b""})
        assert words in refused(ValueError, source, **options)
        assert not list(tmp_path.glob("cache/datasets/[!.]*"))

    def test_shards_with_files_of_one_name_are_told_apart(self, tmp_path):
        for name in ("1.zip", "2.zip"):
            make_zip(tmp_path / name, {"same.txt": name.encode()})
        said = refused(errors.DatasetClashError, tmp_path / "*.zip")
        assert f"'same.txt' is in {tmp_path}/1.zip and in {tmp_path}/2.zip" in said
        assert "subfolders=True" in said

    def test_twins_in_case_of_two_shards_are_two_where_the_disk_keeps_both(
        self, tmp_path, cache, monkeypatch
    ):
        for name in ("a", "A"):
            make_zip(tmp_path / f"{name}.zip", {f"cats/{name}.txt": name.encode()})
        made = colabkit.dataset(tmp_path / "*.zip", progress=False)
        assert {path.name for path in (made / "cats").iterdir()} == {"a.txt", "A.txt"}
        monkeypatch.setattr(Tree, "keeps_case", False)
        refused(errors.DatasetClashError, tmp_path / "*.zip", refresh=True)

    @pytest.mark.parametrize("pack", [False, True])
    def test_a_document_of_googles_is_named(self, tmp_path, monkeypatch, pack):
        folder = make_folder(tmp_path / "photos", {**FILES, "labels.gsheet": b"{}"})
        opened = FolderReader.open

        def as_on_drive(reader, path):
            if path.suffix == ".gsheet":
                raise OSError(errno.EOPNOTSUPP, os.strerror(errno.EOPNOTSUPP), str(path))
            return opened(reader, path)

        monkeypatch.setattr(FolderReader, "open", as_on_drive)
        said = refused(OSError, folder, pack=pack)
        assert f"{folder}/labels.gsheet" in said
        assert "Google's own documents" in said

    @pytest.mark.parametrize("rows", [1, 1000])
    def test_a_packed_table_is_called_what_it_is(self, tmp_path, rows):
        table = put(tmp_path / "train.csv.gz", gzip.compress(b"a,b\n1,2\n" * rows))
        said = refused(errors.ArchiveCorruptError, table)
        assert "one file packed with gz" in said
        assert "1,2" not in said

    def test_a_link_out_of_a_folder_is_refused(self, tmp_path):
        folder = make_folder(tmp_path / "photos", FILES)
        put(tmp_path / "secret", b"")
        (folder / "elsewhere").symlink_to(tmp_path / "secret")
        assert "leads outside the folder" in refused(errors.UnsafeLinkError, folder)

    def test_a_pipe_in_a_folder_is_refused(self, tmp_path):
        folder = make_folder(tmp_path / "photos", FILES)
        os.mkfifo(folder / "pipe")
        assert "is no file" in refused(errors.UnsafeLinkError, folder)


def test_an_empty_folder_is_said_to_be_empty(tmp_path, capsys):
    (tmp_path / "cats").mkdir()
    made = dataset("cats")
    assert capsys.readouterr().out == "cats is empty: it holds no file. Check its path.\n"
    assert list(made.iterdir()) == []
    # What is put there afterwards is found.
    (tmp_path / "cats/a.txt").write_text("meow")
    assert [path.name for path in dataset("cats").iterdir()] == ["a.txt"]
    assert capsys.readouterr().out == ""
    (tmp_path / "dogs").mkdir()
    colabkit.pack("dogs", "dogs.zip")
    assert f"The folder is empty: {tmp_path}/dogs.zip holds no file." in capsys.readouterr().out
