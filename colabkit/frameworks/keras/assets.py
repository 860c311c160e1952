"""What layers know besides their variables: vocabularies, bins, and what follows from weights."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy as np

from colabkit.frameworks.keras.names import layers_of

_FUNCTIONS = ("train_function", "test_function", "predict_function")
_FILES, _BINS = "files", "bins"


class Assets:
    """The vocabularies and bins of a model's preprocessing layers; training changes none."""

    def __init__(self, model: Any) -> None:
        self._model = model
        self._kept: dict[str, Any] | None = None

    def state(self) -> dict[str, Any]:
        """Returns each layer's files as bytes, and its bins, by the layer's class and number."""
        if self._kept is None:
            self._kept = {name: _state_of(layer) for name, layer in self._layers()}
        return self._kept

    def restore(self, kept: Mapping[str, Any]) -> None:
        """Puts them back, and has each layer take up its weights as Keras' own loading does."""
        took = False
        for name, layer in self._layers():
            then = kept.get(name)
            if then is not None and not _is_same(then, _state_of(layer)):
                _restore(layer, then)
                took = True
        for layer in layers_of(self._model):
            if hasattr(layer, "finalize_state") and not hasattr(layer, "bin_boundaries"):
                layer.finalize_state()
                took = True
        if took:
            # What was traced before has the old values built in.
            for name in _FUNCTIONS:
                if getattr(self._model, name, None) is not None:
                    setattr(self._model, name, None)

    def _layers(self) -> Iterator[tuple[str, Any]]:
        counts: dict[str, int] = {}
        for layer in layers_of(self._model):
            if _keeps_files(layer) or hasattr(layer, "bin_boundaries"):
                kind = type(layer).__name__
                counts[kind] = counts.get(kind, 0) + 1
                yield f"{kind} {counts[kind]}", layer


def _keeps_files(layer: Any) -> bool:
    return hasattr(type(layer), "save_assets")


def _state_of(layer: Any) -> dict[str, Any]:
    bins = getattr(layer, "bin_boundaries", None)
    return {_FILES: _files_of(layer), _BINS: None if bins is None else [float(b) for b in bins]}


def _files_of(layer: Any) -> dict[str, Any]:
    if not _keeps_files(layer):
        return {}
    with tempfile.TemporaryDirectory() as folder:
        try:
            layer.save_assets(folder)
        except (ValueError, RuntimeError, AttributeError):
            return {}  # a vocabulary that was never made
        files = (path for path in Path(folder).rglob("*") if path.is_file())
        return {
            path.relative_to(folder).as_posix(): np.frombuffer(path.read_bytes(), np.uint8)
            for path in sorted(files)
        }


def _restore(layer: Any, kept: Mapping[str, Any]) -> None:
    if kept[_FILES]:
        with tempfile.TemporaryDirectory() as folder:
            root = Path(folder).resolve()
            for name, content in kept[_FILES].items():
                path = (root / name).resolve()
                if path.is_relative_to(root):
                    path.parent.mkdir(parents=True, exist_ok=True)
                    path.write_bytes(np.asarray(content).tobytes())
            layer.load_assets(folder)
    if kept[_BINS] is not None:
        layer.bin_boundaries = list(kept[_BINS])


def _is_same(then: Mapping[str, Any], now: Mapping[str, Any]) -> bool:
    files, others = then[_FILES], now[_FILES]
    return (
        then[_BINS] == now[_BINS]
        and files.keys() == others.keys()
        and all(np.array_equal(np.asarray(v), others[n]) for n, v in files.items())
    )
