"""Projects: a folder of code on Drive, run here, its output brought back."""
