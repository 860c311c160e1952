"""Mounting Drive: the steps of the real one in their order, with its texts and exceptions."""

import contextlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import time

import pexpect
from google.colab import _machine, _message, output

_UNSUPPORTED = (
    "Mounting drive is unsupported in this environment. Use PyDrive2 instead. See examples at "
    "https://colab.research.google.com/notebooks/io.ipynb#scrollTo=7taylj9wpsA2."
)
_ENTERPRISE = "google.colab.drive.mount is not supported in Colab Enterprise."
_ROOT_TIMEOUT = (
    "mount failed: timeout during initial read of root folder; for more info: "
    "https://research.google.com/colaboratory/faq.html#drive-timeout"
)
_POLICY = (
    "The domain policy has disabled Drive File Stream: https://support.google.com/a/answer/7496409"
)
_PATTERNS = (
    "google.colab.drive MOUNTED",
    "root@m-s-double-0123456789abcdef: ",
    "Drive File Stream encountered a problem and has stopped",
    "drive EXITED",
    "The domain policy has disabled Drive File Stream",
)
# How much longer than its time-out the real one waits for a sign of the program.
_MORE_S = 30
_START_S = 300
_CACHE = "/root/.config/Google/DriveFS"


def mount(mountpoint, force_remount=False, timeout_ms=120000, readonly=False):
    """Mounts Drive. Everything the real one does before it validates is done before here too."""
    if not os.path.exists("/var/colab/hostname"):
        raise NotImplementedError(_UNSUPPORTED)
    if " " in mountpoint:
        raise ValueError("Mountpoint must not contain a space.")
    if os.environ.get("VERTEX_PRODUCT") == "COLAB_ENTERPRISE":
        raise NotImplementedError(_ENTERPRISE)
    os.environ["TBE_EPHEM_CREDS_ADDR"]
    _message.blocking_request(
        "request_auth",
        request={"authType": "dfs_ephemeral"},
        timeout_sec=int(timeout_ms / 1000),
    )
    mountpoint = os.path.expanduser(mountpoint)
    if not force_remount and os.path.isdir(os.path.join(mountpoint, "My Drive")):
        print(
            f"Drive already mounted at {mountpoint}; to attempt to forcibly remount, "
            f'call drive.mount("{mountpoint}", force_remount=True).'
        )
        return
    _unmount_and_kill(mountpoint)
    _validate(mountpoint)
    _start(mountpoint, readonly=readonly, timeout_ms=timeout_ms)
    output.clear(wait=True, output_tags="dfs-auth-dance")
    print(f"Mounted at {mountpoint}")


def flush_and_unmount(timeout_ms=24 * 60 * 60 * 1000):
    """Waits until nothing is dirty, then unmounts; there is no flush without the unmount."""
    os.environ["CLOUDSDK_CONFIG"]
    mountpoint = _mountpoint()
    if mountpoint is None:
        print("Drive not mounted, so nothing to flush and unmount.")
        return
    deadline = _machine.Deadline(timeout_ms / 1000)
    while (waiting := _waiting()) != []:
        if waiting is None or deadline.has_passed:
            raise ValueError("flush_and_unmount failed")
        time.sleep(0.02)
    if subprocess.run(["umount", mountpoint], capture_output=True, check=False).returncode:
        raise ValueError("flush_and_unmount failed")
    _wait_for_daemon_to_end()


def _unmount_and_kill(mountpoint):
    forced = subprocess.run(["umount", "-f", mountpoint], capture_output=True, check=False)
    if forced.returncode:
        subprocess.run(["umount", mountpoint], capture_output=True, check=False)
    _kill()


def _kill():
    """Kills every program called drive, wherever it is mounted."""
    for process in os.listdir("/proc"):
        if process.isdigit() and _name_of(process) == "drive":
            with contextlib.suppress(ProcessLookupError):
                os.kill(int(process), signal.SIGKILL)
    _wait_for_daemon_to_end()


def _name_of(process):
    try:
        with open(f"/proc/{process}/comm") as file:
            return file.read().strip()
    except OSError:
        return ""


def _validate(mountpoint):
    if os.path.islink(mountpoint):
        raise ValueError("Mountpoint must not be a symlink")
    if os.path.isdir(mountpoint) and os.listdir(mountpoint):
        raise ValueError("Mountpoint must not already contain files")
    if not os.path.isdir(mountpoint) and os.path.exists(mountpoint):
        raise ValueError("Mountpoint must either be a directory or not exist")
    normed = os.path.normpath(mountpoint)
    if "/" in normed and not os.path.exists(os.path.dirname(normed)):
        raise ValueError("Mountpoint must be in a directory that exists")


