"""Colab's own shell; its class tells an interactive notebook from a plain script."""

from ipykernel import zmqshell


class Shell(zmqshell.ZMQInteractiveShell):
    pass
