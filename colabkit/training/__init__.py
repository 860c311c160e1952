"""The former address of ``fitting`` and ``runs``: what is imported from here is theirs."""

from colabkit.fitting import Callback, EarlyStopping, fit, verify_resume
from colabkit.runs import History, ResumeVerdict, Run, Watched, checkpoints, load

__all__ = [
    "Callback",
    "EarlyStopping",
    "History",
    "ResumeVerdict",
    "Run",
    "Watched",
    "checkpoints",
    "fit",
    "load",
    "verify_resume",
]
