"""The warm parent of all lives of JAX, which is that of Keras on JAX."""

from tests.keras.conftest import on_jax, pytest_pyfunc_call

__all__ = ["on_jax", "pytest_pyfunc_call"]
