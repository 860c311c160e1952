"""A loop of one's own in several processes, over modules wrapped in DistributedDataParallel."""

from __future__ import annotations

import inspect
import shutil
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.distributed as dist
from torch import nn
from torch.nn import functional
from torch.nn.parallel import DistributedDataParallel
from torch.utils import data as torch_data

import colabkit
from colabkit.errors import ArgumentError, ColabKitError, ProcessesApartError
from tests.torch.cases import Augmented, Stream, arrays, network
from tests.torch.killing import kill_self, outcome
from tests.torch.ranks import came_through, failure, killed, together
from tests.torch.several_ways import result, same_weights


def shared_out(rows: Any = None) -> torch_data.DataLoader[Any]:
    rows = rows or Augmented()
    sampler: Any = torch_data.DistributedSampler(rows, seed=3)
    return torch_data.DataLoader(rows, batch_size=4, sampler=sampler)


def rank() -> int:
    return dist.get_rank() if dist.is_initialized() else 0


def nothing(_run: Any, _step: int) -> None:
    pass


def train(
    folder: Path,
    *,
    at_step: Callable[[Any, int], None] = nothing,
    drops: bool = True,
    **options: Any,
) -> Any:
    """The loop that a person writes, by which the random draws of each process are kept too."""
    model = network(dropout=0.2 if drops else 0.0)
    # From three processes on, others would sum in another order after a resume.
    wrapped = DistributedDataParallel(model, find_unused_parameters=True)
    optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1, momentum=0.9)
    loader = shared_out(None if drops else torch_data.TensorDataset(*arrays()))
    given = {"progress": False, "save_every": None, **options}
    run = colabkit.Run(folder / "run", model=wrapped, optimizer=optimizer, **given)
    for _ in run.epochs(2):
        for x, y in run.batches(loader):
            loss = functional.cross_entropy(wrapped(x), y)
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            run.log(loss=loss)
            at_step(run, run.step + 1)
        run.log_epoch(val=validated(run, model))
    torch.save(model.state_dict(), folder / f"weights-{rank()}")
    if rank() == 0:
        outcome(folder / "run", run.history, folder / "outcome")
        (folder / "verdict").write_text(str(run.history.verdict))
    return run


def validated(run: Any, model: nn.Module) -> float:
    """Over the same batches in each process, as many do."""
    model.eval()
    with torch.no_grad():
        losses = [
            float(functional.cross_entropy(model(x), y))
            for x, y in run.batches(arrays(), batch_size=16, shuffle=False)
        ]
    model.train()
    return sum(losses) / max(1, len(losses))


@pytest.fixture(scope="module")
def undisturbed(tmp_path_factory: pytest.TempPathFactory) -> Callable[[int], dict[str, Any]]:
    """Gives what so many processes end with that nobody disturbs."""
    known: dict[int, dict[str, Any]] = {}

    def by_count(count: int) -> dict[str, Any]:
        if count not in known:
            folder = tmp_path_factory.mktemp(f"of-{count}")
            came_through(lambda _: train(folder), count, folder)
            same_weights(folder, count)
            known[count] = result(folder)
        return known[count]

    return by_count


def dying(doomed: tuple[int, ...], step: int) -> Callable[[Any, int], None]:
    def at_step(run: Any, now: int) -> None:
        run.flush()
        if now == step and rank() in doomed:
            kill_self()

    return at_step


@pytest.mark.parametrize(("count", "doomed"), [(2, (0,)), (2, (1,)), (2, (0, 1)), (3, (2,))])
def test_killed_processes_go_on_bit_for_bit(count, doomed, undisturbed, tmp_path):
    statuses = together(
        lambda _: train(tmp_path, at_step=dying(doomed, 4), save_every=1), count, tmp_path
    )
    assert all(killed(statuses[each]) for each in doomed)
    for each in set(range(count)) - set(doomed):
        assert statuses[each] != 0, failure(tmp_path, each)
    assert 0 < colabkit.checkpoints(tmp_path / "run", verify=True)[0].step < 5
    came_through(lambda _: train(tmp_path), count, tmp_path)
    same_weights(tmp_path, count)
    assert result(tmp_path) == undisturbed(count)
    verdict = (tmp_path / "verdict").read_text()
    assert verdict.startswith("Resume is exact")
    assert f"provided {count} processes go on" in verdict


