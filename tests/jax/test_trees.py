"""What a run makes of pytrees: replaced, placed, typed as they were, and named where it cannot."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import colabkit
from colabkit.errors import ArgumentError, CheckpointMismatchError, StateError
from tests.keras.lives import needs_jax

pytestmark = needs_jax
in_life = pytest.mark.in_nursery("on_jax")


def run_of(folder: Path, **objects: Any) -> colabkit.Run:
    return colabkit.Run(folder, progress=False, save_every=1, **objects)


@in_life
def test_a_loop_has_the_bits_of_one_written_by_hand(tmp_path: Path) -> None:
    import jax
    import optax

    from tests.jax.loops import arrays, loss_of, weights

    x, y = arrays()
    rate, step = optax.adam(0.01), jax.jit(jax.value_and_grad(loss_of))
    params = weights(jax.random.key(3))
    state = rate.init(params)
    run = run_of(tmp_path, params=params, moments=state)
    for _ in run.epochs(2):
        for a, b in run.batches((x, y), batch_size=5, shuffle=False):
            _, grads = step(run.params, a, b, jax.random.key(0))
            updates, run.moments = rate.update(grads, run.moments)
            run.params = optax.apply_updates(run.params, updates)
    for _ in range(2):
        for begin in range(0, 20, 5):
            a, b = x[begin : begin + 5], y[begin : begin + 5]
            _, grads = step(params, a, b, jax.random.key(0))
            updates, state = rate.update(grads, state)
            params = optax.apply_updates(params, updates)
    for one, other in zip(
        jax.tree.leaves((params, state)), jax.tree.leaves((run.params, run.moments)), strict=True
    ):
        assert np.asarray(one).tobytes() == np.asarray(other).tobytes()


def _meshed(shape: tuple[int, ...], axes: tuple[str, ...], *spec: str | None) -> Any:
    import jax
    from jax.sharding import Mesh, NamedSharding, PartitionSpec

    devices = np.array(jax.devices()[: int(np.prod(shape))]).reshape(shape)
    return NamedSharding(Mesh(devices, axes), PartitionSpec(*spec))


@in_life
@pytest.mark.parametrize(
    ("shape", "axes", "spec"),
    [((4,), ("a",), ("a", None)), ((2, 2), ("a", "b"), ("b", "a")), ((2,), ("a",), (None, "a"))],
)
def test_what_is_spread_over_devices_goes_on_on_another_mesh(
    shape: tuple[int, ...], axes: tuple[str, ...], spec: tuple[str | None, ...], tmp_path: Path
) -> None:
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
    import jax
    import jax.numpy as jnp

    values = np.arange(64, dtype="float32").reshape(8, 8)
    wide = jax.device_put(jnp.asarray(values), _meshed((2, 2), ("x", "y"), "x", "y"))
    half = jax.device_put(jnp.asarray(values, jnp.bfloat16), _meshed((4,), ("x",), "x"))
    twice = jax.device_put(jnp.asarray(values), _meshed((2, 2), ("x", "y"), "x"))
    run = run_of(tmp_path, state={"wide": wide, "half": half, "twice": twice})
    for _ in run.items(range(2)):
        run.state = jax.tree.map(lambda each: each + 1, run.state)
    files = colabkit.checkpoints(tmp_path)[0].hashes
    assert {f"state.wide@{n}" for n in range(4)} < set(files)
    assert "state.twice@1" in files
    assert "state.twice@2" not in files

    sharding = _meshed(shape, axes, *spec)
    other = {
        "wide": jax.device_put(jnp.zeros((8, 8)), sharding),
        "half": jnp.zeros((8, 8), jnp.bfloat16),
        "twice": jax.device_put(jnp.zeros((8, 8)), sharding),
    }
    again = run_of(tmp_path, state=other)
    assert again.state["wide"].sharding == sharding
    assert len(again.state["half"].sharding.device_set) == 1
    for name, dtype in (("wide", "float32"), ("half", "bfloat16"), ("twice", "float32")):
        assert again.state[name].dtype == dtype
        np.testing.assert_array_equal(again.state[name].astype("float32"), values + 2)


@in_life
def test_what_a_step_has_laid_out_on_its_mesh_lies_so_again(tmp_path: Path) -> None:
    os.environ["XLA_FLAGS"] = "--xla_force_host_platform_device_count=4"
    import jax
    import jax.numpy as jnp

    def made() -> dict[str, Any]:
        rows = jax.device_put(jnp.ones(8), _meshed((4,), ("a",), "a"))
        return {"rows": rows, "like": jnp.ones(8), "weak": jnp.asarray(2.0), "count": 0}

    @jax.jit
    def step(state: Any) -> Any:
        like = state["like"] * state["rows"]
        return {
            "rows": state["rows"] + 1,
            "like": like,
            "weak": state["weak"] * 0.5,
            "count": state["count"] + 1,
        }

    run = run_of(tmp_path, state=made())
    for _ in run.items(range(2)):
        run.state = step(run.state)
    assert len(run.state["like"].sharding.device_set) == 4
    assert str(run.verdict).startswith("Resume is exact for state")
    again = run_of(tmp_path, state=made())
    for name, then in run.state.items():
        now = again.state[name]
        assert (now.sharding, now.dtype, now.weak_type) == (
            then.sharding,
            then.dtype,
            then.weak_type,
        )
        np.testing.assert_array_equal(now, then)


@in_life
def test_types_keys_and_plain_values_come_back_as_they_were(tmp_path: Path) -> None:
    import jax
    import jax.numpy as jnp

    def made(number: int) -> dict[str, Any]:
        return {
            "weak": jnp.full((3,), 1.5) * number,
            "number": jnp.asarray(2.0) * number,
            "strong": jnp.ones(2, "float16") * number,
            "key": jax.random.split(jax.random.key(number, impl="rbg"), 3),
            "count": number,
            "name": f"a{number}",
            "host": np.arange(3) * number,
            "none": None,
            "call": jax.nn.relu,
            "empty": jnp.zeros((0, 3)),
        }

    run = run_of(tmp_path, state=made(1))
    for _ in run.items(range(1)):
        run.state = made(7)
    got, wanted = run_of(tmp_path, state=made(1)).state, made(7)
    for name in ("weak", "number", "strong", "empty"):
        assert got[name].weak_type == wanted[name].weak_type
        assert got[name].dtype == wanted[name].dtype
        np.testing.assert_array_equal(got[name], wanted[name])
    assert got["key"].dtype == wanted["key"].dtype
    assert (jax.random.key_data(got["key"]) == jax.random.key_data(wanted["key"])).all()
    assert (got["count"], got["name"], got["none"]) == (7, "a7", None)
    assert type(got["host"]) is np.ndarray
    assert got["host"].tolist() == [0, 7, 14]
    assert got["call"] is jax.nn.relu


@in_life
def test_a_save_holds_what_a_step_is_given_to_overwrite(tmp_path: Path) -> None:
    import jax
    import jax.numpy as jnp

    step = jax.jit(lambda state: state + 1, donate_argnums=0)
    run = run_of(tmp_path, state=jnp.zeros((300, 300)))
    for _ in run.items(range(5)):
        run.state = step(run.state)
        run.flush()
    assert (run_of(tmp_path, state=jnp.zeros((300, 300))).state == 5).all()


@in_life
def test_what_is_held_in_host_memory_is_not_copied_and_stays_as_it_was(tmp_path: Path) -> None:
    import jax
    import jax.numpy as jnp

    from colabkit.frameworks.jax import JaxBackend

    del tmp_path
    backend, step = JaxBackend(), jax.jit(lambda state: state * 2, donate_argnums=0)
    for dtype in ("float32", "bfloat16", "int8"):
        state = step(jnp.ones((300, 300), dtype))
        spec, address = backend.describe(state), state.unsafe_buffer_pointer()
        (held,) = backend.hold([state])
        assert held.array.ctypes.data == address
        then, view = np.array(state), backend.allocate(spec.nbytes)
        for _ in range(3):
            state = step(state)
        backend.copy([held], [view])()
        assert view.tobytes() == then.tobytes()
        assert held.array is None


@in_life
def test_a_tree_whose_form_has_no_hash_is_saved_under_its_names(tmp_path: Path) -> None:
    import dataclasses
    import functools

    import jax
    import jax.numpy as jnp

    register = functools.partial(
        jax.tree_util.register_dataclass, data_fields=["kernel"], meta_fields=["sizes"]
    )

    @register
    @dataclasses.dataclass
    class Layer:
        kernel: Any
        sizes: list[int]

    run = run_of(tmp_path, state={"layer": Layer(jnp.zeros(3), [3])})
    for _ in run.items(range(4)):
        run.state = {"layer": Layer(run.state["layer"].kernel + 1, [3])}
    (newest, *_) = colabkit.checkpoints(tmp_path)
    assert "state.layer.kernel" in newest.hashes
    again = run_of(tmp_path, state={"layer": Layer(jnp.zeros(3), [3])})
    assert (again.state["layer"].kernel == 4).all()


@in_life
def test_a_state_that_was_overwritten_and_not_assigned_is_named(tmp_path: Path) -> None:
    import jax
    import jax.numpy as jnp

    step = jax.jit(lambda state: state + 1, donate_argnums=0)
    run = run_of(tmp_path, state=jnp.zeros(3))
    items = iter(run.items(range(3)))
    next(items)
    step(run.state)
    run.flush()  # or the next save is left out, which would see it
    with pytest.raises(StateError, match="overwrites it"):
        next(items)


@in_life
def test_a_loop_that_assigns_nothing_is_told_so(tmp_path: Path) -> None:
    import jax.numpy as jnp

    params = {"w": jnp.zeros(3)}
    run = run_of(tmp_path, params=params)
    for _ in run.items(range(3)):
        params = {"w": params["w"] + 1}
    assert "assign what a step returns (run.params = ...)" in str(run.verdict)
    run = run_of(tmp_path / "two", params=params, frozen={"w": jnp.ones(2)})
    for _ in run.items(range(3)):
        run.params = {"w": run.params["w"] + 1}
    assert run.verdict.reasons == ()


@in_life
def test_another_structure_than_at_the_start_is_named(tmp_path: Path) -> None:
    import jax.numpy as jnp

    run = run_of(tmp_path, state={"w": jnp.zeros(3)})
    for _ in run.items(range(3)):
        run.state = {"w": run.state["w"] + 1, "cache": jnp.ones(2)}
    assert "state has not the structure that it was given with (cache)" in str(run.verdict)


@in_life
def test_another_shape_does_not_fit_and_weights_take_what_does(tmp_path: Path) -> None:
    import jax.numpy as jnp

    run = run_of(tmp_path, params={"w": jnp.zeros(3), "b": jnp.zeros(2)})
    for _ in run.items(range(3)):
        run.params = {name: each + 1 for name, each in run.params.items()}
    changed = {"w": jnp.zeros(4), "b": jnp.zeros(2)}
    with pytest.raises(CheckpointMismatchError, match=r"params\.w: was float32 \[3\]"):
        run_of(tmp_path, params=changed)
    taken = run_of(tmp_path, params=changed, resume="weights").params
    assert taken["b"].tolist() == [3, 3]
    assert taken["w"].tolist() == [0, 0, 0, 0]


@in_life
def test_names_of_the_runs_own_and_trees_of_nothing_are_refused(tmp_path: Path) -> None:
    import jax.numpy as jnp
    import optax

    for name in ("step", "history", "has_trained", "_adapter"):
        with pytest.raises(ArgumentError, match=f"cannot be called {name}"):
            colabkit.Run(tmp_path, objects={name: jnp.zeros(2)}, progress=False)
    with pytest.raises(ArgumentError, match="holds nothing to save"):
        run_of(tmp_path, params=jnp.zeros(2), optimizer=optax.sgd(0.1))
    with pytest.raises(ArgumentError, match="int4 cannot be stored"):
        run_of(tmp_path, params=jnp.zeros(2, "int4"))


@in_life
def test_weights_load_into_a_module_and_not_into_a_tree(tmp_path: Path) -> None:
    import jax.numpy as jnp
    from flax import nnx

    model = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
    run = run_of(tmp_path, model=model)
    for _ in run.items(range(2)):
        model.kernel.value = model.kernel.value + 1
    other = nnx.Linear(3, 2, rngs=nnx.Rngs(1))
    colabkit.load(other, tmp_path)
    assert (other.kernel.value == model.kernel.value).all()

    run = run_of(tmp_path / "tree", model={"w": jnp.zeros(3)})
    for _ in run.items(range(2)):
        run.model = {"w": run.model["w"] + 1}
    with pytest.raises(ArgumentError, match="is replaced, and never changed"):
        colabkit.load({"w": jnp.zeros(3)}, tmp_path / "tree")


@in_life
def test_modes_and_plain_attributes_of_a_module_come_back_as_they_were(tmp_path: Path) -> None:
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self) -> None:
            self.norm = nnx.BatchNorm(2, rngs=nnx.Rngs(0))
            self.calls, self.noise, self.stage = 0, 0.5, "warm"

    def made() -> dict[str, Any]:
        return {"network": Network(), "drop": nnx.Dropout(0.2, rngs=nnx.Rngs(1))}

    run = run_of(tmp_path, models=made())
    network, drop = run.models["network"], run.models["drop"]
    for number in run.items(range(3)):
        network.calls += 1
        network.noise *= 0.7
        network.norm.scale.value = network.norm.scale.value + number
        if number == 1:
            network.stage = "late"
            network.eval()
            drop.eval()
    assert str(run.verdict).startswith("Resume is exact for models")
    again = run_of(tmp_path, models=made()).models
    there = again["network"]
    assert (there.calls, there.stage) == (3, "late")
    assert there.noise == network.noise
    assert there.norm.use_running_average
    assert again["drop"].deterministic
    assert (there.norm.scale.value == network.norm.scale.value).all()


@in_life
def test_another_function_or_layer_in_a_module_is_named(tmp_path: Path) -> None:
    from flax import nnx

    class Network(nnx.Module):
        def __init__(self) -> None:
            self.last = nnx.Linear(3, 2, rngs=nnx.Rngs(0))
            self.activation = nnx.relu

    def changed(name: str, value: Any) -> str:
        network = Network()
        run = run_of(tmp_path / name, model=network)
        for _ in run.items(range(2)):
            network.last.kernel.value = network.last.kernel.value + 1
            setattr(network, name, value)
        return str(run.verdict)

    assert "model has not the structure" in changed("activation", nnx.gelu)
    assert "(last.bias)" in changed("last", nnx.Linear(3, 2, use_bias=False, rngs=nnx.Rngs(1)))


@in_life
def test_a_loader_of_pytorch_gives_arrays_and_goes_on_in_mid_epoch(tmp_path: Path) -> None:
    import jax.numpy as jnp
    import torch
    from torch.utils.data import DataLoader, TensorDataset

    rows = TensorDataset(torch.arange(12.0).reshape(12, 1))

    def trained(folder: Path, last: int) -> Any:
        loader = DataLoader(rows, batch_size=3, shuffle=True)
        run = run_of(folder, state=jnp.zeros(()))
        for _ in run.epochs(2):
            for (x,) in run.batches(loader):
                assert type(x) is np.ndarray
                run.state = run.state * 1.5 + x.sum() + float(torch.rand(()))
                if run.step == last:
                    raise KeyboardInterrupt
        return run.state

    with pytest.raises(KeyboardInterrupt):
        trained(tmp_path / "two", 5)
    assert trained(tmp_path / "two", -1) == trained(tmp_path / "one", -1)


@in_life
@pytest.mark.parametrize("kind", ["a key", "an old key", "a tree", "the hidden state"])
def test_what_a_loop_hands_on_by_itself_is_named_before_its_first_step(
    kind: str, tmp_path: Path
) -> None:
    import jax
    import jax.numpy as jnp

    made = {
        "a key": jax.random.key(0),
        "an old key": jax.random.PRNGKey(0),
        "a tree": {"mean": jnp.zeros(3), "count": 0},
        "the hidden state": jnp.zeros((2, 3)),
    }
    value, total, run = made[kind], jnp.zeros(()), run_of(tmp_path, params=jnp.zeros(3))
    for _ in run.items(range(2)):
        (reason,) = run.history.verdict.reasons
        value = jax.tree.map(jnp.copy, value)
        total = total + run.params.sum()
        run.params = run.params + 1
    assert reason.startswith("the loop's value begins anew at a resume: keep it as an object")


@in_life
def test_what_a_loop_reads_from_its_run_or_makes_in_each_step_is_not_named(tmp_path: Path) -> None:
    import jax

    root = jax.random.key(0)
    run = run_of(tmp_path, key=jax.random.key(1), params=jax.numpy.zeros(3))
    params = run.params
    for _ in run.epochs(2):
        for _ in run.items(range(2)):
            run.key, drawn = jax.random.split(run.key)
            noise = jax.random.normal(jax.random.fold_in(root, run.step), (3,))
            params = params + noise + jax.random.normal(drawn, (3,))
            run.params = params
    assert not run.verdict.reasons


@in_life
@pytest.mark.parametrize("kind", ["tf.data", "arrays of JAX"])
def test_data_that_is_drawn_anew_each_time_it_is_read_is_named(kind: str, tmp_path: Path) -> None:
    import jax
    import tensorflow as tf

    class Loader:
        key = jax.random.key(0)

        def __iter__(self) -> Any:
            self.key, drawn = jax.random.split(self.key)
            yield from jax.random.normal(drawn, (3, 2))

    shuffled = tf.data.Dataset.range(40).shuffle(40, seed=1).batch(8)
    run = run_of(tmp_path, params=jax.numpy.zeros(3))
    for _ in run.batches(shuffled if kind == "tf.data" else Loader()):
        run.params = run.params + 1
    assert any("another first batch" in each for each in run.verdict.reasons)
    run = run_of(tmp_path / "two", params=jax.numpy.zeros(3))
    for _ in run.batches(tf.data.Dataset.range(40).batch(8)):
        run.params = run.params + 1
    assert not run.verdict.reasons


@in_life
def test_what_steps_go_by_and_what_heads_make_is_named(tmp_path: Path) -> None:
    import collections

    run = run_of(tmp_path, params=jax_zeros())
    memory, best, shown = collections.deque(maxlen=9), 9.0, 0
    for _ in run.epochs(2):
        labels = predicted(run.params)
        for row in run.items(range(3)):
            memory.append(row)
            shown += 1
            run.params = run.params + memory[0] + labels.sum()
        best = min(best, float(run.params.sum()))
        if best < 0:
            run.params = run.params * 0
        print(shown)
    told = [each.split(" begins anew")[0].split(" is made")[0] for each in run.verdict.reasons]
    assert set(told) == {"the loop's memory", "the loop's best", "labels"}


class Streams:
    """Streams that a loop draws from, in an object of the user's own."""

    def __init__(self) -> None:
        from flax import nnx

        self.noise = nnx.Rngs(noise=3)


