"""Keras: a model's variables, data and random streams, behind the protocol of adapters."""

from colabkit.frameworks.keras.adapter import KerasAdapter

__all__ = ["KerasAdapter"]
