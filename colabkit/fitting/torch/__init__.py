"""``fit`` for PyTorch: the training step, losses, metrics, schedules."""

from colabkit.fitting.torch.fitting import TorchOptions, fit_module, fit_with

__all__ = ["TorchOptions", "fit_module", "fit_with"]
