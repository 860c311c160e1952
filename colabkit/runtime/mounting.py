"""Judges a mount of Drive: what forbids it beforehand, and what a failure meant."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path

from colabkit.errors import ArgumentError, DriveMountError, MountFailure
from colabkit.notebook import Reader, reader

_HINTS = {
    MountFailure.DENIED: (
        "Run the cell again and allow access in the window that opens, with the account"
        " whose Drive it is; if no window opens, allow pop-ups and third-party cookies."
    ),
    MountFailure.TIMED_OUT: (
        "Run the cell again: the second try is often quicker."
        " Thousands of entries in My Drive itself slow it down; move them into folders."
    ),
    MountFailure.MOUNTPOINT_IN_USE: (
        "Take an empty folder, or a new one in a folder that exists; what lies there came while"
        " Drive was not mounted, and is yours to move."
    ),
    MountFailure.NOT_SUPPORTED: (
        "Save to a folder that outlives this machine or to a bucket, ckpt_dir='gs://bucket/run', or"
        " mount Drive with backend='rclone'."
    ),
    MountFailure.POLICY: ("Ask the administrator for Drive for desktop, or use a private account."),
    MountFailure.NO_KERNEL: "Mount in a notebook's cell first; a script started with ! cannot.",
    MountFailure.WRONG_THREAD: "Call it from the notebook's cell, not from a thread.",
    MountFailure.STOPPED: "Run colabkit.mount() to try again.",
    MountFailure.NO_PROGRAM: "Install it, or take backend='colab' on Colab.",
    MountFailure.NOT_SIGNED_IN: "Sign in on your own computer and copy its settings to here.",
    MountFailure.NOT_OURS: "Mount it again as you did the first time, and run the cell again.",
    MountFailure.FAILED: (
        "Run the cell again; if it fails each time, Runtime → Restart session and run it again:"
        " what is saved on this machine's disk stays there."
    ),
}
_ANSWERS = {
    Reader.EDITOR: "answer the question in your editor",
    Reader.COMMAND_LINE: (
        "whatever runs this notebook seems to have no page to ask in; with Google's command line"
        " run `colab drivemount` first, else mount Drive in the notebook's page first, or pass"
        " drive=False to setup()"
    ),
}
_FAILED = "mount failed"
# The first that is found in google.colab's words decides.
_SIGNS = (
    ("unsupported in this environment", MountFailure.NOT_SUPPORTED),
    ("not supported in colab enterprise", MountFailure.NOT_SUPPORTED),
    ("tbe_ephem_creds_addr", MountFailure.NOT_SUPPORTED),
    ("domain policy", MountFailure.POLICY),
    ("timeout during initial read", MountFailure.TIMED_OUT),
    ("credential propagation was unsuccessful", MountFailure.DENIED),
    ("'kernel'", MountFailure.NO_KERNEL),
    ("mountpoint must", MountFailure.MOUNTPOINT_IN_USE),
)


@dataclasses.dataclass(frozen=True, slots=True)
class Refusal:
    """Why a mount failed.

    Attributes:
        cause: One of the known causes.
        said: What was said of it.
    """

    cause: MountFailure
    said: str


def how_to_answer(reads: Reader) -> str:
    """Returns how Drive's question for access is answered where a notebook is read.

    Example:
        >>> how_to_answer(Reader.PAGE)
        "answer the question in the notebook's page"
    """
    return _ANSWERS.get(reads, "answer the question in the notebook's page")


def mount_error(refusal: Refusal, mountpoint: str, *, hint: str = "") -> DriveMountError:
    """Returns the error for a refusal, with what is usually done about it or a better hint."""
    message = f'Drive is not mounted at {mountpoint}: {refusal.cause.value} ("{refusal.said}").'
    if refusal.cause is MountFailure.NOBODY_THERE:
        hint = hint or f"Run the cell again: {how_to_answer(reader())}."
    hint = hint or _HINTS[refusal.cause]
    return DriveMountError(message, cause=refusal.cause, path=mountpoint, hint=hint)


def wrong_thread(mountpoint: str, is_main: bool) -> None:
    """Refuses any thread but the main one: another would wait for Colab's answer for ever.

    Raises:
        DriveMountError: This is not the main thread.
    """
    if not is_main:
        refusal = Refusal(MountFailure.WRONG_THREAD, "called from another thread")
        raise mount_error(refusal, mountpoint)


def check_mountpoint(
    mountpoint: str, *, timeout_s: float, is_covered: bool, others: Sequence[str] = ()
) -> None:
    """Refuses what google.colab would refuse, but before it has taken a live mount down.

    Args:
        mountpoint: Where Drive is to be.
        timeout_s: How long to wait for the person.
        is_covered: Whether a mount lies there now, alive or dead.
        others: Where Drive is mounted besides.

    Raises:
        ArgumentError: ``timeout_s`` is below a second.
        DriveMountError: Nothing can be mounted there.
    """
    if not timeout_s >= 1:
        raise ArgumentError.of("timeout_s", timeout_s, "Pass at least 1 second.")
    parent = Path(mountpoint).parent
    if Path(mountpoint).is_absolute() and not is_covered and not parent.is_dir():
        said = f"the folder {parent} does not exist"
        hint = f"Pass a mountpoint in a folder that does, such as {str(Path.home() / 'drive')!r}."
        raise mount_error(Refusal(MountFailure.MOUNTPOINT_IN_USE, said), mountpoint, hint=hint)
    said = _unusable(mountpoint, is_covered=is_covered)
    elsewhere = [other for other in others if Path(other) != Path(mountpoint)]
    if not said and elsewhere:
        said = f"Drive is mounted at {elsewhere[0]}, and mounting it twice would cut it off there"
        refusal = Refusal(MountFailure.MOUNTPOINT_IN_USE, said)
        hint = f"Pass no mountpoint: names such as MyDrive/runs lead to {elsewhere[0]} then."
        raise mount_error(refusal, mountpoint, hint=hint)
    if said:
        raise mount_error(Refusal(MountFailure.MOUNTPOINT_IN_USE, said), mountpoint)


def _unusable(mountpoint: str, *, is_covered: bool) -> str:
    path = Path(mountpoint)
    if " " in mountpoint:
        return "it has a space in its name"
    if not path.is_absolute():
        return "it is no absolute path"
    if is_covered:
        return ""
    if path.is_symlink():
        return "it is a symbolic link"
    if path.exists() and not path.is_dir():
        return "it is a file"
    entries = sorted(entry.name for entry in path.iterdir()) if path.exists() else []
    if entries:
        return f"it is not empty: it holds {entries[0]!r}" + (
            f" and {len(entries) - 1} more" if len(entries) > 1 else ""
        )
    return ""


def has_logged_a_slow_read(home: Path | None = None) -> bool:
    """Whether Drive's program has ever timed out here while it read My Drive.

    It never clears its log, in which google.colab looks for that: every later failure is said
    to be this one.

    Args:
        home: The user's home folder, for tests.
    """
    log = (Path.home() if home is None else home) / ".config/Google/DriveFS/Logs/drive_fs.txt"
    try:
        with log.open("rb") as lines:
            return any(b"QueryManager timed out" in line for line in lines)
    except OSError:
        return False


def refusal_of(
    error: BaseException, *, waited_s: float, timeout_s: float, was_slow: bool = False
) -> Refusal:
    """Returns what a failure of google.colab's mount meant.

    Args:
        error: What it raised.
        waited_s: How long the call took.
        timeout_s: How long it was to wait for the person.
        was_slow: Whether its log told of a slow read before this call already.
    """
    if type(error).__name__ == "TIMEOUT":
        # Its text lists all that was waited for, the words of other failures among them.
        return Refusal(MountFailure.TIMED_OUT, "Drive's own program gave no sign in time")
    text = str(error).strip()
    if was_slow and text.startswith(_FAILED):
        text = _FAILED
    said = text.splitlines()[0].split(". ")[0].rstrip(".") if text else type(error).__name__
    if isinstance(error, KeyError):
        said = f"{error.args[0]} is not set"
    lowered = text.lower()
    for sign, cause in _SIGNS:
        if sign in lowered:
            return Refusal(cause, said)
    if isinstance(error, NotImplementedError):
        return Refusal(MountFailure.NOT_SUPPORTED, said)
    if type(error).__name__ == "MessageError":
        return Refusal(MountFailure.DENIED, said)
    # It goes on without an answer once its time is up, and then Drive's program fails.
    if waited_s >= int(timeout_s) and text == _FAILED:
        return Refusal(MountFailure.NOBODY_THERE, said)
    return Refusal(MountFailure.FAILED, said)