def trained_with(folder: Path, *beside: str, **passed: Any) -> colabkit.Run:
    """Trains a module of NNX with some things beside it, and others passed."""
    import jax
    import jax.numpy as jnp
    import optax
    from flax import nnx

    x, streams = np.ones((4, 3), "float32"), Streams()
    model, teacher = (nnx.Linear(3, 2, rngs=nnx.Rngs(n)) for n in range(2))
    optimizer, seldom = (nnx.Optimizer(model, optax.adam(0.1), wrt=nnx.Param) for _ in range(2))
    shown = nnx.metrics.Average()

    @nnx.jit
    def step(model: Any, teacher: Any, optimizer: Any, rate: float) -> Any:
        loss, grads = nnx.value_and_grad(lambda m: ((m(x) - teacher(x) * rate) ** 2).mean())(model)
        optimizer.update(model, grads)
        return loss

    if "optimizer" not in beside:
        passed["optimizer"] = optimizer
    if "teacher" in passed:
        passed["teacher"] = teacher
    run = run_of(folder, model=model, **passed)
    for _ in run.epochs(2):
        for row in run.items(range(4)):
            is_seldom = "seldom" in beside and row == 3
            loss = step(model, teacher, seldom if is_seldom else optimizer, 1.0)
            shown.update(values=loss)
            if "streams" in beside:
                step(model, teacher, optimizer, float(jax.random.normal(streams.noise.noise())))
            if "teacher" in beside or "teacher" in passed:
                teacher.kernel.value = 0.9 * teacher.kernel.value + 0.1 * model.kernel.value
            assert jnp.sort(x).shape == x.shape
        print(float(shown.compute()))
        shown.reset()
    return run


