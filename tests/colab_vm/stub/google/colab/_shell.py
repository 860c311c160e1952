"""Colab's own shell; its class tells an interactive notebook from a plain script."""

import codecs
import os
import pty
import subprocess
import sys

from ipykernel import zmqshell


class Shell(zmqshell.ZMQInteractiveShell):
    def system(self, cmd):
        """Runs ``!cmd`` on a terminal of no width, and prints what it says as it comes."""
        ours, theirs = pty.openpty()
        command = ["/bin/sh", "-c", self.var_expand(cmd, depth=1)]
        with subprocess.Popen(command, stdin=theirs, stdout=theirs, stderr=theirs) as process:
            os.close(theirs)
            decoder = codecs.getincrementaldecoder("utf-8")("replace")
            try:
                while data := _read(ours):
                    sys.stdout.write(decoder.decode(data).replace("\r\n", "\n"))
                    sys.stdout.flush()
            finally:
                os.close(ours)
        self.user_ns["_exit_code"] = process.returncode


def _read(descriptor):
    try:
        return os.read(descriptor, 1 << 16)
    except OSError:  # all who had the other end are gone
        return b""
