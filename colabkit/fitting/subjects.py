"""What a name that nobody has listed is about, by its words, and which arguments are there for it.

The first subject that a name tells of counts: ``save_best_weights`` is about checkpoints.
"""

from __future__ import annotations

from typing import NamedTuple

from colabkit.fitting.names_for_keras import COMPILED
from colabkit.other_names import by_name


class _Subject(NamedTuple):
    """What a name may be about.

    Attributes:
        argument: The one that is there for it above all.
        told: What to write.
        words: Those by which a name tells of it.
        of_keras: What to write for a Keras model, where ``compile`` does not decide it and that is
            another thing.
    """

    argument: str
    told: str
    words: str
    of_keras: str = ""


_SUBJECTS = (
    _Subject(
        "callbacks",
        "Write callbacks=[colabkit.EarlyStopping(patience=3)].",
        "early patience stop stopping",
        of_keras="Write callbacks=[keras.callbacks.EarlyStopping(patience=3)].",
    ),
    _Subject(
        "save_every",
        "Leave it out: checkpoints are written by themselves; save_every=, keep= and monitor="
        " say how often, how many, and which is the best.",
        "autosave backup checkpoint checkpoints ckpt recovery save saving snapshot",
    ),
    _Subject(
        "resume",
        "Leave it out: running fit again goes on where it stopped; see resume=.",
        "continue restart restore resume",
    ),
    _Subject(
        "validation_data",
        "Pass validation_data=, and eval_every= to count epochs in between.",
        "eval evaluate evaluation test val valid validate validation",
    ),
    _Subject(
        "logger",
        'Write logger="wandb", "mlflow" or "trackio", or tensorboard=True.',
        "aim clearml comet log logger logging logs mlflow neptune tensorboard trackio wandb",
    ),
    _Subject(
        "precision",
        'Write precision="bf16" or "16-mixed"; without it, what suits the device is taken.',
        "amp autocast bf16 bfloat16 dtype float16 fp16 half precision",
    ),
    _Subject(
        "device",
        'Write device="cuda" or "cpu", or devices=2; without them, the best that works is taken.',
        "cuda device devices gpu gpus mps nodes parallel",
    ),
    _Subject(
        "scheduler",
        'Write lr=, warmup= and scheduler="cosine", or for any other schedule a function of '
        "the optimizer: scheduler=lambda o: torch.optim.lr_scheduler.StepLR(o, 10).",
        "anneal annealing cooldown cosine decay learning lr rate rates sched schedule "
        "scheduler warmup",
    ),
    _Subject(
        "optimizer",
        'Write optimizer="sgd", or a function of the parameters: optimizer=lambda p: '
        "torch.optim.SGD(p, lr=0.01, momentum=0.9).",
        "adagrad adam adamw lion momentum opt optim optimiser optimizer rmsprop sgd solver",
    ),
    _Subject(
        "clip_grad_norm",
        "Write clip_grad_norm=1.0; accumulate= counts the batches whose gradients make one step.",
        "accumulation clip clipping grad gradient gradients norm",
    ),
    _Subject(
        "metrics",
        'Write metrics=["accuracy"], or functions of (output, target), or torchmetrics\' objects.',
        "accuracy auc f1 metric metrics score scores scoring",
    ),
    _Subject(
        "loss",
        "Write loss=, a name or a function of (output, target).",
        "criterion loss losses",
    ),
    _Subject(
        "callbacks",
        "Write callbacks=[function], called with an event of the name batch_end, epoch_end, "
        "...; or an object with methods on_batch_end, on_epoch_end, ...",
        "callback callbacks hook hooks on",
        of_keras="Write callbacks=[...]: Keras' own, or functions of an event.",
    ),
    _Subject(
        "max_time",
        'Write max_time="11h".',
        "duration hours minutes seconds time timeout",
    ),
    _Subject(
        "data",
        "It belongs to the data: pass (x, y), a Dataset, or a DataLoader, whose sampler, "
        "workers and collate function are kept.",
        "batch batches buffer collate column columns dataloader dataloaders dataset feature "
        "features input inputs iterator label labels loader sampler samples shuffle target "
        "targets workers x y",
        of_keras="It belongs to the data: pass (x, y), a tf.data.Dataset or a"
        " keras.utils.PyDataset.",
    ),
    _Subject(
        "epochs",
        "Write epochs=, which counts those of all calls on the folder.",
        "epoch epochs rounds",
    ),
    _Subject(
        "max_steps",
        "Write max_steps=, batches in all.",
        "iter iteration iterations iters steps",
    ),
    _Subject(
        "model",
        "It belongs to the model: build the model with it, and pass that.",
        "arch architecture backbone bn classes drop dropout embedding head heads hidden layer"
        " layers model module",
    ),
    _Subject(
        "seed",
        "Write seed=, an integer.",
        "random seed",
    ),
    _Subject(
        "progress",
        "Write progress=False for silence; leave it out otherwise.",
        "bar print progress rich summary tqdm verbose",
    ),
)
OF_MODULES = by_name({each.told: each.words for each in _SUBJECTS})
OF_KERAS_MODELS = by_name(
    {each.of_keras or COMPILED.get(each.argument, each.told): each.words for each in _SUBJECTS}
)
