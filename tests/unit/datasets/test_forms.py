"""How a dataset comes out: a folder for each archive, archives in archives, shards as they are."""

from __future__ import annotations

import hashlib
import io
import os
import re
import subprocess
import tarfile
import zipfile
from collections.abc import Mapping
from functools import partial
from pathlib import Path

import pytest

import colabkit
from colabkit import errors
from colabkit.datasets.origins.services import UrlFiles
from colabkit.datasets.reading.progress import Watch
from colabkit.datasets.reading.retrying import Retrier
from colabkit.datasets.reading.web import Access
from tests.abilities import UNZIP, ZIP
from tests.unit.datasets.building import stored_rar
from tests.unit.datasets.serving import serving
from tests.unit.datasets.sources import content_of, make_tar, make_zip, put, some_files

CATS, DOGS = some_files(20), some_files(20, seed=1)


def dataset(source: object, *args: object, **options: object) -> dict[str, bytes]:
    return content_of(colabkit.dataset(source, *args, progress=False, **options))  # type: ignore[arg-type]


def below(folder: str, files: Mapping[str, bytes]) -> dict[str, bytes]:
    return {f"{folder}/{path}": data for path, data in files.items()}


@pytest.mark.parametrize("form", ["nested", "subfolders"])
def test_what_is_of_archives_is_said_not_to_be_of_a_folder(tmp_path, cache, capsys, form):
    folder = tmp_path / "shards"
    folder.mkdir()
    archive = make_zip(folder / "a.zip", CATS)
    for _ in range(2):
        assert dataset(folder, **{form: True}) == {"a.zip": archive.read_bytes()}
        assert f"as '{folder}/*' names them" in capsys.readouterr().out
    assert dataset(f"{folder}/*", **{form: True})
    assert "names them" not in capsys.readouterr().out


