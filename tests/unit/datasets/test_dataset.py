"""dataset(): whatever it comes from, the folder holds its files, and a second call is quick."""

from __future__ import annotations

import bz2
import gzip
import hashlib
import os
import pickle
import random
import shutil
import subprocess
import tempfile
import tracemalloc
from pathlib import Path

import fsspec
import py7zr
import pytest

import colabkit
from colabkit import errors
from colabkit.datasets.reading.web import gives_parts
from tests.unit.datasets.serving import serving
from tests.unit.datasets.sources import (
    aged,
    content_of,
    inodes_of,
    make_folder,
    make_tar,
    make_zip,
    put,
    some_files,
    wait_until,
)

FILES = some_files()


def dataset(source, *args, **options) -> Path:
    return colabkit.dataset(source, *args, progress=False, **options)


@pytest.fixture
def archive(tmp_path, cache) -> Path:
    return make_zip(tmp_path / "cats.zip", FILES)


def garble(path: Path) -> None:
    """Changes a file's bytes, and neither its size nor its time."""
    status = path.stat()
    path.write_bytes(bytes(255 - byte for byte in path.read_bytes()))
    os.utime(path, ns=(status.st_atime_ns, status.st_mtime_ns))


def bytes_read() -> int:
    """Returns how many bytes this process has read by now, from wherever."""
    return int(Path("/proc/self/io").read_text().split()[1])


