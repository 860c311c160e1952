"""What people share by a link: files and folders on Drive, Kaggle, Hugging Face, locked servers."""

from __future__ import annotations

import contextlib
import http.server
import sys
import threading
import types
from collections.abc import Iterator
from pathlib import Path

import pytest

import colabkit
from colabkit import errors
from colabkit.datasets.reading import shared_links
from colabkit.datasets.reading.web import Access
from colabkit.datasets.resolve import find_source
from tests.unit.datasets.serving import serving
from tests.unit.datasets.sources import content_of, make_folder, make_zip, some_files

FILES = some_files(30)
ID = "1aBcDeFgHiJkLmNoPqRsTuVwXyZ012345"
PAGES = {
    "quota": (200, "<title>Google Drive - Quota exceeded</title>", r"download quota"),
    "users": (
        200,
        "<title>Google Drive - Quota exceeded</title>Too many users have viewed or downloaded it.",
        r"Too many users",
    ),
    "private": (403, "<title>Google Drive - Access Denied</title>You need access", r"not shared"),
    "sign-in": (200, "<title>Google Drive: Sign-in</title>Sign in to continue", r"not shared"),
    "gone": (404, "<title>Error 404 (Not Found)!!1</title>", r"There is no file"),
    "robot": (429, "<title>Sorry...</title>your network may be sending automated queries", "robot"),
    "other": (200, "<title>Something new</title>", r'a page \("Something new"\)'),
}
CONFIRM = (
    "<title>Google Drive - Virus scan warning</title>"
    '<form id="download-form" action="/download" method="get">'
    '<input type="hidden" name="id" value="{id}"><input type="hidden" name="export"'
    ' value="download"><input type="hidden" name="confirm" value="t">'
    '<input type="hidden" name="uuid" value="a&amp;b"></form>'
)


class _Drive(http.server.BaseHTTPRequestHandler):
    """Answers as Google does: large files only after a question."""

    files: dict[str, bytes]
    page: tuple[int, str] | None = None
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer()

    def do_GET(self) -> None:
        self._answer()

    def _answer(self) -> None:
        self.asked.append(self.path)
        file_id = self.path.partition("id=")[2].partition("&")[0]
        if self.page is not None:
            self._send(self.page[0], self.page[1].encode())
        elif file_id not in self.files:
            self._send(404, b"<title>Not Found</title>")
        elif self.path.startswith("/uc"):
            self._send(200, CONFIRM.format(id=file_id).encode())
        else:
            assert "confirm=t" in self.path
            assert "uuid=a%26b" in self.path
            self._send_file(self.files[file_id])

    def _send(self, status: int, page: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Type", "text/html; charset=utf-8")
        self.send_header("Content-Length", str(len(page)))
        self.end_headers()
        self.wfile.write(page)

    def _send_file(self, data: bytes) -> None:
        begin, end = 0, len(data)
        if asked := self.headers.get("Range"):
            first, _, last = asked.removeprefix("bytes=").partition("-")
            begin, end = int(first), min(end, int(last or end) + 1)
        self.send_response(206 if asked else 200)
        self.send_header("Content-Type", "application/octet-stream")
        self.send_header("Content-Disposition", 'attachment; filename="cats.zip"')
        self.send_header("Accept-Ranges", "bytes")
        self.send_header("Content-Length", str(end - begin))
        if asked:
            self.send_header("Content-Range", f"bytes {begin}-{end - 1}/{len(data)}")
        self.end_headers()
        if self.command == "GET":
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data[begin:end])

    def log_message(self, *_args: object) -> None:
        """Says nothing."""


