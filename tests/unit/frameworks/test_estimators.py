"""Boosters and estimators of a run: in place or replaced, and with the bits of one left alone."""

from __future__ import annotations

import inspect
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import colabkit
from colabkit.errors import ArgumentError, StateError
from colabkit.frameworks import estimators
from tests.abilities import package, trainer

X = np.random.default_rng(0).normal(size=(160, 4))
Y = (X[:, 0] + X[:, 1] * X[:, 2] > 0).astype(int)


def _part(estimator: Any, number: int) -> Any:
    rows = slice(40 * (number % 4), 40 * (number % 4) + 40)
    if hasattr(estimator, "partial_fit"):
        takes = "classes" in inspect.signature(estimator.partial_fit).parameters
        return estimator.partial_fit(X[rows], Y[rows], **({"classes": [0, 1]} if takes else {}))
    names = estimator.get_params()
    more = "n_estimators" if "n_estimators" in names else "max_iter"
    return estimator.set_params(**{more: 2 * (number + 1)}).fit(X, Y)


def _sklearn() -> dict[str, Any]:
    from sklearn import cluster, decomposition, ensemble, linear_model, naive_bayes, neural_network

    return {
        "sgd": linear_model.SGDClassifier(random_state=0),
        "sgd_with_a_stream": linear_model.SGDClassifier(random_state=np.random.RandomState(3)),
        "bayes": naive_bayes.GaussianNB(),
        "network": neural_network.MLPClassifier((6,), random_state=0),
        "forest": ensemble.RandomForestClassifier(2, warm_start=True, random_state=0),
        "boosting": ensemble.GradientBoostingClassifier(
            n_estimators=2, warm_start=True, subsample=0.7, random_state=0
        ),
        # These draw from NumPy's global stream, and keep hold of it.
        "boosting_at_large": ensemble.GradientBoostingClassifier(
            n_estimators=2, warm_start=True, subsample=0.7
        ),
        "means_at_large": cluster.MiniBatchKMeans(2, n_init=1),
        "histograms": ensemble.HistGradientBoostingClassifier(warm_start=True, random_state=0),
        "means": cluster.MiniBatchKMeans(2, random_state=0, n_init=1),
        # Whose matrices lie in memory column by column.
        "dictionary": decomposition.MiniBatchDictionaryLearning(3, random_state=0, n_jobs=1),
        "components": decomposition.IncrementalPCA(3),
    }


def _trained(folder: Path, made: Any, *, last: int = -1) -> tuple[np.ndarray, Any]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # what has not converged yet
        run = colabkit.Run(folder, estimator=made, save_every=1, progress=False)
        for number in run.items(range(4)):
            assert _part(run.estimator, number) is run.estimator
            if run.step == last:
                raise KeyboardInterrupt
        tell = getattr(run.estimator, "predict", None) or run.estimator.transform
        return np.asarray(tell(X)), run


@pytest.mark.needs(package("sklearn"))
@pytest.mark.parametrize(
    "name",
    [
        "sgd",
        "sgd_with_a_stream",
        "bayes",
        "network",
        "forest",
        "boosting",
        "boosting_at_large",
        "histograms",
        "means",
        "means_at_large",
        "dictionary",
        "components",
    ],
)
def test_an_estimator_goes_on_with_the_same_bits(name: str, tmp_path: Path) -> None:
    with pytest.raises(KeyboardInterrupt):
        _trained(tmp_path / "two", _sklearn()[name], last=2)
    alone, run = _trained(tmp_path / "one", _sklearn()[name])
    resumed, again = _trained(tmp_path / "two", _sklearn()[name])
    assert alone.tobytes() == resumed.tobytes()
    kept = [colabkit.checkpoints(tmp_path / each)[0].hashes for each in ("one", "two")]
    of_estimator = [{k: v for k, v in h.items() if not k.startswith("run.")} for h in kept]
    assert of_estimator[0] == of_estimator[1] != {}
    assert run.step == again.step == 4


@pytest.mark.needs(trainer("xgboost"))
def test_a_booster_of_xgboost_is_made_in_the_loop_and_goes_on(tmp_path: Path) -> None:
    import xgboost

    def trained(folder: Path, last: int = -1) -> Any:
        run = colabkit.Run(folder, booster=None, save_every=1, progress=False)
        for number in run.items(range(4)):
            told = {"max_depth": 2, "nthread": 1, "subsample": 0.8, "seed": number}
            data = xgboost.DMatrix(X, Y)
            run.booster = xgboost.train(told, data, 2, xgb_model=run.booster)
            if run.step == last:
                raise KeyboardInterrupt
        return run.booster.save_raw("ubj")

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "two", 2)
    assert trained(tmp_path / "two") == trained(tmp_path / "one")


@pytest.mark.needs(trainer("xgboost"))
@pytest.mark.parametrize(("share", "is_named"), [(0.8, True), (1.0, False)])
def test_a_stream_of_xgboost_that_goes_on_from_call_to_call_is_named(
    share: float, is_named: bool, tmp_path: Path
) -> None:
    import xgboost

    made = xgboost.XGBClassifier(n_estimators=2, n_jobs=1, subsample=share)
    run = colabkit.Run(tmp_path, model=made, save_every=1, progress=False)
    for number in run.items(range(3)):
        run.flush()  # or the next save is left out, which would see it
        run.model.fit(X, Y, xgb_model=run.model.get_booster() if number else None)
    assert ("give each call another seed" in str(run.verdict)) is is_named


