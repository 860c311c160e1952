"""One virtual machine: a fresh local disk, a kernel, a Drive; it ends without a warning."""

from __future__ import annotations

import contextlib
import json
import shutil
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

import tests
from tests.colab_vm.abilities import missing_ability, namespace_options
from tests.colab_vm.drive import DriveControl
from tests.colab_vm.front_end import FrontEnd
from tests.colab_vm.kernel import CellResult, Kernel
from tests.colab_vm.platforms import Platform, look_of
from tests.colab_vm.rules import DriveRules

_REPOSITORY = Path(tests.__file__).parents[1]
_STUB = _REPOSITORY / "tests/colab_vm/stub"
PYTHONPATH = f"{_STUB}:{_REPOSITORY}"
# Where nobody takes away what is left of ended processes, none is ever gone for good.
_GONE_S = 10
_PATH = "/opt/colab_vm/bin:/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True)
class ScriptResult:
    """What a script on a machine printed and how it ended."""

    stdout: str
    stderr: str
    returncode: int

    def check(self) -> ScriptResult:
        """Returns itself; raises if the script failed."""
        if self.returncode:
            msg = f"the script ended with {self.returncode}: {self.stderr}"
            raise RuntimeError(msg)
        return self


class Machine:
    """A running machine; made by ``Cloud.machine``.

    Attributes:
        platform: The kind of machine.
        drive: How its Drive behaves.
        front_end: Who sits at the browser.
    """

    def __init__(
        self,
        cloud_folder: Path,
        *,
        platform: Platform = Platform.CPU,
        rules: DriveRules | None = None,
        disk_bytes: int | None = None,
        environ: Mapping[str, str | None] | None = None,
        files: Mapping[str, str] | None = None,
        visible: Sequence[str | Path] = (),
    ) -> None:
        reason = missing_ability()
        if reason is not None:
            raise RuntimeError(reason)
        self.platform = Platform(platform)
        look = look_of(self.platform)
        self._workdir = look.workdir
        # Short, because the path of a socket may have no more than 107 bytes.
        self._control = Path(tempfile.mkdtemp(prefix="colab-vm-", dir="/tmp"))
        (self._control / "root").mkdir()
        self._environ = self._make_environ(look.environ, environ or {}, cloud_folder)
        self._kernel: Kernel | None = None
        self._first: psutil.Process | None = None
        self.front_end = FrontEnd(self._control)
        self.drive = DriveControl(self, self._control, rules or DriveRules())
        plan = {
            "root": str(self._control / "root"),
            "disk_bytes": disk_bytes,
            "gpu": self.platform is Platform.GPU,
            "needed": [*map(str, _needed())],
            "visible": [*map(str, (self._control, cloud_folder, *visible))],
            "files": {**look.files, **(files or {})},
            "workdir": look.workdir,
        }
        plan_file = self._control / "plan.json"
        plan_file.write_text(json.dumps(plan))
        builder = [sys.executable, str(Path(__file__).with_name("namespace.py")), str(plan_file)]
        self._init = subprocess.Popen(
            ["unshare", *(namespace_options() or ()), *builder],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
        )
        if self._init.stdout.readline() != b"ready\n":
            problem = self._init.stderr.read().decode()
            self.kill()
            msg = f"the machine did not start: {problem}"
            raise RuntimeError(msg)
        children = Path(f"/proc/{self._init.pid}/task/{self._init.pid}/children").read_text()
        self._first_pid = int(children)
        self._first = psutil.Process(self._first_pid)

    def _make_environ(
        self, look: Mapping[str, str], extra: Mapping[str, str | None], cloud_folder: Path
    ) -> dict[str, str]:
        environ = {
            "HOME": "/root",
            "LANG": "C.UTF-8",
            "PATH": f"{Path(sys.executable).parent}:{_PATH}",
            "PYTHONPATH": PYTHONPATH,
            "PYTHONDONTWRITEBYTECODE": "1",
            # Several machines share one computer: threads that wait by spinning stall each other.
            "OMP_NUM_THREADS": "1",
            "COLAB_VM_CONTROL": str(self._control),
            "COLAB_VM_CLOUD": str(cloud_folder),
            **look,
            **extra,
        }
        return {name: value for name, value in environ.items() if value is not None}

    @property
    def is_alive(self) -> bool:
        return self._init.poll() is None

    def path(self, path: str) -> Path:
        """Returns the host's way to a path of the machine, while the machine is alive."""
        return Path(f"/proc/{self._first_pid}/root") / path.lstrip("/")

    def start(self, command: Sequence[str], **options: object) -> subprocess.Popen:
        """Starts a program on the machine."""
        user = ["--user", "--preserve-credentials"] if "--map-root-user" in self._options else []
        enter = ["nsenter", f"--target={self._first_pid}", *user, "--mount", "--pid", "--root"]
        place = ["sh", "-c", 'cd "$0" && exec "$@"', self._workdir]
        return subprocess.Popen([*enter, *place, *command], env=self._environ, **options)

    @property
    def _options(self) -> tuple[str, ...]:
        return namespace_options() or ()

    def run_script(
        self, source: str | Path, *arguments: str, timeout_s: float = 300
    ) -> ScriptResult:
        """Runs Python source, or a file, as ``!python`` would: with no kernel of its own."""
        what = [str(source)] if isinstance(source, Path) else ["-c", source]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
        with self.start([sys.executable, *what, *arguments], **pipes) as process:
            try:
                stdout, stderr = process.communicate(timeout=timeout_s)
            except subprocess.TimeoutExpired:
                process.kill()
                raise
        return ScriptResult(stdout, stderr, process.returncode)

    @property
    def kernel(self) -> Kernel:
        """The notebook's kernel, started when first asked for."""
        if self._kernel is None:
            has_shell = self.platform.has_colab_shell
            self._kernel = Kernel(
                self._control,
                self.start,
                is_colab=has_shell,
                names=lambda: self.front_end.kind.names_of_a_cell if has_shell else {},
            )
        return self._kernel

    def run_cell(self, code: str, *, timeout_s: float | None = 300) -> CellResult:
        """Runs a cell and returns what it showed; an exception of the cell is in ``.error``."""
        return self.kernel.execute(code, timeout_s=timeout_s)

    def interrupt(self) -> None:
        """Presses the stop button: SIGINT to the kernel."""
        self._signal("INT", self.kernel.pid)

    def _signal(self, name: str, pid: int) -> None:
        # The shell's own kill: the program of that name is not on every machine.
        self.start(["sh", "-c", f"kill -{name} {pid}"]).wait()

    def restart_kernel(self) -> None:
        """Ends the kernel and starts another: the disk and the mount stay."""
        if self._kernel is not None:
            self._signal("KILL", self._kernel.pid)
            self._kernel.close()
            self._kernel = None

    def kill(self) -> None:
        """Ends everything on the machine with SIGKILL; only what the cloud has survives."""
        self.pull_the_plug()
        self._clean_up()

    def pull_the_plug(self) -> None:
        """Kills without waiting; from any thread, while another one waits for a cell."""
        if self._init.poll() is None:
            # The first process is a child that dies with it, and takes its PID namespace along.
            self._init.kill()

    def unassign(self) -> None:
        """Gives the machine back from outside, as its menu does: no flush either."""
        self.kill()

    def wait_until_ended(self, *, timeout_s: float = 300) -> None:
        """Waits for a machine that ends itself with ``runtime.unassign()``."""
        self._init.wait(timeout_s)
        self._clean_up()

    def wait_until_gone(self) -> None:
        """Waits for each process of a machine that ended: until then one may write to the cloud."""
        self._init.wait()
        end = time.monotonic() + _GONE_S
        # The first one is over when all others are.
        with contextlib.suppress(psutil.NoSuchProcess):
            while self._first is not None and self._first.status() != psutil.STATUS_ZOMBIE:
                if not self._first.is_running() or time.monotonic() > end:
                    break
                time.sleep(0.002)
        self._first = None

    def _clean_up(self) -> None:
        self._init.stdin.close()
        if self._kernel is not None:
            self._kernel.close()
            self._kernel = None
        self.wait_until_gone()
        self._init.stdout.close()
        self._init.stderr.close()
        shutil.rmtree(self._control, ignore_errors=True)

    def __enter__(self) -> Machine:
        return self

    def __exit__(self, *exception: object) -> None:
        self.kill()


def _needed() -> list[Path]:
    """Returns the host's folders that Python and this repository live in."""
    executable = Path(sys.executable)
    places = {_REPOSITORY, Path(sys.prefix), Path(sys.base_prefix), executable.resolve().parents[1]}
    places |= {Path(entry).resolve() for entry in sys.path if entry and Path(entry).is_dir()}
    shared = [Path("/", name) for name in ("usr", "etc", "bin", "lib", "lib64", "sbin", "nix")]
    outside = [p for p in places if not any(p.is_relative_to(s) for s in shared)]
    # A folder that another one contains needs no mount of its own.
    return sorted(p for p in outside if not any(q != p and p.is_relative_to(q) for q in outside))
