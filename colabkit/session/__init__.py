"""setup(), mount() and release(): the machine made ready, and given back."""

from colabkit.session.connection import stay_connected
from colabkit.session.drive import mount
from colabkit.session.records import DriveStatus, Session
from colabkit.session.releasing import release
from colabkit.session.setting_up import setup

__all__ = ["DriveStatus", "Session", "mount", "release", "setup", "stay_connected"]
