"""The user's secrets."""

import threading

from google.colab import _message, errors

_TIMEOUT_SEC = 10
_lock = threading.Lock()


class NotebookAccessError(Exception):
    def __init__(self, key):
        super().__init__(f"Notebook does not have access to secret {key}")


class SecretNotFoundError(errors.Error):
    def __init__(self, key):
        super().__init__(f"Secret {key} does not exist.")


class TimeoutException(errors.Error):
    def __init__(self, key):
        super().__init__(
            f"Requesting secret {key} timed out. Secrets can only be fetched when "
            "running from the Colab UI."
        )


def get(key):
    """Returns a secret; this one call may come from any thread."""
    with _lock:
        # Past the check of the thread: the lock above is what makes this safe.
        answer = _message._ask("GetSecret", {"key": key}, _TIMEOUT_SEC)
    if answer is None:
        raise TimeoutException(key)
    if not answer.get("exists", False):
        raise SecretNotFoundError(key)
    if not answer.get("access", False):
        raise NotebookAccessError(key)
    return answer.get("payload", "")
