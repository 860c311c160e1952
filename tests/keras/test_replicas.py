"""Models of several replicas: what cannot be trained is said."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

import colabkit
from colabkit.errors import ArgumentError
from tests.keras.lives import needs_keras
from tests.keras.plain_fit import Case, arrays

pytestmark = [needs_keras, pytest.mark.in_nursery("on_tensorflow")]


def gan(*, has_call: bool = True) -> Case:
    import keras

    from tests.keras.tf_cases import TinyGan, two_replicas

    class Called(TinyGan):
        def call(self, real: Any) -> Any:
            return self.discriminator(real)

    with two_replicas().scope():
        keras.utils.set_random_seed(11)
        model = Called() if has_call else TinyGan()
        model.compile()
    return {"model": model, "data": arrays()[0]}


REFUSED: dict[str, tuple[Callable[[], Case], str, str]] = {
    "a GAN without a call": (lambda: gan(has_call=False), "no call()", "self.built = True"),
    "a GAN whose step builds its optimizers": (
        gan,
        "would have to build d_optimizer, g_optimizer.",
        "optimizer.build(",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_replicas_cannot_train_is_said_before_the_first_step(name, tmp_path):
    make, said, hint = REFUSED[name]
    given = {"batch_size": 8, "epochs": 2, "progress": False, **make()}
    with pytest.raises(ArgumentError) as caught:
        colabkit.fit(given.pop("model"), given.pop("data"), tmp_path / "run", **given)
    assert said in str(caught.value)
    assert hint in caught.value.hint
    assert not (tmp_path / "run").exists()
