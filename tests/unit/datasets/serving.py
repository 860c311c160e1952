"""A web server that gives ranges of one file."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from collections.abc import Iterator, Sequence


class _Handler(http.server.BaseHTTPRequestHandler):
    data = b""
    gives_parts = True
    tells_size = True
    breaks_once = False
    statuses: list[int]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        if not self.path.endswith("/cats.zip"):
            self.send_error(404)
            return
        if self.statuses:
            self.send_error(self.statuses.pop(0))
            return
        data, status = self.data, 200
        wanted = self.gives_parts and re.fullmatch(
            r"bytes=(\d+)-(\d*)", self.headers.get("Range", "")
        )
        if wanted:
            begin, end = int(wanted[1]), int(wanted[2] or len(data) - 1)
            data, status = data[begin : end + 1], 206
        self.send_response(status)
        if self.gives_parts:
            self.send_header("Accept-Ranges", "bytes")
        self.send_header("ETag", '"1"')
        if self.tells_size:
            self.send_header("Content-Length", str(len(data)))
        if wanted:
            self.send_header("Content-Range", f"bytes {begin}-{end}/{len(self.data)}")
        self.end_headers()
        if body and self.breaks_once and not wanted and not self.headers.get("Range"):
            type(self).breaks_once = False
            data = data[: len(data) // 2]
        if body:
            # The client may have seen enough.
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data)

    def log_message(self, *_args: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def serving(data: bytes, *, statuses: Sequence[int] = (), **manners: bool) -> Iterator[str]:
    """Yields the address of a zip on a server of this machine."""
    handler = type("Handler", (_Handler,), {"data": data, "statuses": list(statuses), **manners})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/cats.zip"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()
