"""Runs without a framework: trees of NumPy arrays, objects with a state, any data."""

from colabkit.frameworks.plain.adapter import PlainAdapter
from colabkit.frameworks.plain.backend import PlainBackend
from colabkit.frameworks.plain.parts import Parts, TreeParts, is_tree
from colabkit.frameworks.plain.sources import feed_of

__all__ = ["Parts", "PlainAdapter", "PlainBackend", "TreeParts", "feed_of", "is_tree"]