@pytest.fixture
def drive(monkeypatch) -> Iterator[type[_Drive]]:
    """Yields what stands for Google's servers."""
    handler = type("Handler", (_Drive,), {"files": {}, "asked": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    address = f"http://127.0.0.1:{server.server_port}/uc?export=download&id={{}}"
    monkeypatch.setattr(shared_links, "ASK", address)
    monkeypatch.setattr(shared_links, "_answers", {})
    yield handler
    server.shutdown()
    thread.join()
    server.server_close()


def dataset(source: object, **options: object) -> dict[str, bytes]:
    return content_of(colabkit.dataset(source, progress=False, **options))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    "link",
    [
        f"https://drive.google.com/file/d/{ID}/view?usp=sharing",
        f"https://drive.google.com/file/d/{ID}",
        f"https://drive.google.com/file/u/0/d/{ID}/edit",
        f"https://drive.google.com/open?id={ID}",
        f"https://drive.google.com/uc?id={ID}&export=download",
        f"https://drive.usercontent.google.com/download?id={ID}&confirm=t",
        f"https://drive.google.com/a/uni.edu/file/d/{ID}/view",
        ID,
    ],
)
def test_a_shared_file_is_read_however_its_link_is_written(tmp_path, cache, drive, link):
    drive.files[ID] = make_zip(tmp_path / "a.zip", FILES).read_bytes()
    assert dataset(link) == FILES
    asked = len([path for path in drive.asked if path.startswith("/uc")])
    assert dataset(link) == FILES
    assert asked == 1, "the question is answered once"


@pytest.mark.parametrize("page", PAGES)
def test_what_google_answers_instead_of_the_file_is_told_apart(cache, drive, page):
    status, text, said = PAGES[page]
    drive.page = status, text
    with pytest.raises((errors.StorageError, errors.DatasetNotFoundError), match=said) as raised:
        dataset(f"https://drive.google.com/file/d/{ID}/view")
    assert raised.value.hint
    assert ID in str(raised.value)


def test_what_is_there_is_used_while_google_refuses(tmp_path, cache, drive, monkeypatch):
    drive.files[ID] = make_zip(tmp_path / "a.zip", FILES).read_bytes()
    assert dataset(ID) == FILES
    monkeypatch.setattr(shared_links, "_answers", {})
    drive.page = PAGES["users"][:2]
    assert dataset(ID) == FILES


def test_a_name_on_this_disk_is_no_id(tmp_path, cache, drive, monkeypatch):
    monkeypatch.chdir(tmp_path)
    make_zip(tmp_path / ID, FILES)
    assert dataset(ID) == FILES
    assert not drive.asked


class TestSharedFolder:
    LINK = "https://drive.google.com/drive/folders/1FoLdEr0123456789?usp=sharing"

    @pytest.mark.parametrize(
        "path",
        [
            "drive/u/1/folders/1FoLdEr0123456789",
            "drive/mobile/folders/1FoLdEr0123456789",
            "a/uni.edu/drive/folders/1FoLdEr0123456789",
            "folderview?id=1FoLdEr0123456789",
            "embeddedfolderview?id=1FoLdEr0123456789#list",
        ],
    )
    def test_a_folder_is_known_however_its_link_is_written(self, path):
        found = find_source(f"https://drive.google.com/{path}")
        assert found.name == self.LINK.partition("?")[0]

    def gdown(self, monkeypatch, files: dict[str, str], error: Exception | None = None) -> None:
        def download_folder(**options: object) -> object:
            assert options == {"id": "1FoLdEr0123456789", "skip_download": True, "quiet": True}
            if error is not None:
                raise error
            return [types.SimpleNamespace(id=one, path=path) for one, path in files.items()]

        module = types.ModuleType("gdown")
        module.download_folder = download_folder  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "gdown", module)

    def test_its_files_come_as_they_lie_in_it(self, cache, drive, monkeypatch):
        drive.files |= {"a" * 20: b"meow", "b" * 20: b"woof" * 100_000}
        self.gdown(monkeypatch, {"a" * 20: "cats/1.jpg", "b" * 20: "dogs/2.jpg"})
        expected = {"cats/1.jpg": b"meow", "dogs/2.jpg": b"woof" * 100_000}
        assert dataset(self.LINK) == expected
        drive.asked.clear()
        assert dataset(self.LINK) == expected
        assert not drive.asked, "nothing is downloaded twice"
        assert dataset(self.LINK, members="cats") == {"cats/1.jpg": b"meow"}

    def test_a_large_one_and_a_private_one_are_told_apart(self, cache, drive, monkeypatch):
        limit = type("FolderContentsMaximumLimitError", (Exception,), {})
        for error, said in ((limit("x"), "50 files or more"), (RuntimeError("x"), "not shared")):
            self.gdown(monkeypatch, {}, error)
            with pytest.raises(errors.StorageError, match=said):
                dataset(self.LINK)

    def test_without_gdown_it_is_named(self, cache, monkeypatch):
        monkeypatch.setitem(sys.modules, "gdown", None)
        with pytest.raises(errors.MissingPackageError, match="gdown"):
            dataset(self.LINK)


