"""Projects: a folder of code on Drive, run here, its output brought back."""

from colabkit.projects.mirror import Mirror
from colabkit.projects.reloading import reload, watch_folder
from colabkit.projects.run_call import ScriptRun, run_script

__all__ = ["Mirror", "ScriptRun", "reload", "run_script", "watch_folder"]
