"""What ``fit`` promises whatever the framework: one class of tests for both sides."""

from __future__ import annotations

import contextlib
import io
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import colabkit
from colabkit.errors import ArgumentError, CheckpointMismatchError, CheckpointNotFoundError

SAMPLES = 44
STEPS_PER_EPOCH = 6


class Interrupting:
    """Presses Ctrl-C within a step."""

    def __init__(self, step: int) -> None:
        self.step = step

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        if step == self.step:
            os.kill(os.getpid(), signal.SIGINT)


class Killing(Interrupting):
    """Ends the process without a word, after the saves before are on disk."""

    def on_batch_end(self, run: Any, step: int, logs: Any) -> None:
        run.flush()
        if step == self.step:
            os.kill(os.getpid(), signal.SIGKILL)


class FitContract:
    """To be subclassed with a framework's models; tests run on the CPU."""

    # What a framework's side must give.

    def model(self, *, outputs: int = 3) -> Any:
        """A model of 6 inputs with dropout, its first weights the same each time."""
        raise NotImplementedError

    def weights(self, model: Any) -> list[np.ndarray]:
        raise NotImplementedError

    def in_child(self, work: Callable[[], None], folder: Path) -> bool:
        """Whether ``work`` came to its end in a process of its own."""
        raise NotImplementedError

    def arrays(self) -> tuple[np.ndarray, np.ndarray]:
        x = np.random.default_rng(5).normal(size=(SAMPLES, 6)).astype("float32")
        return x, (x.sum(1) > 0).astype("int64") + (x[:, 0] > 1)

    def fit(self, model: Any, folder: Path, **more: Any) -> colabkit.History:
        given = {"batch_size": 8, "progress": False, "epochs": 2, **more}
        data = given.pop("data", None) or self.arrays()
        return colabkit.fit(model, data, folder, **given)

    def check_same(self, one: Any, other: Any) -> None:
        for a, b in zip(self.weights(one), self.weights(other), strict=True):
            assert a.tobytes() == b.tobytes()

    # The contract.

    def test_a_run_killed_in_mid_epoch_ends_with_the_same_bits(self, tmp_path):
        def killed() -> None:
            self.fit(self.model(), tmp_path / "run", save_every=1, callbacks=[Killing(8)])

        assert not self.in_child(killed, tmp_path)
        assert not self.in_child(killed, tmp_path)
        assert colabkit.checkpoints(tmp_path / "run")[0].step == 7
        alone, resumed = self.model(), self.model()
        history = self.fit(alone, tmp_path / "alone")
        gone_on = self.fit(resumed, tmp_path / "run")
        self.check_same(alone, resumed)
        for name, values in history.numbers()["steps"].items():
            assert values.tobytes() == gone_on.numbers()["steps"][name].tobytes()
        assert gone_on.numbers()["epochs"] == history.numbers()["epochs"]

    def test_running_again_after_the_last_epoch_changes_nothing(self, tmp_path):
        first, again = self.model(), self.model()
        history = self.fit(first, tmp_path)
        repeated = self.fit(again, tmp_path)
        self.check_same(first, again)
        assert repeated.numbers()["epochs"] == history.numbers()["epochs"]

    def test_more_epochs_train_on_as_if_they_had_been_asked_for_at_once(self, tmp_path):
        longer, resumed = self.model(), self.model()
        self.fit(longer, tmp_path / "longer", epochs=3)
        self.fit(self.model(), tmp_path / "short", epochs=1)
        self.fit(resumed, tmp_path / "short", epochs=3)
        self.check_same(longer, resumed)

    def test_an_interrupt_saves_and_returns(self, tmp_path):
        alone, resumed = self.model(), self.model()
        self.fit(alone, tmp_path / "alone")
        history = self.fit(self.model(), tmp_path / "run", callbacks=[Interrupting(8)])
        assert len(history.epochs) == 1
        assert colabkit.checkpoints(tmp_path / "run")[0].step == 8
        self.fit(resumed, tmp_path / "run")
        self.check_same(alone, resumed)
        assert signal.getsignal(signal.SIGINT) is signal.default_int_handler

    def test_load_gives_the_latest_the_best_or_a_step(self, tmp_path):
        trained, other = self.model(), self.model()
        self.fit(trained, tmp_path, epochs=3, validation_data=self.arrays())
        assert colabkit.load(other, tmp_path).step == 3 * STEPS_PER_EPOCH
        self.check_same(trained, other)
        assert colabkit.load(other, tmp_path, "best").is_best
        assert colabkit.load(other, tmp_path, 3 * STEPS_PER_EPOCH).step == 3 * STEPS_PER_EPOCH
        with pytest.raises(CheckpointNotFoundError, match="whole ones are at steps"):
            colabkit.load(other, tmp_path, 5)

    def test_a_damaged_checkpoint_is_named_and_the_one_before_used(self, tmp_path):
        self.fit(self.model(), tmp_path, save_every=5)
        newest, before, *_ = colabkit.checkpoints(tmp_path, verify=True)
        assert not newest.problem
        damaged = newest.weights_files[0]
        damaged.chmod(0o644)
        content = damaged.read_bytes()
        damaged.write_bytes(content[:-1] + bytes([content[-1] ^ 1]))
        found = colabkit.checkpoints(tmp_path, verify=True)
        assert found[0].problem
        assert not found[1].problem
        assert colabkit.load(self.model(), tmp_path).step == before.step

    def test_another_model_is_a_mismatch_that_lists_what_changed(self, tmp_path):
        self.fit(self.model(), tmp_path, epochs=1)
        with pytest.raises(CheckpointMismatchError, match="resume=False") as caught:
            self.fit(self.model(outputs=5), tmp_path)
        assert all(name.startswith("model.") for name in caught.value.differences)
        with pytest.raises(CheckpointMismatchError):
            colabkit.load(self.model(outputs=5), tmp_path)

    def test_other_data_or_another_seed_is_a_mismatch(self, tmp_path):
        self.fit(self.model(), tmp_path, epochs=1)
        x, y = self.arrays()
        with pytest.raises(CheckpointMismatchError, match="samples"):
            self.fit(self.model(), tmp_path, data=(x[:40], y[:40]))
        with pytest.raises(CheckpointMismatchError, match="seed"):
            self.fit(self.model(), tmp_path, seed=5)

    def test_resume_false_starts_beside_and_deletes_nothing(self, tmp_path):
        self.fit(self.model(), tmp_path)
        before = {info.name for info in colabkit.checkpoints(tmp_path)}
        history = self.fit(self.model(), tmp_path, epochs=1, resume=False)
        assert len(history.epochs) == 1
        after = {i.name for i in colabkit.checkpoints(tmp_path, verify=True) if not i.problem}
        assert before < after

    def test_resume_weights_takes_what_fits(self, tmp_path):
        first, second = self.model(), self.model(outputs=5)
        self.fit(first, tmp_path, epochs=1)
        seen = []

        def note(event: Any) -> None:
            if event.name == "train_begin":
                seen.append(self.weights(second)[0].tobytes() == self.weights(first)[0].tobytes())

        self.fit(second, tmp_path, resume="weights", callbacks=[note])
        assert seen == [True]

    def test_the_history_counts_epochs_on_and_lies_in_the_folder(self, tmp_path):
        self.fit(self.model(), tmp_path, epochs=1, validation_data=self.arrays())
        history = self.fit(self.model(), tmp_path, epochs=3, validation_data=self.arrays())
        assert len(history.epochs) == 3
        assert len(history.history["loss"]) == len(history.history["val_loss"]) == 3
        assert len(history.numbers()["steps"]["loss"]) == 3 * STEPS_PER_EPOCH
        assert "val_loss" in (tmp_path / "history.csv").read_text()

    def test_a_stop_asked_for_ends_the_run_for_good(self, tmp_path):
        def stop(event: Any) -> None:
            if event.name == "epoch_end":
                event.run.stop("enough")

        assert len(self.fit(self.model(), tmp_path, epochs=5, callbacks=[stop]).epochs) == 1
        assert len(self.fit(self.model(), tmp_path, epochs=5).epochs) == 1

    def test_a_call_ends_and_saves_nothing_of_a_training_that_went_on_beyond_it(self, tmp_path):
        ended = []

        def note(event: Any) -> None:
            if event.name == "train_end":
                ended.append(event.epoch)

        def killed() -> None:
            for epochs in (1, 2):
                more = [Killing(8)] if epochs == 2 else []
                self.fit(
                    self.model(), tmp_path, epochs=epochs, save_every=1, callbacks=[note, *more]
                )

        assert not self.in_child(killed, tmp_path)
        before = {info.name: info.hashes for info in colabkit.checkpoints(tmp_path)}
        self.fit(self.model(), tmp_path, epochs=1, callbacks=[note])
        after = {info.name: info.hashes for info in colabkit.checkpoints(tmp_path)}
        assert after == before
        assert not ended
        alone, resumed = self.model(), self.model()
        for epochs in (1, 2):
            self.fit(alone, tmp_path / "alone", epochs=epochs, callbacks=[note])
        self.fit(resumed, tmp_path, callbacks=[note])
        self.check_same(alone, resumed)

    def test_a_stop_asked_for_within_an_epoch_lets_it_come_to_its_end(self, tmp_path):
        def stop(event: Any) -> None:
            if event.name == "batch_end" and event.step == 2:
                event.run.stop("enough")

        def train(model: Any, folder: Path, *more: Any) -> int:
            return len(self.fit(model, folder, save_every=1, callbacks=[stop, *more]).epochs)

        killed = tmp_path / "killed"
        assert not self.in_child(lambda: train(self.model(), killed, Killing(4)), tmp_path)
        alone, resumed = self.model(), self.model()
        assert train(resumed, killed) == train(alone, tmp_path / "alone") == 1
        self.check_same(alone, resumed)

    @pytest.mark.parametrize(
        ("argument", "value"),
        [
            ("epochs", 0),
            ("epochs", 1.5),
            ("batch_size", 0),
            ("keep", 0),
            ("callbacks", [colabkit.EarlyStopping]),
            ("callbacks", colabkit.EarlyStopping("loss")),
            ("callbacks", 5),
            ("callbacks", [colabkit.EarlyStopping()]),
            ("seed", "7"),
            ("resume", "maybe"),
            ("save_every", "often"),
            ("data", 5),
            ("data", "MyDrive/cats"),
            ("data", ([[0.5] * 6] * 8, [0] * 8)),
            ("data", []),
            ("epoch", 3),
        ],
    )
    def test_a_wrong_argument_is_named_before_the_first_step(self, argument, value, tmp_path):
        given: dict[str, Any] = {"data": self.arrays(), "progress": False, argument: value}
        with pytest.raises(ArgumentError) as caught:
            colabkit.fit(self.model(), given.pop("data"), tmp_path / "run", **given)
        assert caught.value.argument == argument
        assert caught.value.hint
        assert not (tmp_path / "run" / "history.csv").exists()

    def test_a_model_class_is_no_model(self, tmp_path):
        with pytest.raises(ArgumentError) as caught:
            self.fit(type(self.model()), tmp_path)
        assert caught.value.argument == "model"
        assert "()" in caught.value.hint

    def test_a_machine_that_nobody_lent_is_not_given_back(self, tmp_path):
        def said(model: Any, **more: Any) -> str:
            with contextlib.redirect_stdout(io.StringIO()) as out:
                self.fit(model, tmp_path, release_when_done=True, progress=True, **more)
            return out.getvalue()

        assert "give back" not in said(self.model(), callbacks=[Interrupting(8)])
        model = self.model()
        assert "is not lent by Colab: there is nothing to give back." in said(model)
        assert "Nothing was trained here: the machine is kept" in said(model)
