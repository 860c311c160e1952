"""``fit`` for Keras: the model's own loop, given batches by place and watched by a callback."""

from colabkit.fitting.keras.fitting import KerasOptions, fit_keras

__all__ = ["KerasOptions", "fit_keras"]
