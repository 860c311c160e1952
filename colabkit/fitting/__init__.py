"""``fit``: a whole training in one call, its callbacks, and the proof that it goes on exactly.

Names are loaded when they are first used, so that importing colabkit stays quick.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from colabkit.doors import opened_on_use

if TYPE_CHECKING:
    from colabkit.fitting.callbacks import Callback, EarlyStopping
    from colabkit.fitting.fit_call import fit
    from colabkit.fitting.resume_proof import verify_resume

__all__ = ["Callback", "EarlyStopping", "fit", "verify_resume"]

__getattr__, __dir__ = opened_on_use(
    __name__,
    {
        "callbacks": "Callback EarlyStopping",
        "fit_call": "fit",
        "resume_proof": "verify_resume",
    },
)
