"""``fit`` for Keras: the model's own loop, given batches by place and watched by a callback."""

from colabkit.fitting.keras.fitting import fit_keras
from colabkit.fitting.keras.options import KerasOptions

__all__ = ["KerasOptions", "fit_keras"]
