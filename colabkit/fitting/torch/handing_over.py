"""Objects of a notebook's cells, handed to other processes: one file, which all of them map.

Classes and functions of cells go by value (cloudpickle). Large arrays and tensors lie in the file
as they are, so that several processes share one copy of them in memory until one writes to its
own.
"""

from __future__ import annotations

import contextlib
import io
import mmap
import pickle
import random
import tempfile
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np
import torch

# What is smaller is copied rather than mapped: a weight may have to be resized, a page may not.
_LARGE_BYTES = 1 << 20
# As PyTorch aligns memory of its own.
_ALIGNED_TO = 64


class NotHandedOverError(Exception):
    """Something cannot be handed to another process; the text says what, in one sentence."""


class Package(NamedTuple):
    """Objects in a file.

    Attributes:
        file: Number of the open file.
        offset: Where in it is written where the rest lies.
    """

    file: int
    offset: int


@contextlib.contextmanager
def packed(objects: Any) -> Iterator[Package]:
    """Yields objects as processes that are started meanwhile can take them.

    Raises:
        NotHandedOverError: They cannot be taken apart, cloudpickle is missing, or the disk is full.
    """
    with contextlib.ExitStack() as opened:
        try:
            file = opened.enter_context(
                tempfile.TemporaryFile(prefix="colabkit-", buffering=1 << 20)
            )
            offset = _write(objects, file)
            file.flush()
        except OSError as error:
            message = f"what was passed cannot be written to this machine's disk ({error})"
            raise NotHandedOverError(message) from error
        yield Package(file.fileno(), offset)


def unpacked(package: Package) -> Any:
    """Returns the objects, made again in this process; what is large stays in the file.

    Raises:
        Exception: Whatever an object's own way to be made raises.
    """
    # Each process has its own view: the place in an open file would be one for all.
    mapped = memoryview(mmap.mmap(package.file, 0, access=mmap.ACCESS_COPY))
    places: list[tuple[int, int]] = pickle.loads(mapped[package.offset :])  # noqa: S301  # our own
    main, *buffers = [mapped[begin : begin + size] for begin, size in places]
    return pickle.loads(main, buffers=buffers)  # noqa: S301  # our own


def _write(objects: Any, file: Any) -> int:
    places: list[tuple[int, int]] = []

    def lay(content: Any) -> None:
        file.write(bytes(-file.tell() % _ALIGNED_TO))
        places.append((file.tell(), len(content)))
        file.write(content)

    def is_small(buffer: pickle.PickleBuffer) -> bool:
        with buffer.raw() as raw:
            if raw.nbytes < _LARGE_BYTES:
                return True
            lay(raw)
        return False

    main = io.BytesIO()
    pickler = _pickler_type()(main, protocol=5, buffer_callback=is_small)
    try:
        pickler.dump(objects)
    except NotHandedOverError:
        raise
    except OSError as error:
        if error.errno is not None:
            raise
        raise _cannot(error) from error
    except Exception as error:  # whatever an object's own pickling raises
        raise _cannot(error) from error
    lay(main.getbuffer())
    offset = int(file.tell())
    file.write(pickle.dumps([places[-1], *places[:-1]]))
    return offset


def _cannot(error: Exception) -> NotHandedOverError:
    what = str(error).strip().splitlines() or [type(error).__name__]
    return NotHandedOverError(
        f"what was passed cannot be handed to another process ({type(error).__name__}: {what[0]})"
    )


def _pickler_type() -> Any:
    try:
        import cloudpickle  # imported on use
    except ModuleNotFoundError as error:
        message = (
            "objects of a notebook go to another process by cloudpickle, which is missing"
            " (pip install cloudpickle)"
        )
        raise NotHandedOverError(message) from error

    class Pickler(cloudpickle.CloudPickler):  # type: ignore[misc]  # it has no types
        """Leaves large memory to the file, and refuses what would be left behind."""

        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self._memories: dict[int, _Memory] = {}

        def reducer_override(self, value: Any) -> Any:
            if isinstance(value, torch.storage.TypedStorage):
                memory = value._untyped_storage
                if memory.device.type not in {"cpu", "cuda"}:
                    message = f"a tensor is on {memory.device}"
                    raise NotHandedOverError(message)
                # Two tensors may show one memory, and still do so elsewhere.
                held = self._memories.setdefault(memory._cdata, _Memory(memory))
                return _typed, (held, value.dtype)
            _require_no_hooks(value)
            return super().reducer_override(value)

    return Pickler


