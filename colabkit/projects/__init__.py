"""Projects: a folder of code on Drive, run here, its output kept."""

from colabkit.projects.reloading import reload, watch_folder
from colabkit.projects.run_call import run, run_script
from colabkit.projects.running import ScriptRun

__all__ = ["ScriptRun", "reload", "run", "run_script", "watch_folder"]