@in_life
@pytest.mark.parametrize("kind", ["optimizer", "seldom", "teacher", "streams"])
def test_what_changes_of_nnx_and_was_not_passed_is_named_ever_after(
    kind: str, tmp_path: Path
) -> None:
    run = trained_with(tmp_path, kind)
    (reason,) = run.verdict.reasons
    path = "streams.noise" if kind == "streams" else kind
    assert f"the loop changes {path}, which no object of the run holds" in reason
    assert run_of(tmp_path, model=run.model, **_given(run)).verdict.reasons == (reason,)


def _given(run: Any) -> dict[str, Any]:
    return {"optimizer": run.optimizer} if hasattr(run, "optimizer") else {}


@in_life
@pytest.mark.parametrize("is_passed", [True, False])
def test_a_mean_of_nnx_that_steps_go_by_is_named_before_the_first(
    is_passed: bool, tmp_path: Path
) -> None:
    from flax import nnx

    mean = nnx.metrics.Average()

    @nnx.jit
    def add(mean: Any, value: Any) -> None:
        mean.update(values=value)

    objects = {"params": jax_zeros(), **({"means": {"all": mean}} if is_passed else {})}
    run = run_of(tmp_path, **objects)
    for _ in run.items(range(3)):
        add(mean, run.params.sum())
        run.params = run.params + 1 / (1 + float(mean.compute()))
    assert run.history.verdict is not None
    assert ["the loop changes mean" in e for e in run.history.verdict.reasons] == [True] * (
        not is_passed
    )


@in_life
def test_what_of_nnx_is_passed_or_only_read_or_shown_is_not_named(tmp_path: Path) -> None:
    assert trained_with(tmp_path / "read").verdict.reasons == ()
    assert trained_with(tmp_path / "passed", teacher=None).verdict.reasons == ()


def jax_zeros() -> Any:
    import jax

    return jax.numpy.zeros(3)


def predicted(params: Any) -> Any:
    return params > 0


@in_life
def test_a_second_pass_that_sets_what_the_run_has_is_looked_at_before_its_first_step(
    tmp_path: Path,
) -> None:
    import jax.numpy as jnp

    run = run_of(tmp_path, params=jnp.zeros(2))
    pool: list[int] = []
    for row in run.items(range(3)):
        run.params = run.params + row
    for row in run.items(range(3)):
        pool.append(row)
        assert "the loop's pool begins anew" in str(run.verdict)
        run.params = run.params + sum(pool)
