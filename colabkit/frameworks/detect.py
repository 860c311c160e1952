"""Which framework a user's objects come from, told without importing any, and its adapter."""

from __future__ import annotations

import dataclasses
import importlib
import itertools
import sys
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

from colabkit.errors import ArgumentError, MissingPackageError
from colabkit.frameworks.attributes import has_state
from colabkit.frameworks.base import FrameworkAdapter
from colabkit.frameworks.estimators import may_hold_estimators, with_estimators
from colabkit.frameworks.exposed import Exposed
from colabkit.frameworks.plain.parts import is_tree
from colabkit.frameworks.users_own import attributes_of, package_of


@dataclasses.dataclass(frozen=True, slots=True)
class FrameworkEntry:
    """A framework that runs are made of.

    Attributes:
        name: What it is called.
        packages: Those whose classes make an object one of the framework's.
        adapter: Where its adapter is: "module:class", called with the objects by name.
    """

    name: str
    packages: tuple[str, ...]
    adapter: str

    def claims(self, value: object) -> bool:
        """Whether an object's class, or one it comes from, is of one of its packages."""
        return _is_of(value, self.packages)


KERAS = FrameworkEntry("keras", ("keras", "tensorflow"), "colabkit.frameworks.keras:KerasAdapter")
TORCH = FrameworkEntry("torch", ("torch",), "colabkit.frameworks.torch:TorchAdapter")
JAX = FrameworkEntry(
    "jax", ("jax", "jaxlib", "flax", "optax", "equinox"), "colabkit.frameworks.jax:JaxAdapter"
)
PLAIN = FrameworkEntry("plain", (), "colabkit.frameworks.plain:PlainAdapter")
FRAMEWORKS = [KERAS, TORCH, JAX]
"""In the order in which they are asked."""
_REPLACES = (JAX, PLAIN)
_SPREAD_MAX, _DEPTH_MAX = 1000, 8


def framework_of(objects: Iterable[Any]) -> FrameworkEntry:
    """Returns the first framework that claims one of the objects.

    Where none does, it is JAX in a program that has loaded JAX and no PyTorch, else PyTorch. An
    object of a framework that was never imported cannot exist, so what is loaded is enough.

    Raises:
        ArgumentError: One of them is of Keras 2.
    """
    values = [p for value in objects for p in itertools.islice(_spread(value), _SPREAD_MAX)]
    if any(_is_of(value, ("tf_keras",)) for value in values):
        raise keras_2_error(of="tf_keras")
    default = JAX if "jax" in sys.modules and "torch" not in sys.modules else TORCH
    found = next((each for each in FRAMEWORKS if any(map(each.claims, values))), default)
    version = str(getattr(sys.modules.get("keras"), "__version__", ""))
    if found is KERAS and version.startswith("2."):
        raise keras_2_error(of=version)
    return found


def adapter_for(
    objects: Mapping[str, Any], *, owner: Any = None, save_base: bool = False
) -> FrameworkAdapter:
    """Returns the adapter of the framework that the objects come from.

    Args:
        objects: By name.
        owner: The run, of which those objects become attributes that a loop replaces.
        save_base: Whether frozen weights are written that loading the base model gives again.

    Raises:
        ArgumentError: A model is of a framework that cannot be resumed.
        MissingPackageError: When no framework is installed that its objects could be of.
    """
    # What fit passes of its own as None is no booster to come.
    if owner is not None and owner.is_users_loop and may_hold_estimators():
        objects = with_estimators(owner, objects)
    framework = framework_of(objects.values())
    if framework is TORCH and any(map(is_tree, objects.values())):
        framework = PLAIN
    try:
        made = _class_at(framework.adapter)
    except ImportError as error:
        if "torch" in sys.modules:
            raise
        if any(value is not None and not has_state(value) for value in objects.values()):
            raise no_framework_error() from error
        framework, made = PLAIN, _class_at(PLAIN.adapter)
    if framework in _REPLACES:
        objects = Exposed(owner, objects)
    adapter: FrameworkAdapter = made(objects, save_base=save_base)
    return adapter


def _class_at(place: str) -> Any:
    module, name = place.split(":")
    return getattr(importlib.import_module(module), name)


def _is_of(value: object, packages: tuple[str, ...]) -> bool:
    if not any(package in sys.modules for package in packages):
        return False
    return any(package_of(base) in packages for base in type(value).__mro__)


def _spread(value: object, depth: int = 0) -> Iterator[object]:
    """Yields an object, and what lies in it where it is a nesting of dicts and lists."""
    inner: Iterable[object] = ()
    if isinstance(value, Mapping):
        inner = list(value.values())
    elif isinstance(value, list | tuple):
        inner = value
    elif dataclasses.is_dataclass(value) and not isinstance(value, type):
        inner = list(attributes_of(value).values())
    yield value
    if depth < _DEPTH_MAX:
        for each in inner:
            yield from _spread(each, depth + 1)


def keras_2_error(*, of: str) -> ArgumentError:
    """Returns the error for a model of Keras 2, which says how to make it one of Keras 3."""
    message = f"The model is of Keras 2 ({of}); colabkit trains models of Keras 3."
    hint = (
        "Build it with `import keras` instead of tf_keras, and without"
        " TF_USE_LEGACY_KERAS=1 in the environment."
    )
    return ArgumentError(message, argument="model", hint=hint)


def no_framework_error() -> MissingPackageError:
    """Returns the error that says what to install."""
    message = "Training needs PyTorch or a Keras model, and PyTorch is not installed here."
    hint = "Run: pip install torch (or tensorflow, and pass a keras.Model)"
    return MissingPackageError(message, package="torch", hint=hint)