class TestKaggle:
    @pytest.fixture
    def kagglehub(self, tmp_path, monkeypatch) -> types.ModuleType:
        make_folder(tmp_path / "kaggle" / "versions" / "3", FILES)
        module = types.ModuleType("kagglehub")
        module.calls = []  # type: ignore[attr-defined]

        def download(handle: str) -> str:
            module.calls.append(handle)  # type: ignore[attr-defined]
            return str(tmp_path / "kaggle" / "versions" / "3")

        module.dataset_download = download  # type: ignore[attr-defined]
        module.competition_download = download  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "kagglehub", module)
        return module

    @pytest.mark.parametrize(
        ("source", "handle"),
        [
            ("kaggle://zoo/cats", "zoo/cats"),
            ("https://www.kaggle.com/datasets/zoo/cats/data", "zoo/cats"),
            ("kaggle://datasets/zoo/cats", "zoo/cats"),
            ("kaggle://competitions/digit-recognizer", "digit-recognizer"),
            ("https://www.kaggle.com/competitions/digit-recognizer", "digit-recognizer"),
        ],
    )
    def test_what_its_library_downloads_becomes_the_dataset(self, cache, kagglehub, source, handle):
        assert dataset(source) == FILES
        assert set(kagglehub.calls) == {handle}
        assert not list(Path(cache, ".colabkit").rglob("fetched"))

    @pytest.mark.parametrize(
        ("status", "kind", "said"),
        [(403, errors.StorageError, "accepted its terms"), (404, FileNotFoundError, "There is no")],
    )
    def test_what_it_refuses_is_said(self, cache, kagglehub, status, kind, said):
        def refused(handle: str) -> str:
            error = RuntimeError("no")
            error.response = types.SimpleNamespace(status_code=status)  # type: ignore[attr-defined]
            raise error

        kagglehub.dataset_download = refused  # type: ignore[attr-defined]
        with pytest.raises(kind, match=said):
            dataset("kaggle://zoo/cats")

    def test_without_its_library_it_is_named(self, cache, monkeypatch):
        monkeypatch.setitem(sys.modules, "kagglehub", None)
        with pytest.raises(errors.MissingPackageError, match="pip install kagglehub"):
            dataset("kaggle://zoo/cats")


class TestHuggingFace:
    @pytest.fixture
    def hub(self, monkeypatch) -> types.ModuleType:
        module = types.ModuleType("huggingface_hub")
        module.calls = []  # type: ignore[attr-defined]

        class HfApi:
            def repo_info(self, **facts: object) -> object:
                return types.SimpleNamespace(sha="abc")

        def snapshot_download(*, local_dir: str, **facts: object) -> str:
            module.calls.append(facts)  # type: ignore[attr-defined]
            make_folder(Path(local_dir), {**FILES, ".cache/huggingface/x.lock": b""})
            return local_dir

        module.HfApi = HfApi  # type: ignore[attr-defined]
        module.snapshot_download = snapshot_download  # type: ignore[attr-defined]
        monkeypatch.setitem(sys.modules, "huggingface_hub", module)
        return module

    def test_a_repository_becomes_the_dataset(self, cache, hub):
        assert dataset("hf://datasets/zoo/cats@v2", token="secret") == FILES
        (facts,) = hub.calls
        assert (facts["repo_id"], facts["revision"]) == ("zoo/cats", "v2")
        assert facts["token"] == "secret"
        assert dataset("https://huggingface.co/datasets/zoo/cats", members="cats")
        assert hub.calls[-1]["allow_patterns"] == ["cats", "cats/*"]

    @pytest.mark.parametrize(
        ("source", "revision", "inside"),
        [
            ("https://hf.co/datasets/zoo/cats", None, None),
            ("https://huggingface.co/datasets/zoo/cats/viewer/default/train", None, None),
            ("https://huggingface.co/datasets/zoo/cats?library=datasets", None, None),
            ("https://huggingface.co/datasets/zoo/cats/tree/v1.0", "v1.0", None),
            ("https://huggingface.co/datasets/zoo/cats/tree/main/data%201/x", None, "data 1/x"),
            (
                "https://huggingface.co/datasets/zoo/cats/tree/refs%2Fconvert%2Fparquet/data",
                "refs/convert/parquet",
                "data",
            ),
            ("hf://datasets/zoo/cats@refs/convert/parquet", "refs/convert/parquet", None),
            ("hf://datasets/zoo/cats@refs/pr/3/data/x", "refs/pr/3", "data/x"),
            ("hf://datasets/zoo/cats@v2/data", "v2", "data"),
        ],
    )
    def test_a_page_of_a_revision_or_a_folder_is_that(self, cache, hub, source, revision, inside):
        assert dataset(source) == FILES
        (facts,) = hub.calls
        assert (facts["repo_id"], facts["revision"]) == ("zoo/cats", revision)
        assert facts["allow_patterns"] == ([inside, f"{inside}/*"] if inside else None)

    def test_a_token_is_kept_nowhere(self, cache, hub):
        dataset("hf://datasets/zoo/cats", token="hf_secret")
        assert not any(b"hf_secret" in p.read_bytes() for p in cache.rglob("*") if p.is_file())

    def test_without_its_library_it_is_named(self, cache, monkeypatch):
        monkeypatch.setitem(sys.modules, "huggingface_hub", None)
        with pytest.raises(errors.MissingPackageError, match="huggingface_hub"):
            dataset("hf://datasets/zoo/cats")


