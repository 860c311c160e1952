"""``fit`` for PyTorch: the training step, losses, metrics, schedules."""

from colabkit.fitting.torch.fitting import fit_module, fit_with
from colabkit.fitting.torch.options import TorchOptions

__all__ = ["TorchOptions", "fit_module", "fit_with"]