class TestSubfolders:
    def test_each_archive_gets_its_own(self, tmp_path, cache):
        make_tar(tmp_path / "n01.tar", CATS)
        make_zip(tmp_path / "n02.v1.zip", CATS)
        expected = {**below("n01", CATS), **below("n02.v1", CATS)}
        assert dataset(f"{tmp_path}/n*", subfolders=True) == expected
        with pytest.raises(errors.DatasetClashError):
            dataset(f"{tmp_path}/n*")

    def test_members_are_chosen_by_their_path_in_the_dataset(self, tmp_path, cache):
        make_zip(tmp_path / "a.zip", {"x/1": b"1", "y/2": b"2"})
        make_zip(tmp_path / "b.zip", {"x/1": b"3"})
        made = dataset(f"{tmp_path}/*.zip", subfolders=True, members=["a/x", "b/*"])
        assert made == {"a/x/1": b"1", "b/x/1": b"3"}
        with pytest.raises(errors.ArgumentError, match="names nothing"):
            dataset(f"{tmp_path}/*.zip", subfolders=True, members=["a/x", "c/*"])

    def test_two_of_one_name_are_refused(self, tmp_path, cache):
        make_zip(tmp_path / "a.zip", CATS)
        make_tar(tmp_path / "a.tar", CATS)
        with pytest.raises(errors.DatasetClashError, match="both get the folder a"):
            dataset(f"{tmp_path}/a.*", subfolders=True)

    def test_the_same_place_in_another_form_is_made_anew(self, tmp_path, cache):
        make_zip(tmp_path / "a.zip", CATS)
        dest = tmp_path / "data"
        assert dataset(tmp_path / "a.zip", dest) == CATS
        with pytest.raises(errors.DestinationTakenError):
            dataset(tmp_path / "a.zip", dest, subfolders=True)
        made = dataset(tmp_path / "a.zip", dest, subfolders=True, refresh=True)
        assert made == below("a", CATS)

    def test_a_killed_call_goes_on_with_what_is_whole(self, tmp_path, cache):
        make_zip(tmp_path / "a.zip", CATS)
        broken = bytearray(make_zip(tmp_path / "b.zip", DOGS).read_bytes())
        whole = bytes(broken)
        broken[len(broken) // 3] ^= 255
        put(tmp_path / "b.zip", bytes(broken))
        with pytest.raises(errors.ArchiveCorruptError):
            dataset(f"{tmp_path}/*.zip", subfolders=True)
        put(tmp_path / "b.zip", whole)
        made = dataset(f"{tmp_path}/*.zip", subfolders=True)
        assert made == {**below("a", CATS), **below("b", DOGS)}


class TestNested:
    def test_a_tar_of_tars_as_imagenet_is(self, tmp_path, cache):
        inner = {f"n0{i}.tar": make_tar(tmp_path / "i", CATS).read_bytes() for i in (1, 2)}
        archive = make_tar(tmp_path / "train.tar", {**inner, "labels.csv": b"a,b"})
        expected = {**below("n01", CATS), **below("n02", CATS), "labels.csv": b"a,b"}
        assert dataset(archive, nested=True) == expected
        assert dataset(archive) == {**inner, "labels.csv": b"a,b"}
        assert dataset(archive, nested=True) == expected
        assert dataset(archive, nested=True, members="n01*") == below("n01", CATS)
        assert not list(Path(cache, ".colabkit").rglob("outer"))

    def test_only_one_level_and_only_archives(self, tmp_path, cache):
        deepest = make_zip(tmp_path / "c.zip", CATS).read_bytes()
        inner = make_zip(tmp_path / "b.zip", {"c.zip": deepest}).read_bytes()
        others = {"w.npz": deepest, "t.csv.gz": b"\x1f\x8b no archive", "e.zip": b""}
        archive = make_zip(tmp_path / "a.zip", {"d/b.zip": inner, **others})
        assert dataset(archive, nested=True) == {"d/b/c.zip": deepest, **others}

    @pytest.mark.parametrize("form", ["tgz.{:02}", "tar.gz.a{}", "zip.{:03}", "zip.part{}"])
    def test_an_inner_archive_in_parts_is_one(self, tmp_path, cache, form):
        make = make_zip if "zip" in form else partial(make_tar, mode="w:gz")
        whole = make(tmp_path / "whole", CATS).read_bytes()
        cuts = [
            whole[at : at + len(whole) // 3 + 1] for at in range(0, len(whole), len(whole) // 3 + 1)
        ]
        numbers = "abc" if form.endswith("a{}") else (1, 2, 3)
        parts = {f"d/x.{form.format(n)}": cut for n, cut in zip(numbers, cuts, strict=True)}
        archive = make_zip(tmp_path / "a.zip", {**parts, "d/notes.txt": b"n"})
        assert dataset(archive, nested=True) == {**below("d/x", CATS), "d/notes.txt": b"n"}
        assert dataset(archive, nested=True) == {**below("d/x", CATS), "d/notes.txt": b"n"}
        for number, gone in enumerate(parts):
            left = {name: data for name, data in parts.items() if name != gone}
            lacking = make_zip(tmp_path / f"{number}.zip", left)
            with pytest.raises(errors.ArchiveError, match=re.escape(Path(gone).name)):
                dataset(lacking, nested=True)

    def test_an_inner_rar_in_volumes_is_one(self, tmp_path, cache):
        pytest.importorskip("rarfile")
        volumes = {
            "d/x.part1.rar": stored_rar({"a": b"1"}, volume=0, more=True),
            "d/x.part2.rar": stored_rar({"b": b"2"}, volume=1),
        }
        archive = make_zip(tmp_path / "a.zip", {**volumes, "notes.r01": b"n"})
        assert dataset(archive, nested=True) == {"d/x/a": b"1", "d/x/b": b"2", "notes.r01": b"n"}

    def test_files_that_are_called_like_parts_and_are_none_stay(self, tmp_path, cache):
        files = {"xaa": b"text", "xab": b"more", "log.gz.02": b"text", "b.zip.bak": b"q"}
        assert dataset(make_zip(tmp_path / "a.zip", files), nested=True) == files

    def test_what_both_have_is_refused(self, tmp_path, cache):
        inner = make_zip(tmp_path / "b.zip", {"1": b"x"}).read_bytes()
        archive = make_zip(tmp_path / "a.zip", {"b.zip": inner, "b/1": b"y"})
        with pytest.raises(errors.DatasetClashError, match="beside it"):
            dataset(archive, nested=True)

    def test_two_that_would_get_one_folder_are_not_mingled(self, tmp_path, cache):
        one = make_zip(tmp_path / "b.zip", {"1": b"x"}).read_bytes()
        other = make_tar(tmp_path / "b.tar", {"2": b"y"}).read_bytes()
        archive = make_zip(tmp_path / "a.zip", {"d/b.zip": one, "d/b.tar": other})
        with pytest.raises(errors.DatasetClashError, match="both get the folder d/b"):
            dataset(archive, nested=True)
        archive = make_zip(tmp_path / "c.zip", {"d/b.zip": one, "e/b.tar": other, "f/B.zip": one})
        assert dataset(archive, nested=True) == {"d/b/1": b"x", "e/b/2": b"y", "f/B/1": b"x"}

    def test_the_inner_archive_that_is_damaged_is_named(self, tmp_path, cache):
        whole = make_tar(tmp_path / "b.tgz", CATS, mode="w:gz").read_bytes()
        archive = make_zip(tmp_path / "a.zip", {"d/b.tgz": whole[: len(whole) // 2]})
        with pytest.raises(errors.ArchiveCorruptError, match=r"^d/b\.tgz, an archive in the"):
            dataset(archive, nested=True)

    def test_an_inner_bomb_and_an_inner_climber_stay_inside(self, tmp_path, cache):
        for name in ("../../out", "/etc/x/../../../y"):
            buffer = io.BytesIO()
            with tarfile.open(fileobj=buffer, mode="w") as packed:
                packed.addfile(tarfile.TarInfo("ok"))
                packed.addfile(tarfile.TarInfo(f"a/{name}"))
            archive = make_zip(tmp_path / "a.zip", {"b.tar": buffer.getvalue()})
            with pytest.raises(errors.ArchiveUnsafeError):
                dataset(archive, nested=True)


class TestAsTheyAre:
    def test_shards_are_copied(self, tmp_path, cache):
        for name in ("0.tar", "1.tar"):
            make_tar(tmp_path / name, CATS)
        expected = {name: (tmp_path / name).read_bytes() for name in ("0.tar", "1.tar")}
        assert dataset(f"{tmp_path}/*.tar", unpack=False) == expected
        assert dataset(tmp_path / "0.tar", unpack=False) == {"0.tar": expected["0.tar"]}
        assert dataset(tmp_path / "0.tar") == CATS

    def test_parts_stay_parts(self, tmp_path, cache):
        put(tmp_path / "a.zip.001", b"1")
        put(tmp_path / "a.zip.002", b"2")
        made = dataset(f"{tmp_path}/a.zip.*", unpack=False)
        assert made == {"a.zip.001": b"1", "a.zip.002": b"2"}

    @pytest.mark.parametrize("manners", [{}, {"gives_parts": False}, {"tells_size": False}])
    def test_behind_urls_too_and_not_twice(self, tmp_path, cache, manners):
        beside = {f"s-{n}.tar": bytes([n]) * 5_000_000 for n in range(3)}
        with serving(b"", beside=beside, **manners) as url:
            pattern = url.replace("cats.zip", "s-{0..2}.tar")
            assert dataset(pattern, unpack=False) == beside
            beside["s-1.tar"] = b"other"
            now = dataset(pattern, unpack=False)["s-1.tar"]
            # Here the server tells nothing else than a tag, which stays the same.
            assert (now == b"other") == manners.get("tells_size", True)
        assert len(dataset(pattern, unpack=False)) == 3, "the server is gone, the shards are not"


@pytest.mark.parametrize("is_told", [True, False])
def test_a_copy_that_broke_off_goes_on_only_where_the_server_says_it_is_the_same(tmp_path, is_told):
    retrier = Retrier(Watch(), location="here")
    (tmp_path / "s.tar.colabkit-part").write_bytes(b"first ")
    with serving(b"", beside={"s.tar": b"second half"}) as url:
        urls = [url.replace("cats.zip", "s.tar")]
        files = UrlFiles(urls, Access(), watch=Watch(), retry=retrier.retry)
        if is_told:
            assert files.stamp()
        files.download(tmp_path, lambda nbytes: None)
    assert (tmp_path / "s.tar").read_bytes() == (b"first  half" if is_told else b"second half")


class TestMd5:
    def test_it_is_held_to(self, tmp_path, cache):
        archive = make_zip(tmp_path / "a.zip", CATS)
        right = hashlib.md5(archive.read_bytes()).hexdigest()
        with pytest.raises(errors.DatasetMismatchError, match=f"MD5 {right}, not {'0' * 32}"):
            dataset(archive, md5="0" * 32)
        assert dataset(archive, md5=right.upper()) == CATS
        assert dataset(archive, md5=right) == CATS
        with pytest.raises(errors.DatasetMismatchError):
            dataset(archive, md5="0" * 32)

    @pytest.mark.parametrize("options", [{"md5": "0"}, {"md5": "0" * 32, "sha256": "0" * 64}])
    def test_what_is_none_is_refused(self, tmp_path, cache, options):
        with pytest.raises(errors.ArgumentError):
            dataset(make_zip(tmp_path / "a.zip", CATS), **options)


def test_a_zip_in_a_zip_is_what_unzip_makes_of_both(tmp_path, cache):
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as inner:
        inner.writestr("x/1.txt", "one")
    archive = make_zip(tmp_path / "a.zip", {"data.zip": buffer.getvalue()})
    assert dataset(archive, nested=True) == {"data/x/1.txt": b"one"}


class TestShortcuts:
    @pytest.fixture
    def drive(self, tmp_path) -> Path:
        """Returns what Drive's program shows: a shortcut is a link to a place of its own."""
        targets = tmp_path / "drive" / ".shortcut-targets-by-id"
        put(targets / "1aB" / "shared" / "sub" / "1.jpg", b"meow")
        put(targets / "2cD" / "labels.csv", b"a,b")
        mine = tmp_path / "drive" / "MyDrive" / "data"
        put(mine / "own.txt", b"own")
        (mine / "pets").symlink_to(targets / "1aB" / "shared")
        (mine / "labels.csv").symlink_to(targets / "2cD" / "labels.csv")
        return tmp_path / "drive"

    def test_they_are_followed(self, drive, cache):
        expected = {"own.txt": b"own", "pets/sub/1.jpg": b"meow", "labels.csv": b"a,b"}
        assert dataset(drive / "MyDrive" / "data") == expected
        assert dataset(drive / "MyDrive" / "data" / "pets") == {"sub/1.jpg": b"meow"}

    @pytest.mark.parametrize("leads", ["shared", "other"])
    def test_one_that_leads_in_a_circle_is_refused(self, drive, cache, leads):
        targets = drive / ".shortcut-targets-by-id"
        put(targets / "3eF" / "other" / "2.jpg", b"woof")
        (targets / "3eF" / "other" / "back").symlink_to(targets / "1aB" / "shared")
        to = targets / ("1aB/shared" if leads == "shared" else "3eF/other")
        (targets / "1aB" / "shared" / "on").symlink_to(to)
        with pytest.raises(errors.UnsafeLinkError, match="leads back"):
            dataset(drive / "MyDrive" / "data")

    def test_another_link_that_leads_outside_stays_refused(self, drive, cache, tmp_path):
        put(tmp_path / "elsewhere" / "x", b"x")
        (drive / "MyDrive" / "data" / "out").symlink_to(tmp_path / "elsewhere")
        with pytest.raises(errors.UnsafeLinkError, match="outside"):
            dataset(drive / "MyDrive" / "data")


class TestTimes:
    """A file was changed when its archive says so, as unzip and tar have it."""

    @pytest.fixture
    def original(self, tmp_path) -> Path:
        for number, time_s in enumerate((1_000_000_000, 1_234_567_890.5, 1_700_000_001)):
            path = put(tmp_path / "in" / f"{number}.txt", b"x" * number)
            os.utime(path, (time_s, time_s))
        return tmp_path / "in"

    @pytest.mark.parametrize(
        ("name", "command", "program"),
        [
            ("a.zip", "zip -q -r ../a.zip .", "unzip -q a.zip -d out"),
            ("b.zip", "zip -q -X -r ../b.zip .", "unzip -q b.zip -d out"),
            ("c.tar", "tar --format=gnu -cf ../c.tar .", "tar xf c.tar -C out"),
            ("d.tar", "tar --format=pax -cf ../d.tar .", "tar xf d.tar -C out"),
            ("e.tgz", "tar czf ../e.tgz .", "tar xf e.tgz -C out"),
        ],
    )
    def test_as_other_programs_set_them(self, tmp_path, cache, original, name, command, program):
        if name.endswith("zip"):
            ZIP.require()
            UNZIP.require()
        subprocess.run(command, shell=True, check=True, cwd=original)
        (tmp_path / "out").mkdir()
        subprocess.run(program, shell=True, check=True, cwd=tmp_path)
        made = colabkit.dataset(tmp_path / name, progress=False)
        for path in original.iterdir():
            theirs = (tmp_path / "out" / path.name).stat().st_mtime
            assert (made / path.name).stat().st_mtime == theirs
        again = colabkit.dataset(tmp_path / name, progress=False, verify="full")
        assert again == made

    def test_what_is_no_time_is_left(self, tmp_path, cache):
        with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
            archive.writestr(zipfile.ZipInfo("a", (2107, 15, 31, 31, 63, 62)), b"x")
            archive.writestr(zipfile.ZipInfo("b", (1980, 0, 0, 0, 0, 0)), b"y")
        assert dataset(tmp_path / "a.zip") == {"a": b"x", "b": b"y"}