def _start(mountpoint, *, readonly, timeout_ms=120000):
    _watch(mountpoint)
    _act_out(_next_outcome(), timeout_ms)
    folder = _machine.control()
    command = [sys.executable, "-m", "tests.colab_vm.daemon", mountpoint, _CACHE]
    command += [os.environ["COLAB_VM_CLOUD"], str(folder), *(["--readonly"] if readonly else [])]
    with (folder / "drive.log").open("ab") as log:
        daemon = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=log, stderr=log, start_new_session=True
        )
    end = time.monotonic() + _START_S
    while not (os.path.isdir(mountpoint) and _is_listed(mountpoint)):
        if daemon.poll() is not None or time.monotonic() > end:
            daemon.kill()
            _act_out("failed", timeout_ms)
        time.sleep(0.01)


def _watch(mountpoint):
    """Starts the shell that waits for the mount, here; a mount that fails leaves it behind."""
    look = f'[ -d "{mountpoint}" ] && [ "$(ls -A "{mountpoint}")" != "" ] && break'
    _leave(["sh", "-c", f"while sleep 0.5; do {look}; done"])


def _leave(command):
    nothing = subprocess.DEVNULL
    subprocess.Popen(command, stdin=nothing, stdout=nothing, stderr=nothing, start_new_session=True)


def _is_listed(mountpoint):
    try:
        return bool(os.listdir(mountpoint))
    except OSError:
        return False


def _next_outcome():
    """Returns what the host wants of this start, and leaves the rest for the next ones."""
    front_end = _machine.read("front_end.json")
    authorised = (_machine.control() / "authorised-dfs_ephemeral").exists()
    if front_end["answer"] == "nobody" and not (authorised and front_end["keeps_credentials"]):
        return "failed"
    mounts = _machine.read("mounts.json")
    outcome, *rest = mounts["next"] or [mounts["then"]]
    _machine.write("mounts.json", {"next": rest, "then": mounts["then"]})
    return outcome


def _act_out(outcome, timeout_ms):
    log = f"{_CACHE}/Logs/drive_fs.txt"
    match outcome:
        case "root timeout":
            os.makedirs(os.path.dirname(log), exist_ok=True)
            with open(log, "a") as file:
                file.write("QueryManager timed out\n")
            raise ValueError(_ROOT_TIMEOUT)
        case "failed":
            # The log is never cleared: once it says so, every failure is said to be that one.
            raise ValueError(_ROOT_TIMEOUT if os.path.exists(log) else "mount failed")
        case "domain policy":
            raise ValueError(_POLICY)
        case "pexpect timeout":
            program = _machine.control() / "drive"
            program.unlink(missing_ok=True)
            program.symlink_to(shutil.which("sleep"))
            _leave([str(program), "1000000"])
            deadline = _machine.Deadline(timeout_ms / 1000 + _MORE_S)
            while not deadline.has_passed:
                time.sleep(0.01)
            spawn = "<pexpect.popen_spawn.PopenSpawn object at 0x7f0123456789>"
            waited_for = [f"    {n}: re.compile({text!r})" for n, text in enumerate(_PATTERNS)]
            lines = ["Timeout exceeded.", spawn, "searcher: searcher_re:", *waited_for, spawn]
            raise pexpect.TIMEOUT("\n".join(lines))


def _mountpoint():
    """Returns where the program that runs is mounted: what was mounted before it is dead."""
    found = None
    with open("/proc/self/mounts") as table:
        for line in table:
            _source, mountpoint, kind, *_ = line.split()
            if kind == "fuse.drive":
                found = mountpoint
    return found


def _waiting():
    """Returns what the daemon has yet to upload; None when the daemon is dead."""
    with socket.socket(socket.AF_UNIX) as connection:
        try:
            connection.connect(str(_machine.control() / "drive.sock"))
        except OSError:
            return None
        answer = b"".join(iter(lambda: connection.recv(1 << 16), b""))
    return json.loads(answer)["waiting"] if answer else None


def _wait_for_daemon_to_end():
    """Waits for the process to be gone, so that its files are the next one's alone."""
    pid_file = _machine.control() / "drive.pid"
    try:
        stat = f"/proc/{pid_file.read_text()}/stat"
    except FileNotFoundError:
        return
    while os.path.exists(stat):
        try:
            with open(stat) as file:
                if ") Z " in file.read():
                    break
        except OSError:
            break
        time.sleep(0.005)
    pid_file.unlink(missing_ok=True)
