"""fit: one call that trains any model, and goes on where it stopped."""

from __future__ import annotations

import functools
import inspect
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from colabkit.errors import ArgumentError
from colabkit.fitting.messages import sender, telling
from colabkit.fitting.names_for_keras import COMPILED
from colabkit.fitting.other_names import OF_DATA, compiled_error, unknown_argument
from colabkit.frameworks.detect import KERAS, framework_of, no_framework_error
from colabkit.frameworks.processes import require_one_process
from colabkit.notebook import stop_with_cell
from colabkit.other_names import answering
from colabkit.runs.checks import require_folder
from colabkit.runs.history import History
from colabkit.runs.news import News

_OF_KERAS = frozenset(
    {
        "class_weight",
        "sample_weight",
        "shuffle",
        "initial_epoch",
        "steps_per_epoch",
        "validation_batch_size",
        "validation_freq",
        "validation_split",
        "validation_steps",
        "verbose",
    }
)


@answering(OF_DATA, takes_more=True, usage="fit(model, (x, y), ckpt_dir, epochs=3)")
def fit(
    model: Any,
    data: Any,
    ckpt_dir: str | Path,
    *,
    epochs: int = 1,
    batch_size: int = 32,
    validation_data: Any = None,
    eval_every: int = 1,
    loss: Any = None,
    optimizer: Any = None,
    lr: float | None = None,
    weight_decay: float | None = None,
    scheduler: Any = None,
    warmup: float | None = None,
    metrics: Any = None,
    callbacks: Sequence[Any] | None = (),
    precision: Any = "auto",
    microbatch: int | str | None = None,
    accumulate: int = 1,
    clip_grad_norm: float | None = None,
    device: Any = None,
    devices: int | str | None = None,
    seed: int | None = None,
    save_every: str | int | None = "auto",
    keep: int = 2,
    monitor: str | None = None,
    resume: bool | str | int = True,
    data_changed: str = "error",
    progress: bool = True,
    tensorboard: bool = False,
    logger: Any = None,
    release_when_done: bool = False,
    max_steps: int | None = None,
    max_time: str | float | None = None,
    phase: str | None = None,
    save_base: bool = False,
    notify: Any = None,
    **keras_arguments: Any,
) -> History:
    """Trains a model; run again after a disconnect, it goes on at the very batch.

    Args:
        model: Any ``torch.nn.Module``, moved to the device in place; or a compiled
            ``keras.Model``, whose own ``fit`` then trains it.
        data: ``(x, y)`` arrays [N, ...]; a Dataset; a DataLoader; any iterable of batches;
            or a function that returns one. A batch is a tuple (inputs..., target), or a
            dict that the model is called with by names. For Keras also x alone,
            ``(x, y, sample_weight)``, a ``tf.data.Dataset`` or a ``PyDataset``.
        ckpt_dir: The run folder, on Drive or any disk, or a URL such as "gs://bucket/run";
            made when missing.
        epochs: Passes over the data in all, those of earlier sessions included.
        batch_size: Samples in a batch, for arrays and Datasets; in several processes those of all
            together.
        validation_data: The same kinds as ``data``; evaluated after each epoch.
        eval_every: Epochs from one evaluation to the next.
        loss: A function of (output, target), a name such as "cross_entropy", or None to
            take the model's own loss or the one that output and target ask for. A module
            with weights of its own, such as ArcFace's centres, is trained with the model.
        optimizer: An optimizer, a name such as "sgd", or a function of the parameters,
            those of the loss among them. None is AdamW, fused where that runs.
        lr: Learning rate of an optimizer given by name, class or not at all.
        weight_decay: Its weight decay, as PyTorch has it.
        scheduler: A scheduler, "cosine", "linear", "onecycle", or a function of the optimizer.
            It steps per epoch; as a tuple (scheduler, "step") per optimizer step, as "linear",
            "onecycle" and all with a warm-up do. Those by name are as long as ``epochs``. One
            whose ``step`` wants the epoch or a value is given it.
        warmup: Optimizer steps in which the rate rises from 0 to ``lr``; below 1 a share of all.
            Then it follows "linear" or "cosine", or stays.
        metrics: "accuracy" (also of tokens and pixels; ignored targets do not count),
            "mae", "mse", functions of (output, target), objects with
            ``update`` and ``compute``, a list of these, or a dict by names of your own.
        callbacks: Objects with some of the methods of ``colabkit.Callback``, or functions
            of one event. Those with ``state_dict`` are part of the checkpoint. For a Keras
            model also Keras' own callbacks, whose attributes are.
        precision: "auto" (fp32 on a CPU; on a GPU bf16, or fp16 with a gradient scaler
            where bf16 is not native), "fp32", "bf16" or "fp16"; also "16-mixed" and the like.
        microbatch: "auto" goes on where memory runs out in a step: the step is repeated in
            halves, with the gradient of the whole batch, and so are the steps after it. A
            number: parts of at most so many samples from the start. BatchNorm then sees
            parts. None: each batch in one piece.
        accumulate: Batches whose gradients make one optimizer step.
        clip_grad_norm: Largest norm of all gradients together, or None.
        device: "cuda", "cpu", ...; None takes the best that works.
        devices: How many GPUs of this machine train together, each on a part of every batch;
            "auto" takes all that are alike on Kaggle and Colab, unless a look before the first step
            finds that one is as fast, and one elsewhere. None: one. On
            a CPU, so many processes. What cannot be handed to another process is trained on one,
            and a sentence says so.
        seed: Any integer; every random draw of the run follows from it. Default 0.
        save_every: "auto" (as often as costs nothing, at least every 5 minutes), a time
            such as "90s" or "5min", or a number of steps.
        keep: How many of the newest checkpoints to keep; 2 at least.
        monitor: The value whose best epoch is kept too; "val_loss" with validation data.
        resume: True goes on from the newest checkpoint; "best" or a step goes on from that
            one; "weights" takes the weights that fit and starts anew; so does False without
            them. Nothing is ever deleted. What you pass otherwise than then is taken and
            said: learning rate and weight decay, another schedule or length of one, weights of
            classes, settings of layers and of this call, batch size.
        data_changed: "error" stops a resume where the data gives other batches than those the
            run was trained and validated on; "accept" goes on with the data as it is now. For a
            Keras model only the data's length is compared.
        progress: Whether to show progress and say what happens.
        tensorboard: Whether to write event files into the run folder; then
            ``%tensorboard --logdir`` on it shows the curves, on this machine or the next.
        logger: Who else draws the curves: "wandb", "mlflow", "trackio", an object with
            ``log(values, step=...)``, or a list of these. All sessions are one run there, and no
            step is told twice; what a service raises does not stop training.
        release_when_done: Whether to give the machine back once this call has trained the last
            epoch and all is on Drive, so that compute units stop counting. An interrupted or
            failed run keeps the machine.
        max_steps: Batches in all, those of earlier sessions included; then the call returns.
        max_time: Time that this call may train, in seconds or as "90min" or "11h"; then all is
            saved, and it returns. A SIGTERM saves as well, and then ends the process.
        phase: A name for what this call trains, where several calls train on in one folder: with
            other layers frozen, another learning rate, optimizer or loss, or on other data. Each
            such call is a phase, also without a name: it begins with what the model holds, and
            when all cells run again, each goes on where it was, and none is trained twice.
        save_base: Whether frozen quantized weights, and the frozen base under adapters of PEFT,
            are written too. Without, their hashes are noted: where this goes on, the same base
            model must be loaded, and another one is an error.
        notify: Who is told when a call that took half a minute or more has ended or stopped for
            time, any has failed, or Drive is lost or back: a function of one sentence,
            "ntfy://topic", or another URL of Apprise's.
        keras_arguments: For a Keras model only, with the meaning they have in Keras:
            sample_weight, class_weight, shuffle, initial_epoch, steps_per_epoch, validation_split,
            validation_steps, validation_batch_size, validation_freq, verbose.

    Returns:
        The history of all epochs and steps, those before a disconnect included.

    Raises:
        ArgumentError: An argument cannot be used, or a loss cannot be inferred.
        CheckpointMismatchError: The folder's checkpoint is of another model or data.
        DivergedError: The loss became NaN or infinite.
        TrainingMemoryError: With ``microbatch``: one sample, or so many, need too much memory.
        LeaseLostError: Another session has taken the run folder over.
        ProcessLostError: On several devices or in several processes: another one has failed,
            died, or does not answer.
        ReplicasDifferError: In several processes: they hold different weights.
        CheckpointWriteError: The last checkpoint could not be written.
        StorageError: ``ckpt_dir`` is a file, or cannot be written, or is on a Drive that is not
            mounted.
        MissingPackageError: PyTorch is not installed, or a package that the URL or logger needs.

    Example:
        >>> import tempfile, torch, colabkit
        >>> x, y = torch.randn(64, 4), torch.randint(0, 3, (64,))
        >>> folder = tempfile.mkdtemp()
        >>> history = colabkit.fit(torch.nn.Linear(4, 3), (x, y), folder, epochs=2, progress=False)
        >>> len(history.epochs)
        2
    """
    callbacks = () if callbacks is None else callbacks
    arguments = dict(locals())
    require_folder(ckpt_dir)
    stop_with_cell("this call does not begin")
    for name in ("model", "data", "ckpt_dir", "keras_arguments"):
        del arguments[name]
    news = News(sender(arguments.pop("notify")), Path(str(ckpt_dir)).name)
    arguments["news"] = news
    train = functools.partial(_trained, model, data, ckpt_dir, arguments, keras_arguments)
    return telling(news, train, epochs=epochs)


