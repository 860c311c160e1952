"""What callbacks of Keras' form share: second names for lists, objects, views of arrays."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from colabkit.frameworks.keras.names import layers_of
from colabkit.frameworks.keras.reach import slots_within
from colabkit.frameworks.keras.variables import optimizers_of
from colabkit.frameworks.paths import UNCHANGING, put_at, reached, steps_of


class CallbackPlaces:
    """The attributes of callbacks, by paths that begin with the names of these.

    Args:
        callbacks: By name.

    Attributes:
        may_share: Whether training has changed more of them than numbers and words.
    """

    def __init__(self, callbacks: Mapping[str, Any]) -> None:
        self._callbacks = callbacks
        self.may_share = False

    def note(self, changed: Mapping[str, Any]) -> None:
        """Takes down what has changed, by path."""
        own = (value for path, value in changed.items() if self._begins(path))
        self.may_share = any(type(value) not in UNCHANGING for value in own)

    def places(self) -> Iterator[tuple[str, Any]]:
        """Yields what may be shared, by path."""
        yield from self._callbacks.items()
        for slot in slots_within(self._callbacks):
            if self._begins(slot.path) and "~" not in slot.path:
                yield slot.path, slot.value

    def at(self, path: str) -> Any:
        """Returns what a path leads to, None where it leads nowhere."""
        owner, way = self._split(path)
        return reached(owner, steps_of(way))

    def put_at(self, path: str, value: Any) -> bool:
        """Puts a value there; returns whether it leads anywhere."""
        owner, way = self._split(path)
        return owner is not None and put_at(owner, steps_of(way), value)

    def _begins(self, path: str) -> bool:
        return any(path.startswith(f"{name}.") for name in self._callbacks)

    def _split(self, path: str) -> tuple[Any, str]:
        for name, callback in self._callbacks.items():
            if path == name or path.startswith(f"{name}."):
                return callback, path.removeprefix(name)
        return None, path


def shareable(model: Any) -> dict[str, Any]:
    """Returns by name what callbacks may keep a second name for: the model and what lies in it."""
    layers = layers_of(model)
    found = {f"layer {number}": each for number, each in enumerate(layers)}
    found |= {f"variable {number}": each for number, each in enumerate(model.variables)}
    return found | {f"optimizer of {n}": each for n, each in optimizers_of(layers).items()}
