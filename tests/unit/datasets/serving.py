"""A web server that gives ranges of one file."""

from __future__ import annotations

import contextlib
import http.server
import re
import threading
from collections.abc import Iterator, Mapping, Sequence
from types import MappingProxyType


class _Handler(http.server.BaseHTTPRequestHandler):
    data = b""
    beside: Mapping[str, bytes]
    gives_parts = True
    tells_size = True
    breaks_once = False
    ends_with_connection = False
    calls_it_packed = False
    redirects = False
    circles = False
    head_is_empty = False
    head_status = 0
    statuses: list[int]
    troubles: list[int | str]
    released: threading.Event
    wants_headers: Mapping[str, str]
    asked: list[str]

    def do_HEAD(self) -> None:
        self._answer(body=False)

    def do_GET(self) -> None:
        self._answer(body=True)

    def _answer(self, *, body: bool) -> None:
        name = self.path.partition("?")[0].rpartition("/")[2]
        self.asked.append(name)
        trouble = self._trouble() if body else ""
        if status := self._refusal(name, trouble, body=body):
            self.send_error(status)
            return
        if self.circles or (self.redirects and "signed" not in self.path):
            self.send_response(302)
            self.send_header("Location", f"/signed/{name}?key=1")
            self.end_headers()
            return
        whole = self.beside.get(name, self.data)
        data, status = whole, 200
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
        self.send_header("Content-Encoding", "gzip" if self.calls_it_packed else "identity")
        if self.tells_size and not (body and self.ends_with_connection):
            is_told = body or not self.head_is_empty
            self.send_header("Content-Length", str(len(data) if is_told else 0))
        if wanted:
            self.send_header("Content-Range", f"bytes {begin}-{end}/{len(whole)}")
        self.end_headers()
        if body and self.breaks_once and not wanted and not self.headers.get("Range"):
            type(self).breaks_once = False
            data = data[: len(data) // 2]
        if body:
            # The client may have seen enough.
            with contextlib.suppress(ConnectionError):
                self.wfile.write(data[: len(data) // 2] if trouble else data)
        if trouble == "silent":
            self.released.wait()

    def _refusal(self, name: str, trouble: int | str, *, body: bool) -> int:
        """Returns the status that refuses a request, 0 for none."""
        if name != "cats.zip" and name not in self.beside:
            return 404
        if not self.wants_headers.items() <= dict(self.headers).items():
            return 403
        if self.statuses:
            return self.statuses.pop(0)
        if self.head_status and not body:
            return self.head_status
        return trouble if isinstance(trouble, int) else 0

    def _trouble(self) -> int | str:
        """Returns what befalls this answer: a status, "cut", "silent", or "" for nothing."""
        if self.headers.get("Range", "bytes=0-0") == "bytes=0-0" or not self.troubles:
            return ""
        return self.troubles.pop(0)

    def log_message(self, *_args: object) -> None:
        """Says nothing."""


@contextlib.contextmanager
def serving(
    data: bytes,
    *,
    statuses: Sequence[int] = (),
    troubles: Sequence[int | str] = (),
    beside: Mapping[str, bytes] = MappingProxyType({}),
    wants_headers: Mapping[str, str] = MappingProxyType({}),
    asked: list[str] | None = None,
    **manners: int,
) -> Iterator[str]:
    """Yields the address of a zip on a server of this machine; others lie beside it.

    Args:
        data: The zip.
        statuses: What the first requests are refused with.
        troubles: What befalls the first answers with parts: a status, "cut" or "silent" halfway.
        beside: Other files by name.
        wants_headers: What is refused without.
        asked: Gets the name that each request asks for.
        manners: How the server is.
    """
    told: dict[str, object] = {"data": data, "statuses": list(statuses), "beside": beside}
    told["asked"] = [] if asked is None else asked
    released = threading.Event()
    told |= {"troubles": list(troubles), "released": released}
    handler = type("Handler", (_Handler,), {**told, "wants_headers": wants_headers, **manners})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,))
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/cats.zip"
    finally:
        released.set()
        server.shutdown()
        thread.join()
        server.server_close()
