"""How many devices of this machine a call of ``fit`` trains on, and training on several."""

from __future__ import annotations

import dataclasses
import os
import time
from collections.abc import Callable, Sequence
from typing import Any

import torch
import torch.distributed as dist

from colabkit.errors import ArgumentError
from colabkit.fitting.torch.handing_over import NotHandedOverError
from colabkit.fitting.torch.helpers import helped
from colabkit.fitting.torch.weighing import Clock, OneDeviceError
from colabkit.frameworks.processes import process_count
from colabkit.frameworks.torch.device import choose_device
from colabkit.runs.history import History
from colabkit.runs.news import News
from colabkit.runtime import Platform, detect_platform

_AUTO = "auto"
Train = Callable[..., History]


@dataclasses.dataclass(frozen=True, slots=True)
class Devices:
    """How many devices a call trains on.

    Attributes:
        count: How many.
        why: Why it is but one, where more were asked for.
    """

    count: int
    why: str = ""


def automatic(platform: Platform, gpus: Sequence[str]) -> Devices:
    """Returns how many devices ``devices="auto"`` takes.

    Args:
        platform: The kind of machine.
        gpus: What tells the GPUs apart that PyTorch sees: name and memory.

    Example:
        >>> automatic(Platform.KAGGLE, ["Tesla T4, 15 GB", "Tesla T4, 15 GB"]).count
        2
        >>> automatic(Platform.OTHER, ["A100, 80 GB"] * 8).why
        'on a machine that may be shared all GPUs are taken where devices=8 says so'
    """
    if len(gpus) < 2:
        return Devices(1, f"there {'is 1 GPU' if gpus else 'is no GPU'} here")
    if not platform.is_hosted:
        why = f"on a machine that may be shared all GPUs are taken where devices={len(gpus)} says"
        return Devices(1, f"{why} so")
    if len({*gpus}) > 1:
        return Devices(1, f"the GPUs here are not alike ({'; '.join(gpus)})")
    return Devices(len(gpus))


def choose_devices(asked: Any, device: torch.device | None) -> Devices:
    """Returns how many devices of this machine are to be trained on.

    Args:
        asked: What ``devices`` is.
        device: The device that was chosen; None where ``devices`` asks for nothing.

    Raises:
        ArgumentError: ``devices`` is no number, or there are not so many.
    """
    is_number = isinstance(asked, int) and not isinstance(asked, bool) and asked > 0
    if not (asked is None or is_number or (isinstance(asked, str) and asked == _AUTO)):
        raise ArgumentError.of("devices", asked, 'Pass "auto" or a number from 1 on.')
    started = process_count()
    if started > 1 and is_number and asked != started:
        message = f"devices is {asked}, and {started} processes were started together."
        hint = "Leave it out: where torchrun starts the processes, it says how many."
        raise ArgumentError(message, argument="devices", hint=hint)
    if started > 1 or asked in (None, 1) or device is None:
        return Devices(1)
    gpus = _gpus() if device.type == "cuda" else []
    if asked == _AUTO:
        return automatic(detect_platform(), gpus)
    if device.type not in {"cpu", "cuda"}:
        message = f"devices is {asked}, and training runs on {device.type}, which is one device."
        raise ArgumentError(message, argument="devices", hint="Leave devices out.")
    if gpus and asked > len(gpus):
        message = f"devices is {asked}, and PyTorch sees {len(gpus)} GPU(s)."
        hint = f"Pass devices={len(gpus)}, or device='cpu'."
        raise ArgumentError(message, argument="devices", hint=hint)
    return Devices(asked)


def _gpus() -> list[str]:
    found = map(torch.cuda.get_device_properties, range(torch.cuda.device_count()))
    return [f"{each.name}, {each.total_memory / 2**30:.1f} GB" for each in found]


def fit_on_devices(
    model: Any,
    data: Any,
    ckpt_dir: Any,
    options: Any,
    *,
    train: Train,
    say: Callable[[str], object],
    choose: Callable[[Any, torch.device | None], Devices] = choose_devices,
    clock: Clock = time.perf_counter,
) -> History:
    """Trains on the devices that ``options`` asks for, on one where there are no more to be had.

    Args:
        model: The model.
        data: The data.
        ckpt_dir: The run folder.
        options: The other arguments of ``fit``.
        train: Trains in this process, which may be one of several.
        say: Says a sentence.
        choose: Decides how many there are, of what was asked for and the device.
        clock: Seconds that only grow, by which "auto" finds whether several devices pay.

    Raises:
        ArgumentError: ``devices`` cannot be used, or several devices cannot train this.
        ProcessLostError: One of the processes has failed or died.
    """
    asked = options.devices
    device = None if asked in (None, 1) or process_count() > 1 else choose_device(options.device)
    chosen = choose(asked, device)
    if device is not None and chosen.count > 1:
        if device.type == "cuda" and torch.device(options.device or "cuda").index is not None:
            message = f"device is {options.device}, one GPU, and devices is {asked}."
            raise ArgumentError(message, argument="device", hint="Pass device='cuda'.")
        weighs_by = clock if asked == _AUTO else None
        several = dataclasses.replace(options, weighs_by=weighs_by)
        try:
            return _fit_on_several(
                chosen.count, device.type, (model, data, ckpt_dir, several), train
            )
        except NotHandedOverError as error:
            chosen = Devices(1, str(error))
        except OneDeviceError as error:
            chosen = Devices(1, str(error))
            options = dataclasses.replace(options, stays_on_one=True)
        except ArgumentError as error:
            if asked != _AUTO:
                raise
            chosen = Devices(1, error.message.rstrip("."))
    if chosen.why:
        say(f"Trains on one device: {chosen.why}.")
    return train(model, data, ckpt_dir, options)


def _fit_on_several(
    count: int, device_type: str, arguments: tuple[Any, Any, Any, Any], train: Train
) -> History:
    _require_ability()
    *objects, ckpt_dir, options = arguments
    here = dataclasses.replace(options, devices=None, device=device_type)
    # Number 0 alone shows, logs and publishes.
    there = dataclasses.replace(
        here,
        progress=False,
        tensorboard=False,
        logger=None,
        release_when_done=False,
        news=News(),
    )
    backend = "nccl" if device_type == "cuda" else "gloo"
    with helped(count, (*objects, str(ckpt_dir), there), backend=backend):
        return train(*objects, ckpt_dir, here)


def _require_ability() -> None:
    """Raises NotHandedOverError where no process could be started or met."""
    why = ""
    if not dist.is_available() or os.name != "posix":
        why = "PyTorch cannot train in several processes here"
    elif dist.is_initialized():
        why = "this process is in a process group of its own already"
    if why:
        raise NotHandedOverError(why)
