"""What a user gives to be let in: headers, a token, or the wish to ask as nobody."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

_NO_HEADERS: Mapping[str, str] = MappingProxyType({})
# Some servers call a .tar.gz a tar that they packed on the way: a part of it cannot be unpacked.
_AS_IT_IS = MappingProxyType({"Accept-Encoding": "identity"})


@dataclasses.dataclass(frozen=True, slots=True)
class Access:
    """How to ask for what is behind a URL.

    Attributes:
        headers: Sent with each request to a web server.
        token: A bearer token for a web server, or one of Hugging Face or Google Cloud.
        anonymous: Whether a bucket is asked without any credentials of this machine.
    """

    headers: Mapping[str, str] = dataclasses.field(default_factory=lambda: _NO_HEADERS)
    token: str | None = None
    anonymous: bool = False

    def options(self, url: str, client: Mapping[str, Any] | None = None) -> dict[str, Any]:
        """Returns what fsspec's file system of a URL is to be made with.

        Args:
            url: The URL.
            client: What a web server's client is to be made with besides.

        Example:
            >>> Access(anonymous=True).options("s3://bucket/cats.zip")
            {'anon': True}
        """
        scheme = url.partition("://")[0]
        if scheme in {"http", "https"}:
            headers = {**_AS_IT_IS, **self.headers}
            if self.token:
                headers.setdefault("Authorization", f"Bearer {self.token}")
            kwargs = {**(client or {}), "headers": headers, "auto_decompress": False}
            return {"client_kwargs": kwargs}
        if scheme in {"s3", "s3a"}:
            return {"anon": True} if self.anonymous else {}
        if scheme in {"gs", "gcs", "hf"} and (self.token or self.anonymous):
            return {"token": self.token or ("anon" if scheme != "hf" else False)}
        return {}


NOTHING = Access()