@pytest.mark.needs(package("sklearn"))
@pytest.mark.parametrize("beside", ["an estimator", "the run", "nothing"])
def test_a_generator_that_two_objects_draw_from_is_named(beside: str, tmp_path: Path) -> None:
    from sklearn.linear_model import SGDClassifier

    stream = np.random.RandomState(3)
    objects = {"model": SGDClassifier(random_state=stream)}
    if beside == "an estimator":
        objects["other"] = SGDClassifier(random_state=stream)
    elif beside == "the run":
        objects["stream"] = stream
    run = colabkit.Run(tmp_path, save_every=1, progress=False, objects=objects)
    for _ in run.items(range(2)):
        run.flush()
        run.model.partial_fit(X, Y, classes=np.unique(Y))
    assert ("draw from one generator" in str(run.verdict)) is (beside != "nothing")


@pytest.mark.needs(trainer("lightgbm"))
def test_a_booster_of_lightgbm_is_made_in_the_loop_and_goes_on(tmp_path: Path) -> None:
    import lightgbm

    def trained(folder: Path, last: int = -1) -> Any:
        run = colabkit.Run(folder, booster=None, save_every=1, progress=False)
        for number in run.items(range(4)):
            told = {"verbose": -1, "num_threads": 1, "deterministic": True, "seed": number}
            data = lightgbm.Dataset(X, Y)
            run.booster = lightgbm.train(told, data, 2, init_model=run.booster)
            if run.step == last:
                raise KeyboardInterrupt
        assert str(run.verdict).startswith("Resume is exact for booster, the items and")
        return run.booster.model_to_string()

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "two", 2)
    assert trained(tmp_path / "two") == trained(tmp_path / "one")


@pytest.mark.needs(trainer("lightgbm"), package("sklearn"))
def test_a_classifier_of_lightgbm_goes_on_and_predicts_with_its_best_trees(tmp_path: Path) -> None:
    import lightgbm

    def trained(folder: Path, last: int = -1) -> Any:
        run = colabkit.Run(folder, model=None, booster=None, save_every=1, progress=False)
        for number in run.items(range(3)):
            made = lightgbm.LGBMClassifier(n_estimators=2, n_jobs=1, verbosity=-1, random_state=0)
            run.model = made.fit(X, Y, init_model=run.model)
            rows = lightgbm.Dataset(X, Y)
            told = {"verbose": -1, "num_threads": 1, "objective": "binary"}
            run.booster = lightgbm.train(told, rows, 6, init_model=run.booster)
            run.booster.best_iteration = 2 * (number + 1)
            if run.step == last:
                raise KeyboardInterrupt
        return run.model.predict_proba(X).tobytes(), run.booster.predict(X).tobytes()

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "two", 1)
    alone = trained(tmp_path / "one")
    assert trained(tmp_path / "two") == alone
    assert trained(tmp_path / "two") == alone  # of a run that is done


@pytest.mark.needs(trainer("lightgbm"))
def test_a_booster_that_grows_by_update_is_named(tmp_path: Path) -> None:
    import lightgbm

    told = {"verbose": -1, "num_threads": 1, "objective": "binary"}
    made = lightgbm.Booster(told, lightgbm.Dataset(X, Y))
    with pytest.raises(ArgumentError, match="over its training data") as caught:
        colabkit.Run(tmp_path, booster=made, progress=False)
    assert "init_model=run.booster" in caught.value.hint
    run = colabkit.Run(tmp_path, booster=None, save_every=1, progress=False)
    run.booster = made
    for _ in run.items(range(3)):
        run.booster.update()
        run.flush()
    assert "booster grows by update()" in str(run.verdict)


@pytest.mark.needs(package("sklearn"))
@pytest.mark.parametrize(
    "named",
    [["builtins", "eval"], ["os", "system"], ["numpy", "memmap"], ["sklearn.base", "clone"]],
)
def test_a_checkpoint_makes_nothing_but_estimators(named: list[str], tmp_path: Path) -> None:
    import sklearn.base

    assert sklearn.base is not None
    made = {"$object": "call", "class": named, "args": (str(tmp_path / "file"),), "state": None}
    with pytest.raises(StateError, match="makes no estimator"):
        estimators.restored(None, {"object": made})
    assert not list(tmp_path.iterdir())


@pytest.mark.needs(package("sklearn"))
def test_what_cannot_be_stored_is_named(tmp_path: Path) -> None:
    from sklearn.preprocessing import FunctionTransformer

    transformer = FunctionTransformer(lambda x: x)
    with pytest.raises(StateError, match=r"scaler\.FunctionTransformer\.func is a function"):
        for _ in colabkit.Run(tmp_path, scaler=transformer, progress=False).items(range(1)):
            pass


def test_what_is_none_takes_no_state_of_another_kind(tmp_path: Path, monkeypatch: Any) -> None:
    """A scaler of a GPU's session that a CPU's has not is no booster."""

    class Scaler:
        def state_dict(self) -> dict[str, Any]:
            return {"scale": 2.0}

        def load_state_dict(self, state: dict[str, Any]) -> None:
            raise AssertionError(state)

    monkeypatch.setitem(__import__("sys").modules, "sklearn", object())

    def train(scaler: Scaler | None) -> colabkit.Run:
        tree = {"tree": [np.zeros(2)], "scaler": scaler}
        run = colabkit.Run(tmp_path, **tree, progress=False, save_every=1)
        for _ in run.items(range(3)):
            run.tree[0] += 1
        return run

    train(Scaler())
    run = train(None)
    assert run.scaler is None
    assert run.tree[0].tolist() == [3, 3]
