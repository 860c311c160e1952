"""An archive in parts is read from any one of them; a part that is missing is named."""

from __future__ import annotations

import re
import resource
import shutil
import subprocess
from functools import partial
from pathlib import Path

import pytest

import colabkit
from colabkit.datasets.reading.source import FileSource
from colabkit.datasets.reading.wrappers import JoinedSource
from colabkit.errors import ArchiveCorruptError, ColabKitError, DatasetNotFoundError
from tests.abilities import SEVEN_ZIP, ZIP
from tests.unit.datasets.building import old_rar, raw_tar, stored_rar, tar_entry
from tests.unit.datasets.serving import serving
from tests.unit.datasets.sources import content_of, make_folder, make_tar, make_zip, put, some_files

FILES = some_files(50)
SPLITTERS = {
    "7z": "7z a -tzip -v80k ../parts/cats.zip .",
    "7z-7z": "7z a -v80k ../parts/cats.7z .",
    "zip": "zip -q -r -s 64k ../parts/cats.zip .",
    "split": "tar czf - . | split -b 70000 - ../parts/cats.tar.gz.",
    "split-d": "tar czf - . | split -d -b 70000 - ../parts/cats.tar.gz.",
    "split-part": "tar cf - . | split -b 70000 - ../parts/cats.tar.part-",
    "split-xaa": "tar czf - . | split -b 70000 - ../parts/x",
}


def dataset(source: object, **options: object) -> dict[str, bytes]:
    return content_of(colabkit.dataset(source, progress=False, **options))  # type: ignore[arg-type]


@pytest.fixture(params=SPLITTERS)
def parts(request, tmp_path, cache) -> list[Path]:
    """Returns the parts of an archive that another program has split."""
    if request.param.startswith("7z"):
        SEVEN_ZIP.require()
        pytest.importorskip("py7zr")
    if request.param == "zip":
        ZIP.require()
    make_folder(tmp_path / "in", FILES)
    (tmp_path / "parts").mkdir()
    command = f"set -e; {SPLITTERS[request.param]}"
    subprocess.run(command, shell=True, cwd=tmp_path / "in", check=True, stdout=subprocess.DEVNULL)
    found = sorted((tmp_path / "parts").iterdir())
    assert len(found) > 3
    return found


def test_any_part_and_a_pattern_give_the_whole(parts):
    folder = parts[0].parent
    for source in (parts[0], parts[1], parts[-1], f"{folder}/*", list(map(str, parts))):
        assert dataset(source) == FILES
    made = {colabkit.dataset(source, progress=False) for source in (parts[0], parts[-1])}
    assert len(made) == 1, "each part is the same dataset"
    assert not [path for path in folder.iterdir() if path not in parts], "nothing is joined"


@pytest.mark.parametrize("gone", [0, 1, 2, -1])
def test_half_a_set_never_passes_and_what_is_missing_is_named(parts, gone):
    parts[gone].unlink()
    left = [part for part in parts if part != parts[gone]]
    for source in (left[0], left[-1], f"{parts[0].parent}/*"):
        with pytest.raises(ColabKitError) as raised:
            dataset(source)
        said = str(raised.value)
        assert parts[gone].name in said or "cats.z01 to" in said
    with pytest.raises(ColabKitError):
        dataset(list(map(str, left)))


@pytest.mark.parametrize("digits", [2, 3])
def test_a_first_part_that_nothing_shows_to_be_missing_is_named(tmp_path, cache, capsys, digits):
    entries = [tar_entry(b"%d.txt" % number, b"%d" % number) for number in range(6)]
    parts = [b"".join(entries[:3]), raw_tar(*entries[3:])]
    for number, part in enumerate(parts):
        put(tmp_path / f"cats.tar.{number:0{digits}}", part)
    assert len(dataset(tmp_path / f"cats.tar.{1:0{digits}}")) == 6
    assert capsys.readouterr().out == ""
    (tmp_path / f"cats.tar.{0:0{digits}}").unlink()
    assert dataset(tmp_path / f"cats.tar.{1:0{digits}}", refresh=True).keys() == {
        "3.txt",
        "4.txt",
        "5.txt",
    }
    assert f"should there have been cats.tar.{0:0{digits}}" in capsys.readouterr().out


