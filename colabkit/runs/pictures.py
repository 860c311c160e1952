"""What a run shows of what its model makes: grids of images in the run folder and the panel."""

from __future__ import annotations

import logging
import re
import threading
from typing import Any

from colabkit.checkpoint import RunFolder
from colabkit.errors import ArgumentError, StorageError
from colabkit.notebook import grid_of, images_of, png_of
from colabkit.runs.display import Display

_logger = logging.getLogger(__name__)
_KEPT = 50
_PATIENCE_S = 60.0
_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]{0,60}")
# What a model without a last sigmoid overshoots is not worth a word.
_OVERSHOOT = 0.2


class Pictures:
    """Writes grids of images into the run folder, on a thread of its own, and shows the newest.

    Args:
        folder: The run folder.
        display: Shows the newest.
    """

    def __init__(self, folder: RunFolder, display: Display) -> None:
        self._folder, self._display = folder, display
        self._thread: threading.Thread | None = None
        self._failure = ""
        self._said: set[str] = set()

    def show(self, images: Any, *, name: str, step: int) -> None:
        """Shows images of a step, and writes them.

        Raises:
            ArgumentError: They are no images, or ``name`` is no name.
        """
        if not isinstance(name, str) or not _NAME.fullmatch(name):
            raise ArgumentError.of("name", name, "Pass letters, digits, - and _.")
        pixels, least, most = images_of(images)
        if least < -_OVERSHOOT or most > 1 + _OVERSHOOT:
            fix = "(images + 1) / 2" if -1.1 < least < 0 and most < 1.1 else "numbers from 0 to 1"
            self._say_once(
                f"The images run from {least:.3g} to {most:.3g} and are cut to 0..1: show {fix}."
            )
        self._display.picture(pixels, f"{name}, step {step:,}")
        self._join()
        data = png_of(grid_of(pixels))
        self._thread = threading.Thread(
            target=self._write, args=(name, step, data), name="colabkit-images", daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Waits until the newest is written."""
        self._join()

    def _write(self, name: str, step: int, data: bytes) -> None:
        attempt = self._folder.attempt
        where = "images" if attempt == 1 else f"images-attempt-{attempt}"
        try:
            self._folder.publish(f"{where}/{name}-{step:08d}.png", data)
            own = re.compile(rf"{re.escape(name)}-(\d{{8,}})\.png")
            names = [each for each in self._folder.list_files(where) if own.fullmatch(each)]
            self._folder.remove_files([f"{where}/{each}" for each in sorted(names)[:-_KEPT]])
        except StorageError as error:
            _logger.info("Images could not be written.", exc_info=True)
            self._failure = str(error)

    def _join(self) -> None:
        if self._thread is not None:
            self._thread.join(_PATIENCE_S)
        failure, self._failure = self._failure, ""
        if failure:
            self._say_once(f"Images were not written: {failure} Training goes on.")

    def _say_once(self, sentence: str) -> None:
        kind = sentence.partition(" ")[0]
        if kind not in self._said:
            self._said.add(kind)
            self._display.say(sentence)
