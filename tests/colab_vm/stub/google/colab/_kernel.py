"""Colab's own kernel."""

from google.colab import _shell
from ipykernel import ipkernel
from traitlets import Type


class Kernel(ipkernel.IPythonKernel):
    shell_class = Type(_shell.Shell)
