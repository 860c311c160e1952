"""Keras: a model's variables, data and random streams, behind the protocol in ``side``."""

from colabkit.training.keras_side.side import KerasSide

__all__ = ["KerasSide"]
