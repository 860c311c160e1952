"""JAX: trees of arrays, NNX modules and random keys as the state of a run."""

from colabkit.frameworks.jax.adapter import JaxAdapter, floats_of, jax_environment, nondeterminism
from colabkit.frameworks.jax.backend import JaxBackend
from colabkit.frameworks.jax.tracing import trace

__all__ = ["JaxAdapter", "JaxBackend", "floats_of", "jax_environment", "nondeterminism", "trace"]