def test_the_steps_are_those_of_the_same_loop_without_a_run(tmp_path):
    def work(_: int) -> None:
        train(tmp_path, drops=False)
        model = network(dropout=0.0)
        wrapped = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1, momentum=0.9)
        plain = torch_data.TensorDataset(*arrays())
        sampler: Any = torch_data.DistributedSampler(plain, seed=3)
        for epoch in range(2):
            sampler.set_epoch(epoch)
            for x, y in torch_data.DataLoader(plain, batch_size=4, sampler=sampler):
                loss = functional.cross_entropy(wrapped(x), y)
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        found = torch.load(tmp_path / f"weights-{rank()}", weights_only=True)
        for name, each in model.state_dict().items():
            assert torch.equal(found[name], each)

    came_through(work, 2, tmp_path)


def test_one_process_reads_and_goes_on_with_what_two_wrote(tmp_path):
    came_through(lambda _: train(tmp_path, max_steps=4), 2, tmp_path)
    model = network()
    colabkit.load(model, tmp_path / "run")
    weights = torch.load(tmp_path / "weights-0", weights_only=True)
    assert all(torch.equal(weights[name], each) for name, each in model.state_dict().items())

    optimizer = torch.optim.SGD(model.parameters(), lr=0.1, momentum=0.9)
    run = colabkit.Run(tmp_path / "run", model=model, optimizer=optimizer, progress=False)
    assert run.step == 4
    assert "gradients were summed over 2 processes, are over 1" in str(run.verdict)


def trained_on(folder: Path, count: int, *, steps: int | None, is_shared: bool = True) -> list[int]:
    """Returns the samples that so many processes have trained on, by a loop of one epoch."""

    def work(each: int) -> None:
        rows = torch_data.TensorDataset(torch.arange(40.0)[:, None])
        sampler: Any = torch_data.DistributedSampler(rows, num_replicas=count, rank=each, seed=3)
        shares = {"sampler": sampler} if is_shared else {"shuffle": True}
        loader: Any = torch_data.DataLoader(rows, batch_size=4, **shares)
        model: Any = nn.Linear(1, 1)
        model = DistributedDataParallel(model) if count > 1 else model
        optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
        objects = {"model": model, "optimizer": optimizer}
        run = colabkit.Run(folder / "run", objects=objects, progress=False, max_steps=steps)
        seen: list[int] = []
        for _ in run.epochs(1):
            for (x,) in run.batches(loader):
                optimizer.zero_grad()
                model(x).mean().backward()
                optimizer.step()
                seen += x[:, 0].int().tolist()
        (folder / f"seen-{each}").write_text(" ".join(map(str, seen)))

    came_through(work, count, folder)
    return [int(s) for each in range(count) for s in (folder / f"seen-{each}").read_text().split()]


@pytest.mark.parametrize("counts", [(2, 1), (1, 2), (2, 3)])
def test_another_number_goes_on_in_mid_epoch_behind_what_was_trained(counts, tmp_path):
    """Three processes have 12 samples a step: those behind the second begin at 12."""
    first, then = counts
    seen = trained_on(tmp_path, first, steps=2)
    assert len({*seen}) == len(seen) == 8 * first
    rest = trained_on(tmp_path, then, steps=None)
    assert {*seen, *rest} == {*range(40)}
    again = 16 % 12 if then == 3 else 0
    # Of 40 samples three processes have 42 places, two of which are filled up.
    assert len(rest) == 40 - len(seen) + again + (2 if then == 3 else 0)


def test_one_process_that_shuffles_otherwise_does_not_go_on_in_mid_epoch(tmp_path):
    trained_on(tmp_path, 2, steps=2)
    with pytest.raises(AssertionError, match="num_replicas=1, rank=0"):
        trained_on(tmp_path, 1, steps=None, is_shared=False)


def test_an_average_of_the_wrapped_module_is_named_from_the_start(tmp_path):
    def work(_: int) -> None:
        model = DistributedDataParallel(network())
        averaged = torch.optim.swa_utils.AveragedModel
        for at, (of, is_named) in enumerate([(model, True), (model.module, False)]):
            optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
            objects = {"model": model, "optimizer": optimizer, "ema": averaged(of)}
            run = colabkit.Run(tmp_path / f"{at}", objects=objects, progress=False)
            assert ("AveragedModel(model.module)" in str(run.verdict)) is is_named
            assert str(run.verdict).startswith("Resume is exact")

    came_through(work, 2, tmp_path)


