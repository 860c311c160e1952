"""Who draws a run's curves, by what the user asks for."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from colabkit.checkpoint import RunFolder
from colabkit.errors import ArgumentError
from colabkit.runs.event_log import EventLog, EventsOfAll
from colabkit.runs.history import History
from colabkit.runs.logger_services import TENSORBOARD, LoggerService, service_for
from colabkit.runs.service_log import ServiceLog


def services_for(logger: Any) -> list[LoggerService]:
    """Returns the services that ``logger`` asks for, TensorBoard apart.

    Raises:
        ArgumentError: One of them is no logger.
        MissingPackageError: The package of one is not installed.
    """
    return [service_for(each) for each in _each_of(logger) if each != TENSORBOARD]


def events_for(
    tensorboard: object,
    logger: Any,
    history: History,
    folder: RunFolder,
    *,
    say: Callable[[str], None],
) -> EventsOfAll:
    """Returns what publishes a run's values.

    Args:
        tensorboard: Whether event files are written into the run folder.
        logger: A name of a service, an object with ``log``, a list of these, or None.
        history: What the run reports.
        folder: The run folder.
        say: Tells the user a sentence.

    Raises:
        ArgumentError: ``tensorboard`` is neither True nor False, or ``logger`` is none.
        MissingPackageError: The package of a service is not installed.
    """
    if not isinstance(tensorboard, bool):
        hint = "Pass True; the files go into the folder tensorboard of the run folder."
        raise ArgumentError.of("tensorboard", tensorboard, hint)
    services = services_for(logger)
    files = [EventLog(history, folder)] if tensorboard or TENSORBOARD in _each_of(logger) else []
    kinds = [each.title for each in services]
    told = [
        ServiceLog(each, history, folder, number=kinds[:place].count(each.title) + 1, say=say)
        for place, each in enumerate(services)
    ]
    return EventsOfAll([*files, *told])


def _each_of(logger: Any) -> list[Any]:
    if logger is None:
        return []
    return list(logger) if isinstance(logger, list | tuple) else [logger]
