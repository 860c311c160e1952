"""Looking into a run folder: its checkpoints, and their weights into a model."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from colabkit.checkpoint import CheckpointInfo, CheckpointList, RunFolder
from colabkit.errors import ArgumentError, CheckpointNotFoundError
from colabkit.frameworks.detect import adapter_for
from colabkit.frameworks.differences import differences
from colabkit.other_names import answering
from colabkit.runs.checks import require_folder
from colabkit.runs.fingerprint import mismatch_error
from colabkit.runs.handover import note_loaded
from colabkit.runs.other_names import OF_CHECKPOINTS, OF_LOAD
from colabkit.storage import locate, url_of, volume_at


@answering(OF_CHECKPOINTS)
def checkpoints(ckpt_dir: str | Path, *, verify: bool = False) -> CheckpointList:
    """Returns the checkpoints in a run folder, newest first; writes nothing there.

    Args:
        ckpt_dir: The folder given to ``fit`` or ``Run``.
        verify: Whether to read every byte; ``problem`` then says what is damaged.

    Returns:
        A list of ``CheckpointInfo``; a notebook shows it as a table.

    Raises:
        CheckpointNotFoundError: There is no such folder.

    Example:
        >>> import tempfile, colabkit
        >>> colabkit.checkpoints(tempfile.mkdtemp())
        <no checkpoints>
    """
    store = RunFolder(_existing(ckpt_dir)).store
    found = CheckpointList(store.infos())
    if not verify:
        return found
    checked = [
        dataclasses.replace(info, problem=info.problem or store.verify(info.name)) for info in found
    ]
    return CheckpointList(checked, is_verified=True)


@answering(OF_LOAD)
def load(model: Any, ckpt_dir: str | Path, which: str | int = "latest") -> CheckpointInfo:
    """Copies the weights of a checkpoint into a model, verified byte by byte.

    Args:
        model: The module or ``keras.Model`` the run trained, on any device.
        ckpt_dir: The folder given to ``fit`` or ``Run``.
        which: "latest", "best", or a step.

    Returns:
        The checkpoint that was loaded.

    Raises:
        ArgumentError: The model is none, the run knows none by the name ``model``, or ``which``
            cannot be used.
        CheckpointNotFoundError: There is no such checkpoint; the message lists those there.
        CheckpointMismatchError: The weights are of another model.

    Example:
        >>> import tempfile, torch, colabkit
        >>> model, folder = torch.nn.Linear(4, 3), tempfile.mkdtemp()
        >>> data = (torch.randn(64, 4), torch.randint(0, 3, (64,)))
        >>> history = colabkit.fit(model, data, folder, progress=False)
        >>> colabkit.load(torch.nn.Linear(4, 3), folder).step
        2
    """
    folder = RunFolder(_existing(ckpt_dir))
    there = folder.store.infos()
    adapter = adapter_for({"model": model})
    if which == "latest":
        loaded = folder.newest_valid(adapter.backend)
        if loaded is None:
            raise _none_found(there, ckpt_dir, which)
    else:
        loaded = folder.load(chosen(there, ckpt_dir, which), adapter.backend)
    names = [name for name in loaded.fingerprint["objects"] if name.startswith("model.")]
    if not names:
        raise _no_model_error(loaded.fingerprint["objects"], ckpt_dir)
    then = {name: loaded.fingerprint["objects"][name] for name in names}
    now = {n: v for n, v in adapter.fingerprint().items() if n.startswith("model.")}
    if changed := differences({"objects": then}, {"objects": now}):
        hint = "Build the model as it was when this run trained it, and load into that."
        raise mismatch_error(changed, str(ckpt_dir), hint=hint)
    if changed := adapter.changed_base(loaded.sections):
        hint = "Load the base model that this run was trained on, and load into that."
        raise mismatch_error(changed, str(ckpt_dir), hint=hint)
    adapter.restore_weights(loaded.sections)
    note_loaded(folder.location, model)
    return loaded.info


def _no_model_error(objects: Iterable[str], ckpt_dir: str | Path) -> ArgumentError:
    held = dict.fromkeys(name.partition(".")[0] for name in objects if "." in name)
    message = f"The run in {ckpt_dir} holds no object called model; it holds {', '.join(held)}."
    hint = (
        "Open the file of the one you want with safetensors:"
        " colabkit.checkpoints(folder)[0].weights_files names them."
    )
    return ArgumentError(message, argument="model", hint=hint)


def _existing(ckpt_dir: str | Path) -> str | Path:
    require_folder(ckpt_dir)
    url = url_of(ckpt_dir)
    if url is not None:
        volume = volume_at(url)
        if not volume.list(".") and not volume.list("checkpoints"):
            message = f"There is no run folder {url}."
            raise CheckpointNotFoundError(message, path=url, hint="Check the URL.")
        return url
    path = locate(ckpt_dir)
    volume_at(path)
    if not path.is_dir():
        where = path if path.is_absolute() else f"{path} ({path.absolute()})"
        message = f"There is no run folder {where}."
        hint = "Check the path."
        raise CheckpointNotFoundError(message, path=path, hint=hint)
    return path


def chosen(found: list[CheckpointInfo], ckpt_dir: str | Path, which: str | int) -> CheckpointInfo:
    """Returns the newest checkpoint that is the best, or of a step.

    Raises:
        ArgumentError: ``which`` is neither "best" nor a step.
        CheckpointNotFoundError: There is none.
    """
    if which != "best" and not isinstance(which, int):
        raise ArgumentError.of("which", which, 'Pass "latest", "best" or a step.')
    for info in found:
        if not info.problem and (info.is_best if which == "best" else info.step == which):
            return info
    raise _none_found(found, ckpt_dir, which)


def _none_found(
    found: list[CheckpointInfo], ckpt_dir: str | Path, which: str | int
) -> CheckpointNotFoundError:
    steps = ", ".join(str(info.step) for info in found if not info.problem) or "none"
    message = f"No checkpoint {which!r} in {ckpt_dir}; whole ones are at steps: {steps}."
    hint = "The best is kept when fit has validation_data or monitor=."
    return CheckpointNotFoundError(message, path=ckpt_dir, hint=hint if which == "best" else "")