def test_a_set_that_was_joined_again_is_read_whole_in_spite_of_old_parts(tmp_path, cache):
    make_zip(tmp_path / "cats.zip", FILES)
    put(tmp_path / "cats.z01", b"old" * 1000)
    assert dataset(tmp_path / "cats.zip") == FILES


@pytest.mark.needs(ZIP)
def test_what_follows_the_end_of_a_spanned_zip_is_left_out_as_of_a_whole_one(tmp_path, cache):
    make_folder(tmp_path / "in", FILES)
    command = ["zip", "-q", "-r", "-s", "64k", "../cats.zip", "."]
    subprocess.run(command, cwd=tmp_path / "in", check=True, stdout=subprocess.DEVNULL)
    with (tmp_path / "cats.zip").open("ab") as file:
        file.write(b"\r\n")
    assert (tmp_path / "cats.z01").exists()
    assert dataset(tmp_path / "cats.z01") == FILES


def test_parts_that_are_there_answer_to_the_whole_ones_name(tmp_path, cache):
    cut(make_zip(tmp_path / "whole.zip", FILES), tmp_path / "cats.zip.{:03}")
    assert dataset(tmp_path / "cats.zip") == FILES


def test_more_parts_than_a_process_may_open_files(tmp_path, cache):
    cut(make_tar(tmp_path / "whole.tar", FILES), tmp_path / "cats.tar.{:03}", nbytes=5000)
    assert len(list(tmp_path.glob("cats.tar.*"))) > 150
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(
        resource.RLIMIT_NOFILE, (len(list(Path("/dev/fd").iterdir())) + 100, before[1])
    )
    try:
        assert dataset(tmp_path / "cats.tar.001") == FILES
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)


def test_a_part_that_was_uploaded_again_makes_the_dataset_anew(tmp_path, cache):
    cut(make_zip(tmp_path / "whole.zip", FILES), tmp_path / "cats.zip.{:03}")
    assert dataset(tmp_path / "cats.zip.001") == FILES
    others = some_files(30, seed=1)
    cut(make_zip(tmp_path / "whole.zip", others), tmp_path / "cats.zip.{:03}")
    assert dataset(tmp_path / "cats.zip.001") == others


@pytest.mark.parametrize("name", ["cats.zip.bak", "cats.zip.old", "cats.zip.1", "cats.zip.2024"])
def test_what_is_called_so_by_habit_is_no_part(tmp_path, cache, name):
    make_zip(tmp_path / name, FILES)
    assert dataset(tmp_path / name) == FILES


def test_a_tar_cut_between_two_members_is_not_taken_for_whole(tmp_path, cache):
    whole = make_tar(tmp_path / "whole.tar", {"a": b"1" * 512, "b": b"2" * 512}).read_bytes()
    put(tmp_path / "cats.tar.aa", whole[:1024])
    with pytest.raises(ArchiveCorruptError, match=r"no end mark|without an end mark") as raised:
        dataset(tmp_path / "cats.tar.aa")
    assert "cats.tar.ab" in str(raised.value)
    put(tmp_path / "cats.tar.ab", whole[1024:])
    assert len(dataset(tmp_path / "cats.tar.aa")) == 2


def test_takeouts_parts_may_be_tars(tmp_path, cache):
    name = "takeout-20260301T101500Z-3-{:03}.tgz"
    for number in (1, 2):
        make_tar(tmp_path / name.format(number), {f"{number}.jpg": b"x"}, mode="w:gz")
    make_zip(tmp_path / "takeout-20260301T101500Z-3-003.zip", {"another": b"1"})
    assert dataset(tmp_path / name.format(2)) == {"1.jpg": b"x", "2.jpg": b"x"}
    (tmp_path / name.format(1)).unlink()
    with pytest.raises(DatasetNotFoundError, match=r"3-001\.tgz is missing"):
        dataset(tmp_path / name.format(2), refresh=True)


