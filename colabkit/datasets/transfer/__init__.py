"""Transfers: threads that work together, how far they are, and failures that pass."""

from colabkit.datasets.transfer.crew import Crew, CrewStoppedError, Pipe
from colabkit.datasets.transfer.progress import Counter, Progress
from colabkit.datasets.transfer.trouble import URL_PATIENCE_S, Retrier, Retry
from colabkit.datasets.transfer.watch import Phase, Standing, StoppedError, Watch

__all__ = [
    "URL_PATIENCE_S",
    "Counter",
    "Crew",
    "CrewStoppedError",
    "Phase",
    "Pipe",
    "Progress",
    "Retrier",
    "Retry",
    "Standing",
    "StoppedError",
    "Watch",
]
