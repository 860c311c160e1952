"""What the kept values of a loop share, with each other and with the objects of the run."""

from __future__ import annotations

from collections.abc import Collection

from colabkit.frameworks.second_names import SecondNames, Tree
from colabkit.runs.kept_values import KeptValues, values_of


class KeptNames:
    """Keeps from session to session what kept values share.

    Args:
        kept: They.
        names: Knows what the objects of the run are.
    """

    def __init__(self, kept: KeptValues, names: SecondNames) -> None:
        self._names = names
        self._memories = {"": Tree(values_of(kept))}

    def state_dict(self) -> str:
        """Returns, as JSON, what they share."""
        return self._names.state_dict(self._memories)

    def load_state_dict(self, shared: str) -> None:
        """Keeps what ``state_dict`` gave until the values are asked for."""
        self._names.part(shared, {})

    def join(self, *, only: Collection[str]) -> None:
        """Gives back what shared something to those of such names, which were given their values.

        The others have gone on since.
        """
        self._memories[""].only = only
        self._names.join(self._memories)

    def said(self) -> list[str]:
        """Returns a phrase on each second name that no resume can give."""
        return self._names.said()
