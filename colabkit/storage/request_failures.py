"""What a storage service's failure means, whatever library brought it."""

from __future__ import annotations

import dataclasses
import enum
import re

from colabkit.errors import DiskFullError, StorageError
from colabkit.storage.urls import protocol_of


class RequestFailure(enum.Enum):
    """Why a storage service did not do what it was asked."""

    NO_CREDENTIALS = "nobody is signed in"
    DENIED = "access was denied"
    NO_CONTAINER = "there is no such bucket"
    MISSING = "it is not there"
    NO_NETWORK = "the service cannot be reached"
    BUSY = "the service is busy"
    FULL = "there is no room left"
    READ_ONLY = "nothing can be written there"
    FAILED = "the service failed"


@dataclasses.dataclass(frozen=True, slots=True)
class Operation:
    """What was asked of a service.

    Attributes:
        url: The volume.
        place: The blob or folder.
        verb: "read", "write", "list" or "delete".
    """

    url: str
    place: str
    verb: str


# The first that is found in an error's types and words decides.
_SIGNS = {
    RequestFailure.NO_CONTAINER: (
        *("nosuchbucket", "bucket does not exist", "repositorynotfound", "containernotfound"),
        "no such bucket",
    ),
    RequestFailure.NO_NETWORK: (
        *("connectionerror", "connecterror", "clientconnector", "serverdisconnected"),
        *("connection ?refused", "connection reset", "could not connect", "dial tcp"),
        *("timeout", "timed out", "no sign in time", "network is unreachable"),
        *("gaierror", "name ?resolution", "no such host", "name or service not known"),
    ),
    RequestFailure.NO_CREDENTIALS: (
        *("nocredentials", "defaultcredentials", "partialcredentials", "localtoken"),
        *("locate credentials", "invalid credentials", "anonymous caller", "invalidaccesskey"),
        *("signaturedoesnotmatch", "refresherror", "expiredtoken", "token (has )?expired"),
        *(r"\b401\b", "unauthorized", "invalid_grant", "find section in config file"),
    ),
    RequestFailure.BUSY: (
        *("slowdown", "slow down", "too many requests", "service ?unavailable", "internalerror"),
        *("rate ?limit", "backenderror", r"(error|code|status|\() ?:? ?(429|50[0234])\b"),
    ),
    RequestFailure.FULL: (
        "quota",
        "no space left",
        "insufficientstorage",
        "storagefull",
        "disk full",
    ),
    RequestFailure.DENIED: (
        *("permissionerror", "accessdenied", "access denied", "permission denied", "forbidden"),
        *(r"\b403\b", "gatedrepo"),
    ),
    RequestFailure.READ_ONLY: ("notimplementederror", "read-?only", "unsupportedoperation"),
    RequestFailure.MISSING: (
        "filenotfound",
        "nosuchkey",
        "not found",
        "no such file",
        "doesn't exist",
    ),
}

_SIGN_IN = {
    "gs": "On Colab run `from google.colab import auth; auth.authenticate_user()` first;"
    " elsewhere `gcloud auth application-default login`.",
    "s3": "Set AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY (on Colab keep them in Secrets), and"
    " AWS_ENDPOINT_URL for a service other than Amazon's.",
    "hf": "Set HF_TOKEN to a token that may write (on Colab keep it in Secrets).",
    "rclone": "Run `rclone config` on your own computer and copy its rclone.conf to here.",
}
_ALIASES = {"gcs": "gs", "s3a": "s3"}


def failure_of(*words: str) -> RequestFailure:
    """Returns what a service's words mean.

    Example:
        >>> failure_of("NoCredentialsError", "Unable to locate credentials")
        <RequestFailure.NO_CREDENTIALS: 'nobody is signed in'>
    """
    text = " ".join(words).lower()
    for failure, signs in _SIGNS.items():
        if re.search("|".join(signs), text):
            return failure
    return RequestFailure.FAILED


def words_of(error: BaseException) -> list[str]:
    """Returns the types and texts of an error and of what caused it."""
    words: list[str] = []
    seen: BaseException | None = error
    while seen is not None and len(words) < 12:
        words += [type(seen).__name__, str(seen)]
        seen = seen.__cause__
    return words


def storage_error(operation: Operation, failure: RequestFailure, said: str) -> StorageError:
    """Returns the error for a failed request, with what to do next.

    Args:
        operation: What was asked.
        failure: What the answer meant.
        said: What was said.
    """
    said = " ".join(said.split())[:200]
    told = f' ("{said}")' if said else ""
    message = f"Could not {operation.verb} {operation.place}: {failure.value}{told}."
    if failure is RequestFailure.FULL:
        return DiskFullError(message, path=operation.place, hint=_hint(operation.url, failure))
    return StorageError(
        message,
        path=operation.place,
        operation=operation.verb,
        hint=_hint(operation.url, failure),
        may_pass=failure in {RequestFailure.NO_NETWORK, RequestFailure.BUSY},
    )


def _hint(url: str, failure: RequestFailure) -> str:
    protocol = _ALIASES.get(protocol_of(url), protocol_of(url))
    sign_in = _SIGN_IN.get(protocol, "Sign in to the service as its fsspec package wants it.")
    container = url.partition("://")[2].partition("/")[0]
    return {
        RequestFailure.NO_CREDENTIALS: sign_in,
        RequestFailure.DENIED: f"Sign in as somebody who may read and write there. {sign_in}",
        RequestFailure.NO_CONTAINER: f"Check the name {container!r}, or create it first: buckets"
        " and repositories are not created for you.",
        RequestFailure.MISSING: "Check the path.",
        RequestFailure.NO_NETWORK: "Check this machine's network and the service's address; what is"
        " saved meanwhile waits on this machine's disk.",
        RequestFailure.BUSY: "Run the cell again in a minute; what is saved meanwhile waits on this"
        " machine's disk.",
        RequestFailure.FULL: "Delete what you no longer need there, or pass a folder elsewhere.",
        RequestFailure.READ_ONLY: 'Pass a place that takes files, such as "gs://bucket/run".',
        RequestFailure.FAILED: "Run the cell again; if it stays so, try the service's own program.",
    }[failure]
