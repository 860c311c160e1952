"""Places for a run folder: on this disk, in memory, in a bucket, on a remote."""

from __future__ import annotations

import contextlib
import functools
import logging
import subprocess
import threading
import uuid
from collections.abc import Iterator
from http.server import ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.abilities import MOUNTS, RCLONE


@contextlib.contextmanager
def small_disk(folder: Path, options: str) -> Iterator[None]:
    """Mounts a disk in memory on a folder; ``options`` are tmpfs', as "size=200k"."""
    MOUNTS.require()
    subprocess.run(["mount", "-t", "tmpfs", "-o", options, "tmpfs", str(folder)], check=True)
    try:
        yield
    finally:
        # Lazily: what a test that failed still holds open must not keep the next ones out.
        subprocess.run(["umount", "--lazy", str(folder)], check=False, capture_output=True)


EVERYWHERE = ["local", "memory", "file", "s3", "gs", "rclone"]


@pytest.fixture(scope="session")
def s3_endpoint() -> Iterator[str]:
    """A server that speaks S3, in this process."""
    from moto.server import ThreadedMotoServer

    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    yield f"http://{host}:{port}"
    server.stop()


@pytest.fixture
def signed_in(s3_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """This process is signed in at the S3 server, and its spool is its own."""
    monkeypatch.setenv("AWS_ENDPOINT_URL", s3_endpoint)
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "someone")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "us-east-1")
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))


@pytest.fixture
def bucket(signed_in: None) -> str:
    """A new bucket's URL."""
    import fsspec

    name = f"b{uuid.uuid4().hex}"
    fsspec.filesystem("s3", skip_instance_cache=True).mkdir(name)
    return f"s3://{name}"


class _QuietServer(ThreadingHTTPServer):
    def handle_error(self, request: object, client_address: object) -> None:
        """Says nothing of a client that has hung up."""


@pytest.fixture(scope="session")
def gs_endpoint() -> Iterator[str]:
    """A server that speaks Google Cloud Storage's language, in this process."""
    from gcp_storage_emulator.server import RequestHandler
    from gcp_storage_emulator.storage import Storage

    logging.getLogger("gcp_storage_emulator").setLevel(logging.WARNING)
    handler = functools.partial(RequestHandler, Storage(use_memory_fs=True))
    with _QuietServer(("127.0.0.1", 0), handler) as server:
        serving = threading.Thread(target=server.serve_forever, daemon=True)
        serving.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        serving.join()


@pytest.fixture
def gs_bucket(gs_endpoint: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> str:
    """A new bucket's URL."""
    import fsspec

    monkeypatch.setenv("STORAGE_EMULATOR_HOST", gs_endpoint)
    monkeypatch.setitem(fsspec.config.conf, "gs", {"token": "anon"})
    monkeypatch.setenv("GCSFS_EXPERIMENTAL_ZB_HNS_SUPPORT", "false")
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    name = f"b{uuid.uuid4().hex}"
    fsspec.filesystem("gs", skip_instance_cache=True, project="p").mkdir(name)
    return f"gs://{name}"


@pytest.fixture
def remote(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a remote of rclone, which is a folder of this disk."""
    RCLONE.require()
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    monkeypatch.setenv("RCLONE_CONFIG", str(tmp_path / "rclone.conf"))
    (tmp_path / "remote").mkdir()
    (tmp_path / "rclone.conf").write_text(
        f"[gdrive]\ntype = alias\nremote = {tmp_path / 'remote'}\n"
    )
    return "rclone://gdrive"


@pytest.fixture(params=EVERYWHERE)
def place(request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> str:
    """Where a run folder may be, once for each kind of place."""
    monkeypatch.setenv("COLABKIT_CACHE", str(tmp_path / "cache"))
    kind = request.param
    if kind == "s3":
        return f"{request.getfixturevalue('bucket')}/runs/cats"
    if kind == "gs":
        return f"{request.getfixturevalue('gs_bucket')}/runs/cats"
    if kind == "rclone":
        return f"{request.getfixturevalue('remote')}/runs/cats"
    if kind == "memory":
        return f"memory://{uuid.uuid4().hex}/cats"
    return str(tmp_path / "run") if kind == "local" else f"file://{tmp_path}/run"