def test_an_interrupt_of_one_process_saves_and_ends_all(undisturbed, tmp_path):
    def at_step(_: Any, now: int) -> None:
        if now == 4 and rank() == 1:
            signal.raise_signal(signal.SIGINT)

    def work(_: int) -> None:
        with pytest.raises(KeyboardInterrupt):
            train(tmp_path, at_step=at_step)

    came_through(work, 2, tmp_path)
    assert 4 <= colabkit.checkpoints(tmp_path / "run", verify=True)[0].step < 18
    came_through(lambda _: train(tmp_path), 2, tmp_path)
    assert result(tmp_path) == undisturbed(2)


def test_process_0_decides_when_the_training_stops(tmp_path):
    def work(_: int) -> None:
        def at_step(run: Any, now: int) -> None:
            if rank() == (0 if now == 6 else 1):
                run.stop("enough")

        run = train(tmp_path, at_step=at_step)
        assert run.epoch == 1

    came_through(work, 2, tmp_path)


def test_gradients_that_wait_in_each_process_are_not_saved(undisturbed, tmp_path):
    """Of what each has gathered, a checkpoint would hold what process 0 has."""

    def work(_: int, *, is_killed: bool) -> None:
        wrapped = DistributedDataParallel(network())
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
        run = colabkit.Run(
            tmp_path / "run", model=wrapped, optimizer=optimizer, progress=False, save_every=1
        )
        for _epoch in run.epochs(1):
            for x, y in run.batches(shared_out()):
                ends = run.batch % 3 == 2
                with wrapped.no_sync() if not ends else torch.enable_grad():
                    functional.cross_entropy(wrapped(x), y).backward()
                if ends:
                    optimizer.step()
                    optimizer.zero_grad()
                run.flush()
                if is_killed and run.batch == 4:
                    kill_self()
        if rank() == 0:
            outcome(tmp_path / "run", run.history, tmp_path / "outcome")

    together(lambda each: work(each, is_killed=True), 2, tmp_path)
    assert [i.step for i in colabkit.checkpoints(tmp_path / "run", verify=True)] == [3, 0]
    came_through(lambda each: work(each, is_killed=False), 2, tmp_path)
    disturbed = result(tmp_path)
    shutil.rmtree(tmp_path / "run")
    came_through(lambda each: work(each, is_killed=False), 2, tmp_path)
    assert disturbed == result(tmp_path)


def test_what_would_train_each_process_for_itself_is_an_error_that_shows_the_line(tmp_path):
    def loop(data: Any, **objects: Any) -> None:
        objects = objects or {"model": DistributedDataParallel(network())}
        run = colabkit.Run(tmp_path / "run", progress=False, **objects)
        for _ in run.epochs(1):
            for _batch in run.batches(data):
                pass

    short = torch_data.Subset(Augmented(), range(8))
    cases: list[tuple[str, Callable[[int], None]]] = [
        (
            "model = torch.nn.parallel.DistributedDataParallel",
            lambda _: loop(shared_out(), model=network()),
        ),
        (
            "pass the wrapper and not its .module",
            lambda _: loop(shared_out(), model=DistributedDataParallel(network()).module),
        ),
        (
            "model trains in several processes",
            lambda _: loop(
                shared_out(),
                model=nn.Sequential(DistributedDataParallel(network()), nn.Linear(3, 3)),
            ),
        ),
        ("sampler=DistributedSampler", lambda _: loop(arrays())),
        ("sampler=DistributedSampler", lambda _: loop(torch_data.DataLoader(Augmented()))),
        ("read as a stream", lambda _: loop(torch_data.DataLoader(Stream(), batch_size=4))),
        ("batches in a pass", lambda each: loop(shared_out() if each else short)),
    ]

    def work(each: int) -> None:
        for words, call in cases:
            with pytest.raises(ArgumentError, match=words):
                call(each)
            dist.barrier()
            world_anew()

    came_through(work, 2, tmp_path)