@pytest.mark.parametrize(
    ("link", "file"),
    [
        ("https://github.com/z/c/blob/v1/a/b.zip", "https://github.com/z/c/raw/v1/a/b.zip"),
        ("https://github.com/z/c/releases/download/v1/b.zip", None),
        ("https://gitlab.com/z/y/c/-/blob/main/b.zip", "https://gitlab.com/z/y/c/-/raw/main/b.zip"),
        (
            "https://huggingface.co/datasets/z/c/blob/main/b.zip",
            "https://huggingface.co/datasets/z/c/resolve/main/b.zip",
        ),
        (
            "https://www.dropbox.com/scl/fi/1a/b.zip?rlkey=x&st=y&dl=0",
            "https://www.dropbox.com/scl/fi/1a/b.zip?rlkey=x&st=y&dl=1",
        ),
        ("https://dropbox.com/s/1a/{00..01}.zip", "https://dropbox.com/s/1a/{00..01}.zip?dl=1"),
        ("https://host/github.com/z/blob/b.zip", None),
        ("https://github.com.evil/z/c/blob/main/b.zip", None),
    ],
)
def test_a_page_that_shows_a_file_stands_for_the_file(link, file):
    assert find_source(link).name == (file or link)
    assert find_source([link, "https://host/other.zip"]).paths[-1] == "https://host/other.zip"


class TestAccess:
    @pytest.mark.parametrize(
        "options",
        [{"headers": {"Authorization": "Bearer me"}}, {"token": "me"}],
        ids=["headers", "token"],
    )
    @pytest.mark.parametrize("manners", [{}, {"gives_parts": False}, {"tells_size": False}])
    def test_a_locked_server_opens_to_it(self, tmp_path, cache, options, manners):
        data = make_zip(tmp_path / "a.zip", FILES).read_bytes()
        wanted = {"Authorization": "Bearer me"}
        with serving(data, wants_headers=wanted, **manners) as url:
            assert dataset(url, **options) == FILES
            with pytest.raises(errors.StorageError, match="token= or headers="):
                dataset(url, members="cats")

    def test_each_service_is_told_in_its_own_words(self):
        nobody, one = Access(anonymous=True), Access(token="t")
        assert nobody.options("s3://b/a.zip") == {"anon": True}
        assert nobody.options("gs://b/a.zip") == {"token": "anon"}
        assert nobody.options("hf://datasets/a/b.zip") == {"token": False}
        assert one.options("gs://b/a.zip") == one.options("hf://b/a.zip") == {"token": "t"}
        assert one.options("s3://b/a.zip") == Access().options("memory://a.zip") == {}

    def test_a_web_server_is_asked_for_the_bytes_as_they_are(self):
        client = Access(headers={"X-Key": "k"}).options("https://h/a.zip")["client_kwargs"]
        assert client["headers"] == {"Accept-Encoding": "identity", "X-Key": "k"}
        assert client["auto_decompress"] is False
        # A slow line takes more than the five minutes that are usual.
        assert client["timeout"].total is None

    @pytest.mark.parametrize(
        "options", [{"token": ""}, {"token": "t", "anonymous": True}, {"headers": {"a": 1}}]
    )
    def test_what_makes_no_sense_is_refused(self, tmp_path, cache, options):
        with pytest.raises(errors.ArgumentError):
            dataset("https://127.0.0.1:9/cats.zip", **options)


@pytest.mark.parametrize(
    "name",
    [
        "1000_images_of_cats_and_dogs_in_colour",
        "1000_images_of_cats_and_dogs_v2_x",
        "1000_Images_of_Cats_and_Dogs_of_A",
        "1M-sentences-of-wikipedia-in-German",
        "1aBcDeFgHiJkLmNoPqRsTuVwXyZ01234",
        "0Bservations-of-the-night-sky-2026",
        "100000000000000000000000000000000",
    ],
)
def test_a_name_that_is_not_there_is_no_id_of_drive(name, cache):
    with pytest.raises(errors.DatasetNotFoundError, match=f"There is no {name}"):
        colabkit.dataset(name, progress=False)


@pytest.mark.parametrize("file_id", [ID, f"{ID}_0123-abcdE", "0BaBcDeFgHiJkLmNoPqRsTuVwXyZ"])
def test_an_id_of_any_length_that_drive_gives_is_taken_for_one(file_id):
    assert file_id in find_source(file_id).paths[0]
