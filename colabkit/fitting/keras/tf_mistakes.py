"""What an error of TensorFlow's in a step says of the data, and what to do about it."""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator

import tensorflow as tf

from colabkit.errors import ArgumentError

_LABEL = re.compile(r"label value of (-?\d+) which is outside the valid range of \[0, (\d+)\)")


@contextlib.contextmanager
def mistakes_explained() -> Iterator[None]:
    """Raises ArgumentError for a class that has no output."""
    try:
        yield
    except tf.errors.InvalidArgumentError as error:
        found = _LABEL.search(str(error))
        if found is None:
            raise
        label, outputs = map(int, found.groups())
        message = (
            f"The loss was given the class {label}, and {outputs} outputs, for 0 to {outputs - 1}."
        )
        hint = "Number the classes from 0, and give the last layer an output for each."
        # TensorFlow's own is the graph's whole history.
        raise ArgumentError(message, argument="data", hint=hint) from None
