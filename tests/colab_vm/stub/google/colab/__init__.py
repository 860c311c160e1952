"""Stands for google.colab on a machine of the Colab double: same order, texts and exceptions."""

from google.colab import auth, drive, errors, files, output, runtime, userdata

__all__ = ["auth", "drive", "errors", "files", "output", "runtime", "userdata"]
