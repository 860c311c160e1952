"""Where snapshots are copied to and from, with stand-ins for the devices that are not at hand."""

from __future__ import annotations

import contextlib
from typing import Any, ClassVar

import numpy as np
import pytest
import torch

from colabkit.checkpoint import Section
from colabkit.checkpoint import snapshot as snapshots
from colabkit.frameworks.torch import TorchBackend, randomness
from colabkit.frameworks.torch import backend as backends

CPU, GPU, APPLE = (torch.device(kind) for kind in ("cpu", "cuda", "mps"))


class Stream:
    """Counts what it is asked to wait for."""

    def __init__(self, device: torch.device) -> None:
        self.device, self.waits = device, 0

    def wait_stream(self, other: Any) -> None:
        self.waits += 1


class Event:
    """Knows how it was made, and on which stream it was recorded."""

    made: ClassVar[list[Event]] = []

    def __init__(self, **options: Any) -> None:
        self.options, self.stream, self.waited = options, None, False
        Event.made.append(self)

    def record(self, stream: Stream) -> None:
        self.stream = stream

    def synchronize(self) -> None:
        self.waited = True


class OnGpu:
    """Looks like a tensor on a GPU to the backend, and is one in host memory."""

    is_cuda = True

    def __init__(self, whole: torch.Tensor, number: int) -> None:
        self.whole, self.device = whole, torch.device("cuda", number)
        self.dtype, self.shape = whole.dtype, whole.shape

    def detach(self) -> torch.Tensor:
        return self.whole

    def record_stream(self, stream: Stream) -> None:
        assert stream.device == self.device


@pytest.fixture
def events(monkeypatch: pytest.MonkeyPatch) -> list[Event]:
    Event.made = []
    monkeypatch.setattr(backends, "_new_stream", Stream)
    monkeypatch.setattr(backends, "_new_event", Event)
    monkeypatch.setattr(torch.cuda, "current_stream", lambda device: device)
    monkeypatch.setattr(torch.cuda, "stream", lambda _: contextlib.nullcontext())
    return Event.made


def copied(device: torch.device, tensors: list[Any]) -> tuple[list[np.ndarray], Any]:
    views = [np.zeros(12, np.uint8) for _ in tensors]
    return views, TorchBackend(device).copy(tensors, views)


def test_each_gpu_copies_on_a_stream_of_its_own_and_is_waited_for_asleep(events):
    whole = [torch.full((3,), float(n)) for n in range(4)]
    tensors = [OnGpu(whole[0], 0), whole[1], OnGpu(whole[2], 1), OnGpu(whole[3], 0)]
    views, wait = copied(GPU, tensors)
    assert [event.options for event in events] == [{"blocking": True}] * 2
    assert [event.stream.device.index for event in events] == [0, 1]
    assert not any(event.waited for event in events)
    wait()
    assert all(event.waited for event in events)
    for view, tensor in zip(views, whole, strict=True):
        assert view.tobytes() == tensor.numpy().tobytes()


@pytest.mark.parametrize("device", [CPU, APPLE])
def test_elsewhere_nothing_is_pinned_or_left_to_a_stream(device, events):
    backend = TorchBackend(device)
    assert not backend.overlaps
    assert len(backend.allocate(100)) == 100
    views, wait = copied(device, [torch.ones(3)])
    wait()
    assert views[0].view(np.float32).tolist() == [1, 1, 1]
    assert not events


def test_memory_is_asked_for_in_blocks_and_kept(monkeypatch):
    monkeypatch.setattr(snapshots, "_BLOCK_BYTES", 1 << 10)
    monkeypatch.setattr(snapshots, "_ROOM_BYTES", 64)
    asked: list[int] = []

    class Asking(TorchBackend):
        def allocate(self, nbytes: int) -> Any:
            asked.append(nbytes)
            return super().allocate(nbytes)

    backend = Asking(CPU)
    buffer, finder = snapshots.StagingBuffer(backend), snapshots.LeafFinder(backend)
    tensors = {f"{n}": torch.rand(size) for n, size in enumerate([100, 100, 100, 1000, 20])}
    for _ in range(2):
        _, leaves = finder.find([Section("model", tensors, weights=True)])
        views = buffer.views(leaves)
    assert asked == [864, 464, 4000, 144]
    assert [len(view) for view in views] == [leaf.spec.nbytes for leaf in leaves]
    for number, view in enumerate(views):
        view[:] = number
    assert [int(view[0]) for view in views] == list(range(5))


def test_the_generators_of_other_accelerators_are_seeded_and_kept(monkeypatch):
    generator = torch.Generator()
    monkeypatch.setattr(randomness, "_MAY_HAVE_OTHERS", True)
    monkeypatch.setattr(randomness, "_others", lambda: (generator,))
    randomness.seed_everything(7)
    assert generator.initial_seed() == 7
    kept = randomness.global_states()
    drawn = torch.rand(3, generator=generator)
    randomness.restore_global_states(kept)
    assert torch.equal(torch.rand(3, generator=generator), drawn)