class TestSources:
    @pytest.mark.parametrize("suffix", ["tar", "tar.gz", "tar.bz2", "tar.xz"])
    def test_tar_is_unpacked_whatever_it_is_called(self, tmp_path, cache, suffix):
        packing = suffix.partition(".")[2]
        path = make_tar(tmp_path / "misnamed.zip", FILES, mode=f"w:{packing}")
        assert content_of(dataset(path)) == FILES
        assert cache in dataset(path).parents

    def test_zip_is_unpacked(self, archive):
        assert content_of(dataset(archive)) == FILES

    def test_folder_is_copied_with_its_empty_folders_and_without_leavings(self, tmp_path, cache):
        folder = make_folder(
            tmp_path / "photos", {**FILES, "__MACOSX/x": b"", "cats/.DS_Store": b""}
        )
        (folder / "empty/inside").mkdir(parents=True)
        made = dataset(folder)
        assert content_of(made) == FILES
        assert (made / "empty/inside").is_dir()
        assert made.parent == cache

    @pytest.mark.parametrize("make", [make_zip, make_tar, make_folder])
    @pytest.mark.parametrize("many", [0, 40])
    def test_what_desktops_and_notebooks_leave_is_left_out(self, tmp_path, cache, make, many):
        leavings = ("a/._1.jpg", "a/desktop.ini", "a/Thumbs.db", "b/thumbs.db", "__MACOSX/x")
        leavings += ("a/.ipynb_checkpoints/1.jpg", ".DS_Store", "a/Desktop.ini")
        files = {"a/1.jpg": b"1", "a/.hidden": b"2", "a/desktop.ini.txt": b"3", **some_files(many)}
        source = make(tmp_path / "source", {**files, **dict.fromkeys(leavings, b"x")})
        assert content_of(dataset(source)) == files

    @pytest.mark.parametrize("as_list", [True, False])
    def test_shards_are_unpacked_side_by_side(self, tmp_path, cache, as_list):
        shards = [some_files(20, seed=seed) for seed in range(5)]
        shards = [{f"{n}/{name}": data for name, data in s.items()} for n, s in enumerate(shards)]
        paths = [
            make_zip(tmp_path / f"s{n}.shard", shard)
            if n % 2
            else make_tar(tmp_path / f"s{n}.shard", shard)
            for n, shard in enumerate(shards)
        ]
        made = dataset(paths if as_list else tmp_path / "s*.shard")
        assert content_of(made) == {name: data for shard in shards for name, data in shard.items()}

    def test_files_of_a_pattern_that_are_no_archives_are_copied(self, tmp_path, cache):
        make_folder(tmp_path / "export", {"a.tif": b"1", "b.tif": b"22", "notes.txt": b"no"})
        assert content_of(dataset(tmp_path / "export/*.tif")) == {"a.tif": b"1", "b.tif": b"22"}

    @pytest.mark.parametrize("suffix", ["npz", "pt", "keras", "xlsx", "jar", "csv", "h5", "bin"])
    @pytest.mark.parametrize("named", ["alone", "in a list", "by a pattern"])
    def test_what_its_own_programs_read_whole_is_copied(self, tmp_path, cache, suffix, named):
        # Zips inside, but for two of them; a model without its suffix is told by its first member.
        first = "model/data.pkl" if suffix == "bin" else "x.npy"
        whole = make_zip(tmp_path / "z", {first: b"1", "y": b"2"}).read_bytes()
        data = b"a,b" * 200 if suffix in {"csv", "h5"} else whole
        folder = make_folder(tmp_path / "shards", {f"a.{suffix}": data})
        source = folder / f"a.{suffix}"
        made = dataset(
            {"alone": source, "in a list": [source], "by a pattern": folder / f"*.{suffix}"}[named]
        )
        assert content_of(made) == {f"a.{suffix}": data}
        assert dataset(source if named == "alone" else [source]).is_dir()

    @pytest.mark.parametrize("name", ["page", "page.csv"])
    def test_one_file_that_is_a_page_in_place_of_another_is_not_copied(self, tmp_path, cache, name):
        page = put(tmp_path / name, b"<!DOCTYPE html><title>Sign in</title>")
        with pytest.raises(errors.ArchiveCorruptError, match="web page"):
            dataset(page)

    def test_folders_and_members_may_have_brackets(self, tmp_path, cache):
        make_zip(tmp_path / "old [1]/a.zip", {"train [x]/1": b"1", "b": b"2"}, parents=True)
        assert len(content_of(dataset(tmp_path / "old [1]/*.zip"))) == 2
        for members in ("train [x]", "train [x]/*", "train [x]/1"):
            made = dataset(tmp_path / "old [1]/a.zip", members=members)
            assert content_of(made) == {"train [x]/1": b"1"}

    @pytest.mark.parametrize("pattern", ["s{0..2}.zip", "s*.zip"])
    def test_urls_are_named_by_a_pattern(self, tmp_path, cache, pattern):
        for n in range(3):
            with fsspec.open(f"memory://many/s{n}.zip", "wb") as file:
                file.write(make_zip(tmp_path / "a.zip", {f"{n}": b"1"}).read_bytes())
        assert content_of(dataset(f"memory://many/{pattern}")) == dict.fromkeys("012", b"1")

    def test_a_url_that_is_no_archive_says_how_to_read_it(self, cache):
        with fsspec.open("memory://bucket/table.csv", "wb") as file:
            file.write(b"a,b\n" * 300)
        with pytest.raises(errors.ArchiveCorruptError, match=r"pandas\.read_csv"):
            dataset("memory://bucket/table.csv")

    def test_packed_tables_are_no_archives(self, tmp_path, cache):
        import gzip

        files = {f"{n}.csv.gz": gzip.compress(b"1,2\n" * 50_000) for n in range(3)}
        make_folder(tmp_path / "tables", files)
        assert content_of(dataset(tmp_path / "tables/*.gz")) == files

    def test_archives_and_other_files_in_one_pattern_are_refused_by_name(self, archive, tmp_path):
        put(tmp_path / "half.zip", b"<html>please sign in</html>")
        with pytest.raises(errors.ArgumentError, match=r"1 of the 2 files .* \(half.zip\)"):
            dataset(tmp_path / "*.zip")
        assert archive.exists()

    def test_fsspec_url_is_read_where_it_lies(self, archive):
        with fsspec.open("memory://bucket/cats.zip", "wb") as file:
            file.write(archive.read_bytes())
        assert content_of(dataset("memory://bucket/cats.zip")) == FILES

    def test_web_address_is_read_in_ranges(self, archive):
        with serving(archive.read_bytes()) as url:
            assert content_of(dataset(url)) == FILES
            made = dataset(url)
        # The server is gone: what is there is taken.
        assert dataset(url) == made

    @pytest.mark.parametrize("tells_size", [True, False])
    def test_web_address_that_gives_no_parts_is_downloaded_once(
        self, archive, tells_size, tmp_path
    ):
        manners = {"gives_parts": False, "tells_size": tells_size}
        with serving(archive.read_bytes(), **manners) as url:
            made = dataset(url)
            assert content_of(made) == FILES
            before = inodes_of(made)
            assert inodes_of(dataset(url)) == before
        assert not list(Path(tempfile.gettempdir()).glob(f"colabkit-download-*/{tmp_path.name}"))

    @pytest.mark.parametrize("ends_with_connection", [False, True])
    def test_a_download_that_breaks_is_tried_again(self, archive, ends_with_connection):
        manners = {"gives_parts": False, "breaks_once": True}
        manners["ends_with_connection"] = ends_with_connection
        with serving(archive.read_bytes(), **manners) as url:
            assert content_of(dataset(url)) == FILES

    def test_a_file_that_ends_with_the_connection_is_whole_or_not_there(self, cache):
        manners = {"gives_parts": False, "breaks_once": True, "ends_with_connection": True}
        with serving(bytes(5000), **manners) as url:
            assert content_of(dataset(url, unpack=False)) == {"cats.zip": bytes(5000)}

    @pytest.mark.parametrize("gives_parts", [True, False])
    @pytest.mark.parametrize("unpack", [True, False])
    def test_a_tar_that_a_server_calls_packed_on_the_way_is_read_as_it_is(
        self, tmp_path, cache, gives_parts, unpack
    ):
        whole = make_tar(tmp_path / "cats.tar.gz", FILES, mode="w:gz").read_bytes()
        manners = {"gives_parts": gives_parts, "calls_it_packed": True}
        with serving(b"", beside={"cats.tar.gz": whole}, **manners) as url:
            made = dataset(url.replace("cats.zip", "cats.tar.gz"), unpack=unpack)
        assert content_of(made) == (FILES if unpack else {"cats.tar.gz": whole})

    def test_whether_a_server_gives_parts_is_not_asked_at_the_cost_of_the_whole(self):
        with serving(bytes(50_000_000), gives_parts=False) as url:
            tracemalloc.start()
            try:
                assert not gives_parts(url)
                assert tracemalloc.get_traced_memory()[1] < 10_000_000
            finally:
                tracemalloc.stop()
        with serving(bytes(50_000_000)) as url:
            assert gives_parts(url)

    def test_a_page_that_was_downloaded_is_called_by_its_address(self, cache):
        page = b"<!DOCTYPE html><html>Sign in</html>"
        with serving(page, gives_parts=False) as url:
            with pytest.raises(errors.ArchiveCorruptError, match="web page") as caught:
                dataset(url)
            assert url in caught.value.message

    @pytest.mark.parametrize("names", [["a.tif"], ["a.tif", "b.tif"]])
    def test_a_list_of_files_is_copied_however_short_it_is(self, tmp_path, cache, names):
        folder = make_folder(tmp_path / "export", dict.fromkeys(names, b"1"))
        made = dataset([folder / name for name in names])
        assert content_of(made) == dict.fromkeys(names, b"1")

    def test_a_list_of_one_archive_is_that_archive(self, archive, tmp_path):
        made = dataset(archive)
        before = inodes_of(made)
        assert dataset([archive]) == made
        assert dataset(archive) == made
        assert inodes_of(made) == before

    def test_encrypted_archive_is_opened_with_its_password_only(self, tmp_path, cache):
        path = tmp_path / "cats.7z"
        with py7zr.SevenZipFile(path, "w", password="meow") as z:
            for name, data in FILES.items():
                z.writestr(data, name)
        with pytest.raises(errors.ArchivePasswordError):
            dataset(path)
        with pytest.raises(errors.ArchiveError, match="password"):
            dataset(path, password="woof")
        assert content_of(dataset(path, password="meow")) == FILES
        # What is unpacked is not asked for its password again.
        assert content_of(dataset(path)) == FILES

    def test_some_members_are_taken(self, archive):
        expected = {name: data for name, data in FILES.items() if name.startswith("cats/")}
        assert content_of(dataset(archive, members="cats")) == expected
        assert content_of(dataset(archive, members=["cats/*"])) == expected
        assert content_of(dataset(archive)) == FILES

    @pytest.mark.parametrize("kind", ["zip", "tar", "folder"])
    def test_a_member_that_is_not_there_is_not_left_out_in_silence(self, tmp_path, cache, kind):
        source = {"zip": make_zip, "tar": make_tar, "folder": make_folder}[kind](
            tmp_path / f"source.{kind}", FILES
        )
        with pytest.raises(errors.ArgumentError, match="members='catz/\\*', 'dog' names nothing"):
            dataset(source, members=["cats", "catz/*", "dog"])
        with pytest.raises(errors.ArgumentError, match="'dog' names nothing"):
            dataset(source, members=["cats/", "dog"])

    def test_dest_is_made(self, archive, tmp_path):
        made = dataset(archive, tmp_path / "here/it/is")
        assert made == tmp_path / "here/it/is"
        assert content_of(made) == FILES


