"""Which machine this is and what it has."""

from colabkit.runtime.platform import Platform, detect_platform

__all__ = ["Platform", "detect_platform"]
