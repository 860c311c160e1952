"""A panel in as many bytes as it may leave in a saved notebook, whatever a run shows."""

from __future__ import annotations

import base64
import dataclasses
import json

from colabkit.notebook.charts import Chart
from colabkit.notebook.image_grid import Pixels, small_png
from colabkit.notebook.panel_html import PanelState, Picture, panel_html, panel_text

PANEL_BYTES_MAX = 23_000
"""Of a panel in a saved notebook; what else the cell has in it fits into 25 kB with it."""
_FOR_A_PICTURE = 9_000
_BASE64 = 4 / 3
_PICTURE_STEP = 1_000
# What goes first, when all does not fit: points of the curves, then curves, then words.
_LEVELS: tuple[tuple[int, int, int, int], ...] = (
    # points of a line, charts, notes, characters of a note
    (64, 6, 8, 10_000),
    (32, 6, 8, 1_000),
    (20, 6, 8, 300),
    (20, 4, 4, 200),
    (20, 2, 4, 200),
    (16, 1, 2, 120),
    (16, 0, 1, 120),
)


class BoundedPanel:
    """Draws panels into a number of bytes; what did not fit once is left out from then on.

    Args:
        nbytes_max: What HTML and text may take together in a saved notebook.
    """

    def __init__(self, *, nbytes_max: int = PANEL_BYTES_MAX) -> None:
        self._nbytes_max = nbytes_max
        self._level = 0
        self._pixels: Pixels | None = None
        self._caption = ""
        self._picture: Picture | None = None
        self._room = 0

    def show(self, images: Pixels, caption: str) -> None:
        """Shows images [N, H, W, C] from the next drawing on."""
        self._pixels, self._caption, self._picture = images, caption, None

    def drawn(self, state: PanelState) -> dict[str, str]:
        """Returns the panel by MIME type, with the images that it was told to show."""
        rest_max = self._nbytes_max - (_FOR_A_PICTURE if self._pixels is not None else 0)
        while True:
            smaller = _at_level(state, self._level)
            bundle = _bundle(smaller)
            if _nbytes(bundle) <= rest_max or self._level == len(_LEVELS) - 1:
                break
            self._level += 1
        if self._pixels is None:
            return bundle
        self._fit_picture(self._nbytes_max - _nbytes(bundle), self._pixels)
        return _bundle(dataclasses.replace(smaller, picture=self._picture))

    def _fit_picture(self, room: int, pixels: Pixels) -> None:
        """Makes the picture anew where it is a new one, or has grown too large for the rest."""
        if self._picture is not None and room >= self._room:
            return
        # The words around it, and its caption in HTML and in text.
        self._room = max(0, room // _PICTURE_STEP * _PICTURE_STEP)
        nbytes = int((self._room - 400 - 4 * len(self._caption)) / _BASE64)
        png = small_png(pixels, nbytes_max=nbytes)
        told = base64.b64encode(png).decode() if len(png) <= nbytes else ""
        self._picture = Picture(told, self._caption)


def _bundle(state: PanelState) -> dict[str, str]:
    return {"text/html": panel_html(state), "text/plain": panel_text(state)}


def _nbytes(bundle: dict[str, str]) -> int:
    """Returns what a saved notebook takes for it: quotes and line ends are escaped."""
    return sum(len(json.dumps(text, ensure_ascii=False).encode()) for text in bundle.values())


def _at_level(state: PanelState, level: int) -> PanelState:
    points, charts, notes, characters = _LEVELS[level]
    if level == 0:
        return state
    return dataclasses.replace(
        state,
        charts=[_thinned(chart, points) for chart in state.charts[:charts]],
        notes=[_cut(note, characters) for note in state.notes[-notes:]],
        values=dict(list(state.values.items())[: 4 * notes]),
    )


def _thinned(chart: Chart, points: int) -> Chart:
    """Returns a chart of fewer points; a line's last one stays."""
    lines = {
        name: line[(len(line) - 1) % (stride := -(-len(line) // points) or 1) :: stride]
        for name, line in chart.lines.items()
    }
    return dataclasses.replace(chart, lines=lines, marks=chart.marks[-4:])


def _cut(note: str, characters: int) -> str:
    return note if len(note) <= characters else f"{note[: characters - 1]}…"