class TestSecondCall:
    def test_reads_neither_archive_nor_files(self, archive):
        made = dataset(archive)
        before = inodes_of(made)
        began = bytes_read()
        assert dataset(archive) == made
        # The manifest, the mount table and the like.
        assert bytes_read() - began < 50_000 < archive.stat().st_size
        assert inodes_of(made) == before

    def test_recognises_an_archive_with_a_new_time_by_its_directory(self, archive):
        made = dataset(archive)
        before = inodes_of(made)
        aged(archive)
        assert inodes_of(dataset(archive)) == before

    @pytest.mark.parametrize("packing", ["cat", "xz -q --block-size=65536", "zstd -q --no-check"])
    def test_trusts_no_ends_of_a_tar_that_check_only_themselves(self, tmp_path, cache, packing):
        if shutil.which(packing.split()[0]) is None:
            pytest.skip(f"{packing.split()[0]} is not installed")
        archive = tmp_path / "t.tar.xz"

        def pack(middle: bytes) -> None:
            noise = random.Random(0).randbytes(200_000)
            files = {"1": noise, "2": middle, "3": noise[::-1]}
            whole = make_tar(tmp_path / "whole", files)
            with whole.open("rb") as file, archive.open("wb") as packed:
                subprocess.run(packing.split(), stdin=file, stdout=packed, check=True)

        pack(b"cat" * 50_000)
        before = archive.read_bytes()
        dataset(archive)
        pack(b"dog" * 50_000)
        after = archive.read_bytes()
        assert len(before) == len(after)
        assert before[-65_536:] == after[-65_536:]
        assert content_of(dataset(archive))["2"] == b"dog" * 50_000

    @pytest.mark.parametrize("packer", [gzip.compress, bz2.compress])
    def test_trusts_no_end_of_a_tar_that_is_packed_in_pieces(self, tmp_path, cache, packer):
        whole = make_tar(tmp_path / "whole", {"1": b"cat", "2": random.Random(0).randbytes(90_000)})
        data, archive = whole.read_bytes(), tmp_path / "t.tar.gz"
        for animal in (b"cat", b"dog"):
            pieces = data[:1024].replace(b"cat", animal), data[1024:]
            archive.write_bytes(b"".join(map(packer, pieces)))
            assert content_of(dataset(archive))["1"] == animal

    def test_trusts_no_plain_tar_with_a_new_time(self, tmp_path, cache):
        archive = make_tar(tmp_path / "t.tar", FILES)
        made = dataset(archive)
        name = sorted(FILES)[len(FILES) // 2]
        new = {**FILES, name: bytes(len(FILES[name]))}
        make_tar(archive, new)
        assert new != FILES
        assert content_of(dataset(archive)) == new
        assert made == dataset(archive)

    def test_makes_it_anew_when_the_archive_changed_and_says_so(self, archive, capsys):
        made = dataset(archive)
        new = {**FILES, "cats/0000.bin": b"new"}
        make_zip(archive, new)
        assert colabkit.dataset(archive) == made
        assert content_of(made) == new
        assert "cats.zip: its source has changed; it is made anew." in capsys.readouterr().out

    def test_makes_it_anew_when_a_file_is_missing(self, archive):
        made = dataset(archive)
        next(path for path in made.rglob("*.bin")).unlink()
        assert content_of(dataset(archive)) == FILES

    def test_keeps_a_folder_that_got_files_of_the_users(self, archive):
        made = dataset(archive)
        put(made / "notes.txt", b"mine")
        assert content_of(dataset(archive)) == {**FILES, "notes.txt": b"mine"}

    def test_puts_a_folder_with_files_of_the_users_aside_before_it_swaps(self, archive, capsys):
        made = dataset(archive)
        put(made / "notes.txt", b"mine")
        make_zip(archive, {"other.txt": b"other"})
        colabkit.dataset(archive)
        assert content_of(made) == {"other.txt": b"other"}
        (kept,) = made.parent.glob(f"{made.name}.kept-*")
        assert content_of(kept) == {**FILES, "notes.txt": b"mine"}
        assert str(kept) in capsys.readouterr().out

    def test_full_verification_finds_a_change_in_place_and_mends_it(self, archive):
        made = dataset(archive)
        garble(max(made.rglob("*.bin"), key=lambda path: path.stat().st_size))
        assert content_of(dataset(archive)) != FILES
        assert content_of(dataset(archive, verify="full")) == FILES

    def test_refresh_makes_it_anew(self, archive):
        before = inodes_of(dataset(archive))
        after = inodes_of(dataset(archive, refresh=True))
        assert after.keys() == before.keys()
        assert set(after.values()).isdisjoint(before.values())

    def test_sweeps_what_a_killed_call_left(self, archive):
        made = dataset(archive)
        work = made.parent / ".colabkit" / made.name / "work"
        put(work / "tree-1/half.bin", b"half")
        dataset(archive)
        assert not work.exists()
        assert content_of(made) == FILES

    def test_takes_what_is_there_when_the_source_is_gone(self, archive, capsys):
        made = dataset(archive)
        archive.unlink()
        assert colabkit.dataset(archive) == made
        assert "The source cannot be reached now." in capsys.readouterr().out

    def test_a_damaged_manifest_is_not_believed(self, archive, cache):
        made = dataset(archive)
        manifest = cache / ".colabkit" / made.name / "manifest"
        data = bytearray(manifest.read_bytes())
        data[-10] ^= 1
        manifest.write_bytes(data)
        with pytest.raises(errors.DestinationTakenError):
            dataset(archive)
        assert content_of(made) == FILES

    def test_copies_only_what_is_new_in_a_folder(self, tmp_path, cache):
        folder = make_folder(tmp_path / "photos", FILES)
        before = inodes_of(dataset(folder))
        put(folder / "cats/new.bin", b"new")
        after = inodes_of(dataset(folder))
        assert after.pop("cats/new.bin")
        assert after == before


class TestMovedCache:
    @pytest.fixture
    def copied(self, archive, tmp_path, monkeypatch) -> Path:
        made = dataset(archive)
        # To another disk, as cp -a does: all is the same but the numbers.
        shutil.copytree(
            tmp_path / "cache",
            tmp_path / "elsewhere",
            symlinks=True,
            ignore=shutil.ignore_patterns(".trash"),  # which is being emptied meanwhile
        )
        monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "elsewhere"))
        return tmp_path / "elsewhere/datasets" / made.name

    def test_is_read_once_and_taken(self, archive, copied):
        before = inodes_of(copied)
        assert dataset(archive) == copied
        assert inodes_of(copied) == before
        began = bytes_read()
        assert dataset(archive) == copied
        assert bytes_read() - began < 50_000

    @pytest.mark.parametrize("change", ["in place", "added"])
    def test_is_left_alone_where_it_is_not_what_was_published(self, archive, copied, change):
        if change == "in place":
            garble(max(copied.rglob("*.bin"), key=lambda path: path.stat().st_size))
        else:
            put(copied / "thesis.txt", b"years")
        before = content_of(copied)
        for refresh in (False, True):
            with pytest.raises(errors.DestinationTakenError):
                dataset(archive, refresh=refresh)
        assert content_of(copied) == before

    def test_follows_its_source(self, archive, copied):
        make_zip(archive, {"other": b"1"})
        assert content_of(dataset(archive)) == {"other": b"1"}
        assert dataset(archive) == copied