def _trained(
    model: Any,
    data: Any,
    ckpt_dir: str | Path,
    arguments: dict[str, Any],
    keras_arguments: dict[str, Any],
) -> History:
    if framework_of([model]) is KERAS:
        require_one_process("fit of a keras.Model")
        from colabkit.fitting.keras import KerasOptions, fit_keras  # imported on use

        chosen = _for_keras(arguments, keras_arguments)
        return fit_keras(model, data, ckpt_dir, KerasOptions(**chosen))
    if keras_arguments:
        raise _unknown(*next(iter(keras_arguments.items())), model_is_keras=False)
    try:
        import torch  # imported on use

        from colabkit.fitting.torch import fit_with
    except ModuleNotFoundError as error:
        raise no_framework_error() from error
    if not isinstance(model, torch.nn.Module):
        message = f"model is a {type(model).__name__}, not a torch.nn.Module or a keras.Model."
        hint = _module_in_place_of(model)
        if any(hasattr(each, "compile") for each in (data, ckpt_dir)):
            hint = "The model comes first: fit(model, data, ckpt_dir)."
        raise ArgumentError(message, argument="model", hint=hint)
    return fit_with(model, data, ckpt_dir, arguments)


def _module_in_place_of(model: object) -> str:
    """Returns what to pass as the model instead of what is none."""
    if isinstance(model, type) or (inspect.isfunction(model) and model.__name__.isidentifier()):
        return f"Pass {model.__name__}()."
    if isinstance(model, str | Path):
        return "Make the model, load its weights into it, and pass that."
    if isinstance(model, Mapping):
        return "Pass the module that it is of; model.load_state_dict(...) takes weights of a file."
    if isinstance(model, list | tuple):
        return "Pass one module; several are trained in a loop of your own, with colabkit.Run."
    return "Pass a module."


def _for_keras(arguments: dict[str, Any], keras_arguments: dict[str, Any]) -> dict[str, Any]:
    """Returns the arguments a Keras model takes; what ``compile`` decides must be left alone."""
    parameters = inspect.signature(fit).parameters
    for name in COMPILED:
        if arguments.pop(name) is not parameters[name].default:
            raise compiled_error(name)
    if arguments.pop("devices") not in (None, 1, "auto"):
        message = "devices is given, and the model is a keras.Model, which trains on one."
        raise ArgumentError(message, argument="devices", hint="Leave it out.")
    if arguments["batch_size"] is None:
        arguments["batch_size"] = parameters["batch_size"].default
    for name, value in keras_arguments.items():
        if name not in _OF_KERAS:
            raise _unknown(name, value, model_is_keras=True)
    often = arguments.pop("eval_every")
    given = keras_arguments if often == 1 else {"validation_freq": often, **keras_arguments}
    return {**arguments, **given}


def _unknown(name: str, value: Any, *, model_is_keras: bool) -> ArgumentError:
    known = [*inspect.signature(fit).parameters, *(_OF_KERAS if model_is_keras else ())]
    return unknown_argument(name, value, known=known, model_is_keras=model_is_keras)
