"""The path that ``dataset`` returns: a path like any other, shown by a notebook as a card."""

from __future__ import annotations

from pathlib import Path


class DatasetPath(type(Path())):  # type: ignore[misc]
    """A folder whose last value in a cell is drawn as a card: tree, counts, a few images."""

    __slots__ = ()

    def _repr_html_(self) -> str | None:
        from colabkit.notebook import folder_card  # needed where it is shown, and not to make it

        return folder_card(Path(self)) if self.is_dir() else None

    def __reduce__(self) -> tuple[type[Path], tuple[str]]:
        # Another process needs the path, not the card.
        return Path, (str(self),)