class TestSha256:
    def test_right_hash_is_accepted_and_names_the_content(self, archive):
        digest = hashlib.sha256(archive.read_bytes()).hexdigest()
        made = dataset(archive, sha256=digest.upper())
        before = inodes_of(made)
        aged(archive)
        garble(archive)
        assert inodes_of(dataset(archive, sha256=digest)) == before

    @pytest.mark.parametrize("make", [make_zip, make_tar])
    def test_wrong_hash_publishes_nothing(self, tmp_path, cache, make):
        archive = make(tmp_path / "cats", FILES)
        with pytest.raises(errors.DatasetMismatchError) as caught:
            dataset(archive, sha256="0" * 64)
        assert caught.value.actual == hashlib.sha256(archive.read_bytes()).hexdigest()
        assert [path.name for path in cache.iterdir()] == [".colabkit"]

    def test_what_a_wrong_hash_was_found_of_is_deleted(self, archive, cache):
        for _ in range(2):
            with pytest.raises(errors.DatasetMismatchError):
                dataset(archive, sha256="0" * 64)
        wait_until(lambda: not any((cache / ".colabkit/.trash").iterdir()))

    def test_wrong_hash_leaves_what_was_there(self, archive):
        made = dataset(archive)
        with pytest.raises(errors.DatasetMismatchError):
            dataset(archive, sha256="0" * 64)
        assert content_of(made) == FILES


