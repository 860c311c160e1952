"""A folder as a card: its tree, counts, sizes, and a few of its images."""

from __future__ import annotations

import base64
import contextlib
import dataclasses
import html
import itertools
import os
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path

from colabkit.notebook.tables import html_table
from colabkit.notebook.words import bytes_words, files_words

_ENTRIES_MAX = 100_000
_ROWS_MAX = 12
_SUFFIXES_MAX = 6
_SAMPLES = 6
_SAMPLE_BYTES_MAX = 256 << 10
_IMAGE_TYPES = {
    ".jpg": "image/jpeg",
    ".jpeg": "image/jpeg",
    ".png": "image/png",
    ".gif": "image/gif",
    ".webp": "image/webp",
    ".bmp": "image/bmp",
}


@dataclasses.dataclass(slots=True)
class _Branch:
    files: int = 0
    nbytes: int = 0


def folder_card(folder: Path) -> str:
    """Returns a folder's card as HTML; every name is escaped.

    Example:
        >>> import tempfile
        >>> "0 files" in folder_card(Path(tempfile.mkdtemp()))
        True
    """
    files = list(itertools.islice(_files_in(folder), _ENTRIES_MAX + 1))
    more = "more than " if len(files) > _ENTRIES_MAX else ""
    files = sorted(files[:_ENTRIES_MAX])
    nbytes = sum(size for _, size in files)
    title = (
        f"<p><b>{html.escape(folder.name)}</b> · {more}{files_words(len(files))} ·"
        f" {bytes_words(nbytes)}<br><code>{html.escape(str(folder))}</code></p>"
    )
    parts = [title, _branches_table(files), _suffixes_line(files), _samples(folder, files)]
    return f"<div>{''.join(parts)}</div>"


def _files_in(folder: Path) -> Iterator[tuple[str, int]]:
    waiting = [""]
    while waiting:
        inside = waiting.pop()
        try:
            with os.scandir(folder / inside) as entries:
                found = list(entries)
        except OSError:
            continue
        for entry in found:
            path = f"{inside}/{entry.name}" if inside else entry.name
            if entry.is_dir(follow_symlinks=False):
                waiting.append(path)
            else:
                with contextlib.suppress(FileNotFoundError):
                    yield path, entry.stat(follow_symlinks=False).st_size


def _branches_table(files: Sequence[tuple[str, int]]) -> str:
    branches: dict[str, _Branch] = {}
    for path, size in files:
        parts = path.split("/")[:-1]
        for depth in range(min(2, len(parts))):
            branch = branches.setdefault("/".join(parts[: depth + 1]), _Branch())
            branch.files, branch.nbytes = branch.files + 1, branch.nbytes + size
    rows = [
        {"folder": f"{name}/", "files": f"{branch.files:,}", "size": bytes_words(branch.nbytes)}
        for name, branch in sorted(branches.items())
    ]
    if len(rows) > _ROWS_MAX:
        rows = [
            *rows[:_ROWS_MAX],
            {"folder": f"… {len(rows) - _ROWS_MAX:,} more", "files": "", "size": ""},
        ]
    return html_table(rows, columns=["folder", "files", "size"]) if rows else ""


def _suffixes_line(files: Sequence[tuple[str, int]]) -> str:
    counts = Counter(os.path.splitext(path)[1].lower() or "no suffix" for path, _ in files)  # noqa: PTH122
    words = [f"{count:,} {suffix}" for suffix, count in counts.most_common(_SUFFIXES_MAX)]
    return f"<p>{html.escape(' · '.join(words))}</p>" if words else ""


def _samples(folder: Path, files: Sequence[tuple[str, int]]) -> str:
    images = [
        path
        for path, size in files
        if size <= _SAMPLE_BYTES_MAX and Path(path).suffix.lower() in _IMAGE_TYPES
    ]
    # Spread over the sorted names, so that several classes show.
    chosen = images[:: max(1, len(images) // _SAMPLES)][:_SAMPLES]
    drawn = []
    for path in chosen:
        try:
            data = base64.b64encode((folder / path).read_bytes()).decode()
        except OSError:
            continue
        kind = _IMAGE_TYPES[Path(path).suffix.lower()]
        name = html.escape(path, quote=True)
        drawn.append(
            f'<img src="data:{kind};base64,{data}" title="{name}" alt="{name}"'
            ' style="height:96px;margin:2px">'
        )
    return f"<p>{''.join(drawn)}</p>" if drawn else ""
