"""keep(): any trainer's folder, whole on a volume, and back on the next machine."""

from colabkit.keeping.kept import KeepStatus, Kept, flush_kept, keep, kept_folders, mend_kept

__all__ = ["KeepStatus", "Kept", "flush_kept", "keep", "kept_folders", "mend_kept"]