def test_samples_that_are_drawn_with_replacement_are_others_in_each_process(tmp_path):
    """By their weights, say, for which PyTorch has no sampler that shares them out."""

    def work(each: int) -> None:
        rows = torch_data.TensorDataset(torch.arange(40.0)[:, None])
        sampler = torch_data.WeightedRandomSampler(list(range(1, 41)), 24)
        loader: Any = torch_data.DataLoader(rows, batch_size=4, sampler=sampler)
        model: Any = DistributedDataParallel(nn.Linear(1, 1))
        run = colabkit.Run(tmp_path / "run", model=model, progress=False)
        drawn = [row for _ in run.epochs(2) for (x,) in run.batches(loader) for row in x.tolist()]
        (tmp_path / f"drawn-{each}").write_text(f"{drawn[:24]}\n{drawn[24:]}")

    came_through(work, 2, tmp_path)
    passes = [(tmp_path / f"drawn-{each}").read_text().split("\n") for each in (0, 1)]
    assert len({*passes[0], *passes[1]}) == 4


def world_anew() -> None:
    from colabkit.frameworks.torch import world  # a test's process goes on where a job would end

    world._joined.clear()


def test_a_loop_for_one_process_alone_is_an_error_in_both(tmp_path):
    def loop(each: int) -> None:
        wrapped = DistributedDataParallel(network())
        run = colabkit.Run(tmp_path / "run", model=wrapped, progress=False)
        for _ in run.epochs(1):
            for _batch in run.batches(shared_out()):
                pass
            for _batch in run.batches(arrays()) if each == 0 else ():
                pass

    def work(each: int) -> None:
        with pytest.raises(ProcessesApartError, match="Process 0 has come to a pass over data"):
            loop(each)

    came_through(work, 2, tmp_path)


@pytest.mark.parametrize("save_every", [1, 7, None], ids=["step", "evaluation", "end of an epoch"])
def test_a_copy_that_comes_apart_is_an_error_before_it_is_saved(save_every, tmp_path):
    def work(_: int) -> None:
        def at_step(run: Any, now: int) -> None:
            if now == 3 and rank() == 1:
                run._adapter._given["model"].module[0].bias.data[0] += 1e-3

        with pytest.raises(ColabKitError, match="no longer those in process 0"):
            train(tmp_path, at_step=at_step, save_every=save_every)

    came_through(work, 2, tmp_path)
    assert colabkit.checkpoints(tmp_path / "run", verify=True)[0].step <= 2


def test_what_a_loop_sets_on_the_model_within_its_wrapper_goes_on(tmp_path):
    def trained(folder: Path, **options: Any) -> tuple[list[torch.Tensor], str]:
        model: Any = network(dropout=0.0)
        model.anchor = None
        wrapped = DistributedDataParallel(model)
        optimizer = torch.optim.SGD(wrapped.parameters(), lr=0.1)
        run = colabkit.Run(
            folder, model=wrapped, optimizer=optimizer, progress=False, save_every=None, **options
        )
        for _ in run.epochs(2):
            for x, y in run.batches(shared_out()):
                loss = functional.cross_entropy(wrapped(x), y)
                if model.anchor is not None:
                    loss = loss + (model[0].bias - model.anchor).square().sum()
                elif run.step == 3:
                    model.anchor = model[0].bias.detach().clone()
                optimizer.zero_grad()
                loss.backward()
                optimizer.step()
        return [each.detach() for each in model.parameters()], str(run.history.verdict)

    def work(_: int) -> None:
        alone, _verdict = trained(tmp_path / "alone")
        trained(tmp_path / "run", max_steps=6)
        again, verdict = trained(tmp_path / "run")
        assert all(map(torch.equal, again, alone))
        assert verdict.startswith("Resume is exact")

    came_through(work, 2, tmp_path)


def test_the_arguments_of_run_are_shown_by_name():
    shown = inspect.signature(colabkit.Run).parameters
    assert {"ckpt_dir", "seed", "save_every", "resume", "max_time"} < set(shown)


def test_each_process_draws_for_itself_in_a_pass_and_as_all_between(tmp_path):
    def work(each: int) -> None:
        within: list[float] = []
        train(tmp_path, at_step=lambda *_: within.append(float(torch.rand(()))))
        drawn = [*within, float(torch.rand(()))]
        (tmp_path / f"drawn-{each}").write_text(" ".join(map(str, drawn)))

    came_through(work, 2, tmp_path)
    one, other = ((tmp_path / f"drawn-{each}").read_text().split() for each in (0, 1))
    assert not set(one[:-1]) & set(other[:-1])
    assert one[-1] == other[-1]
