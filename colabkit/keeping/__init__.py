"""keep(): any trainer's folder, whole on a volume, and back on the next machine."""

from colabkit.keeping.calls import carry_all, keep, keep_outputs, kept_folders, mend_kept
from colabkit.keeping.kept import KeepStatus, Kept

__all__ = [
    "KeepStatus",
    "Kept",
    "carry_all",
    "keep",
    "keep_outputs",
    "kept_folders",
    "mend_kept",
]
