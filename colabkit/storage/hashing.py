"""Hashes of bytes."""

from __future__ import annotations

from typing import TYPE_CHECKING

import xxhash

if TYPE_CHECKING:
    from colabkit.storage.volume import Bytes


def hash_of(*parts: Bytes | bytes) -> str:
    """Returns the XXH3 128-bit hash of the parts one after the other, in hex."""
    digest = xxhash.xxh3_128()
    for part in parts:
        digest.update(part if isinstance(part, bytes) else part.data)
    return digest.hexdigest()