class TestPath:
    def test_a_file_url_is_read_as_path_writes_it_and_as_people_do(self, tmp_path, cache):
        archive = make_zip(tmp_path / "my cats 100%.zip", FILES)
        for url in (archive.as_uri(), f"file://{archive}"):
            assert content_of(dataset(url)) == FILES

    def test_is_a_path_for_everybody(self, archive):
        made = dataset(archive)
        assert isinstance(made, Path)
        assert os.fspath(made) == str(made)
        assert made / "cats" == Path(str(made)) / "cats"
        assert hash(made) == hash(Path(made))
        copied = pickle.loads(pickle.dumps(made))
        assert copied == made
        assert type(copied) is type(Path())


class TestCrashOfTheMachine:
    """What a machine wrote before it went down may not be there: all is read once after."""

    def crash(self, monkeypatch, made: Path) -> None:
        monkeypatch.setattr(
            "colabkit.datasets.cache.manifest._BOOT_ID", put(made.parent / "id", b"next")
        )

    def test_a_lost_file_is_found_and_made_again(self, archive, monkeypatch):
        made = dataset(archive)
        largest = max(made.rglob("*.bin"), key=lambda path: path.stat().st_size)
        status = largest.stat()
        largest.write_bytes(bytes(status.st_size))
        self.crash(monkeypatch, made)
        assert content_of(dataset(archive)) == FILES

    def test_all_is_read_only_once(self, archive, monkeypatch):
        made = dataset(archive)
        self.crash(monkeypatch, made)
        before = inodes_of(made)
        began = bytes_read()
        dataset(archive)
        once = bytes_read() - began
        began = bytes_read()
        dataset(archive)
        assert bytes_read() - began < sum(map(len, FILES.values())) <= once
        assert inodes_of(made) == before