class TestDrivesParts:
    NAME = "cats-20260301T101500Z-{:03}.zip"

    def folder(self, tmp_path: Path) -> Path:
        for number in (1, 2, 3):
            half = {name: FILES[name] for name in sorted(FILES)[number - 1 :: 3]}
            make_zip(tmp_path / self.NAME.format(number), half)
        make_zip(tmp_path / "dogs-20260301T101500Z-001.zip", {"dog": b"woof"})
        return tmp_path

    def test_each_is_whole_and_any_one_brings_the_others(self, tmp_path, cache):
        folder = self.folder(tmp_path)
        for number in (1, 2, 3):
            assert dataset(folder / self.NAME.format(number)) == FILES
        assert dataset(f"{folder}/cats-*.zip") == FILES
        assert dataset(folder / "dogs-20260301T101500Z-001.zip") == {"dog": b"woof"}

    def test_one_that_is_missing_is_named(self, tmp_path, cache):
        folder = self.folder(tmp_path)
        (folder / self.NAME.format(2)).unlink()
        for source in (folder / self.NAME.format(1), f"{folder}/cats-*.zip"):
            with pytest.raises(DatasetNotFoundError, match=r"-002\.zip is missing"):
                dataset(source)

    def test_other_zips_with_numbers_are_told(self, tmp_path, cache, capsys):
        make_zip(tmp_path / "train-001.zip", {"a": b"1"})
        make_zip(tmp_path / "train-002.zip", {"b": b"2"})
        made = colabkit.dataset(tmp_path / "train-001.zip")
        assert content_of(made) == {"a": b"1"}
        assert "beside it there is train-002.zip" in capsys.readouterr().out


class TestUrls:
    @pytest.mark.parametrize("named", ["cats.zip.001", "cats.zip.003?download=1"])
    def test_any_part_brings_the_others(self, tmp_path, cache, named):
        cut(make_zip(tmp_path / "whole.zip", FILES), tmp_path / "cats.zip.{:03}")
        beside = {path.name: path.read_bytes() for path in tmp_path.glob("cats.zip.0*")}
        with serving(b"", beside=beside) as url:
            assert dataset(url.replace("cats.zip", named)) == FILES
            del beside["cats.zip.002"]
            with pytest.raises(DatasetNotFoundError, match=r"cats\.zip\.002.* missing"):
                dataset(url.replace("cats.zip", named), refresh=True)

    @pytest.mark.parametrize("name", ["cats.tar.gz", "cats.tar.xz", "cats.tar.bak", "cats.zip.old"])
    def test_letters_that_tell_a_packing_or_a_habit_are_no_number(self, tmp_path, cache, name):
        data = make_tar(tmp_path / "whole.tar", FILES, mode="w:gz").read_bytes()
        asked: list[str] = []
        with serving(b"", beside={name: data}, asked=asked) as url:
            assert dataset(url.replace("cats.zip", name)) == FILES
        assert len(set(asked)) <= 3, "a server is not asked for a hundred names"
        assert len(asked) < 20

    @pytest.mark.needs(ZIP)
    def test_a_zip_and_its_numbered_parts(self, tmp_path, cache):
        make_folder(tmp_path / "in", FILES)
        command = ["zip", "-q", "-r", "-s", "64k", tmp_path / "dogs.zip", "."]
        subprocess.run(command, cwd=tmp_path / "in", check=True)
        beside = {path.name: path.read_bytes() for path in tmp_path.glob("dogs.*")}
        with serving(b"", beside=beside) as url:
            assert dataset(url.replace("cats.zip", "dogs.z02")) == FILES
            urls = [url.replace("cats.zip", name) for name in sorted(beside)]
            assert dataset(urls) == FILES
            with pytest.raises(ArchiveCorruptError, match=r"last of .. parts") as raised:
                dataset(url.replace("cats.zip", "dogs.zip"))
            assert "all in a list" in str(raised.value)


def test_reading_across_parts_gives_what_the_whole_gives(tmp_path):
    sizes = (5, 0, 3, 1, 7)
    whole = bytes(range(sum(sizes)))
    sources, begin = [], 0
    for number, nbytes in enumerate(sizes):
        path = put(tmp_path / str(number), whole[begin : begin + nbytes])
        sources.append(FileSource(str(path)))
        begin += nbytes
    joined = JoinedSource(sources, "whole")
    assert joined.nbytes == len(whole)
    for offset in range(len(whole) + 2):
        for nbytes in range(len(whole) + 2):
            assert joined.read(offset, nbytes) == whole[offset : offset + nbytes]
    joined.close()


def cut(whole: Path, pattern: Path, *, nbytes: int = 0) -> None:
    """Cuts a file into parts as `split` does, and removes it."""
    for path in pattern.parent.glob(pattern.name.replace("{:03}", "*")):
        path.unlink()
    data = whole.read_bytes()
    nbytes = nbytes or len(data) // 4
    for number, begin in enumerate(range(0, len(data), nbytes), 1):
        put(Path(str(pattern).format(number)), data[begin : begin + nbytes])
    whole.unlink()


