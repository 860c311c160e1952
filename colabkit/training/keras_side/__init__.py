"""The Keras side: a model's variables, data and own loop, behind the protocol in ``side``."""

from colabkit.training.keras_side.fitting import KerasOptions, fit_keras
from colabkit.training.keras_side.side import KerasSide

__all__ = ["KerasOptions", "KerasSide", "fit_keras"]