def _require_no_hooks(value: Any) -> None:
    """Raises NotHandedOverError for what PyTorch leaves behind without a word."""
    if isinstance(value, torch.Tensor):
        kinds = ("_backward_hooks", "_post_accumulate_grad_hooks")
    elif isinstance(value, torch.optim.Optimizer):
        kinds = ("_optimizer_step_pre_hooks", "_optimizer_step_post_hooks")
    else:
        return
    if any(getattr(value, kind, None) for kind in kinds):
        what = "a weight" if isinstance(value, torch.Tensor) else "the optimizer"
        message = f"{what} has hooks, which cannot be handed to another process"
        raise NotHandedOverError(message)


class _Memory:
    """The memory of tensors, to be pickled once."""

    def __init__(self, memory: torch.UntypedStorage) -> None:
        self._memory = memory

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        view = torch.empty(0, dtype=torch.uint8, device=self._memory.device).set_(self._memory)
        seen: Any = view.cpu().numpy()
        content = pickle.PickleBuffer(seen)
        return _memory_of, (content, self._memory.device.type)


def _memory_of(content: Any, device_type: str) -> torch.UntypedStorage:
    if not len(content):
        return torch.empty(0, device=device_type).untyped_storage()
    seen = torch.frombuffer(content, dtype=torch.uint8)
    if device_type == "cuda":
        # What lay on a GPU lies on that of the process that takes it.
        return seen.to(device_type).untyped_storage()
    return (seen if len(content) >= _LARGE_BYTES else seen.clone()).untyped_storage()


def _typed(memory: torch.UntypedStorage, dtype: torch.dtype) -> Any:
    kind: Any = torch.storage.TypedStorage
    return kind(wrap_storage=memory, dtype=dtype, _internal=True)


class Surroundings(NamedTuple):
    """What decides beside its arguments what a training gives, as it is in this process."""

    threads: int
    default_dtype: torch.dtype
    is_deterministic: bool
    warns_only: bool
    flags: tuple[tuple[str, str, Any], ...]
    streams: tuple[Any, Any, torch.Tensor]

    @classmethod
    def here(cls) -> Surroundings:
        """Returns those of this process."""
        return cls(
            threads=torch.get_num_threads(),
            default_dtype=torch.get_default_dtype(),
            is_deterministic=torch.are_deterministic_algorithms_enabled(),
            warns_only=torch.is_deterministic_algorithms_warn_only_enabled(),
            flags=tuple((of, name, getattr(_BACKENDS[of], name)) for of, name in _FLAGS),
            streams=(random.getstate(), np.random.get_state(), torch.get_rng_state()),
        )

    def apply(self) -> None:
        """Makes them those of this process."""
        torch.set_num_threads(self.threads)
        torch.set_default_dtype(self.default_dtype)
        torch.use_deterministic_algorithms(self.is_deterministic, warn_only=self.warns_only)
        for of, name, value in self.flags:
            setattr(_BACKENDS[of], name, value)
        of_python, of_numpy, of_torch = self.streams
        random.setstate(of_python)
        np.random.set_state(of_numpy)
        torch.set_rng_state(of_torch)


_BACKENDS: dict[str, Any] = {
    "cudnn": torch.backends.cudnn,
    "matmul": torch.backends.cuda.matmul,
    "mkldnn": torch.backends.mkldnn,
}
_FLAGS = (
    ("cudnn", "benchmark"),
    ("cudnn", "deterministic"),
    ("cudnn", "allow_tf32"),
    ("matmul", "allow_tf32"),
    ("matmul", "allow_fp16_reduced_precision_reduction"),
    ("matmul", "allow_bf16_reduced_precision_reduction"),
)