def test_all_volumes_of_a_rar_are_found_from_any(tmp_path, cache):
    pytest.importorskip("rarfile")
    first, second = {"a.txt": b"text" * 100}, {"b.bin": bytes(range(256))}
    put(tmp_path / "cats.part1.rar", stored_rar(first, volume=0, more=True))
    put(tmp_path / "cats.part2.rar", stored_rar(second, volume=1))
    for source in (tmp_path / "cats.part2.rar", f"{tmp_path}/cats.part*.rar"):
        assert dataset(source) == {**first, **second}
    shutil.move(tmp_path / "cats.part1.rar", tmp_path / "elsewhere.rar")
    with pytest.raises(DatasetNotFoundError, match=r"cats\.part1\.rar is missing"):
        dataset(tmp_path / "cats.part2.rar", refresh=True)


def old_volumes() -> dict[str, bytes]:
    whole = bytes(range(250)) * 24
    parts = [whole[at : at + 2000] for at in range(0, len(whole), 2000)]
    return {
        name: old_rar("a.bin", part, volume=volume, more=volume < 2, whole=whole)
        for volume, (name, part) in enumerate(
            zip(("cats.rar", "cats.r00", "cats.r01"), parts, strict=True)
        )
    }


def test_volumes_of_a_rar_as_they_were_called_before_are_found_from_any(tmp_path, cache):
    pytest.importorskip("rarfile")
    volumes = old_volumes()
    for name, data in volumes.items():
        put(tmp_path / name, data)
    for source in (*(tmp_path / name for name in volumes), f"{tmp_path}/cats.r*"):
        assert dataset(source) == {"a.bin": bytes(range(250)) * 24}
    for gone, other in (
        ("cats.rar", "cats.r01"),
        ("cats.r00", "cats.r01"),
        ("cats.r01", "cats.rar"),
    ):
        (tmp_path / gone).unlink()
        with pytest.raises(ColabKitError, match=gone.replace(".", r"\.")):
            dataset(tmp_path / other, refresh=True)
        put(tmp_path / gone, volumes[gone])


def test_a_volume_of_a_rar_on_a_server_is_refused_and_not_asked_for_without_end(cache):
    pytest.importorskip("rarfile")
    volume, asked = stored_rar({"a.txt": b"text"}, volume=0, more=True), []
    with (
        serving(b"", beside={"cats.part1.rar": volume}, asked=asked) as url,
        pytest.raises(ArchiveCorruptError, match="from a disk"),
    ):
        dataset(url.replace(url.rpartition("/")[2], "cats.part1.rar"))


def test_parts_are_blamed_for_nothing_but_damage(tmp_path, cache):
    link = tar_entry(b"dev", b"", b"3")
    put(tmp_path / "cats.tar.aa", raw_tar(tar_entry(b"a", b"1"), link))
    with pytest.raises(ColabKitError, match="device") as refused:
        dataset(tmp_path / "cats.tar.aa")
    assert "missing" not in str(refused.value)


@pytest.mark.parametrize("ending", [".zip", ".tar.gz"])
@pytest.mark.parametrize(
    "options", [["-a2"], ["-a2", "-d"], ["-a3", "--numeric-suffixes=1"]], ids=str
)
def test_parts_whose_number_stands_before_the_ending_are_joined_as_is_said(
    tmp_path, cache, monkeypatch, ending, options
):
    folder = tmp_path / "my parts"
    folder.mkdir()
    make = make_zip if ending == ".zip" else partial(make_tar, mode="w:gz")
    archive = make(tmp_path / "cats", FILES)
    command = [
        "split",
        *options,
        "-b",
        str(archive.stat().st_size // 3),
        f"--additional-suffix={ending}",
    ]
    subprocess.run([*command, archive, folder / "cats-"], check=True)
    parts = sorted(folder.iterdir())
    for source in (*parts, f"{folder}/*"):
        with pytest.raises(ColabKitError, match="join them with !cat ") as caught:
            colabkit.dataset(source, progress=False)
    told = re.search(r"!(cat .* > (\S+)),", str(caught.value))
    subprocess.run(told[1], shell=True, check=True, cwd=tmp_path)
    assert content_of(colabkit.dataset(tmp_path / told[2], progress=False)) == FILES
