"""Keeps secrets of the environment out of what is shown."""

from __future__ import annotations

import codecs
import re
from collections.abc import Mapping

_SECRET_NAMES = re.compile(r"TOKEN|SECRET|PASSWORD|PASSWD|CREDENTIAL|API_?KEY|_KEY$|^KEY$", re.I)
_LEAST = 6
_SHOWN = "***"


def secrets_of(environ: Mapping[str, str]) -> tuple[str, ...]:
    """Returns the values of variables whose names tell of a secret, the longest first.

    Example:
        >>> secrets_of({"HF_TOKEN": "hf_abcdef", "HOME": "/root"})
        ('hf_abcdef',)
    """
    found = {v for name, v in environ.items() if _SECRET_NAMES.search(name) and len(v) >= _LEAST}
    return tuple(sorted(found, key=lambda value: (-len(value), value)))


def masked(text: str, secrets: tuple[str, ...]) -> str:
    """Returns a text without the secrets.

    Example:
        >>> masked("token=hf_abcdef", ("hf_abcdef",))
        'token=***'
    """
    for secret in secrets:
        text = text.replace(secret, _SHOWN)
    return text


class MaskedText:
    """Text from bytes that come piece by piece, without the secrets.

    Only what may be the beginning of a secret is held back.

    Args:
        secrets: The values that are not shown, the longest first.

    Example:
        >>> stream = MaskedText(("hunter22",))
        >>> stream.feed(b"my hunt"), stream.feed(b"er22!"), stream.end()
        ('my ', '***!', '')
    """

    def __init__(self, secrets: tuple[str, ...]) -> None:
        self._secrets = secrets
        self._decoder = codecs.getincrementaldecoder("utf-8")(errors="replace")
        self._held = ""

    def feed(self, data: bytes) -> str:
        """Returns what may be shown now."""
        text = masked(self._held + self._decoder.decode(data), self._secrets)
        keep = max((_overlap(text, secret) for secret in self._secrets), default=0)
        self._held = text[len(text) - keep :]
        return text[: len(text) - keep]

    def end(self) -> str:
        """Returns what was held back, when nothing follows."""
        return masked(self._held + self._decoder.decode(b"", final=True), self._secrets)


def _overlap(text: str, secret: str) -> int:
    """Returns how many of the last characters begin the secret."""
    for count in range(min(len(text), len(secret) - 1), 0, -1):
        if text.endswith(secret[:count]):
            return count
    return 0
