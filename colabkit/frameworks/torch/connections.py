"""The connections over which processes meet, ended while something waits on them.

gloo closes those of a group with the last reference to it alone, which the traceback of an error
holds as well, and its ``abort`` does nothing: whoever waits for a process that has failed would
wait for its end.
"""

from __future__ import annotations

import contextlib
import os
import select
import socket
import stat
import struct
from collections.abc import Collection, Iterator
from pathlib import Path

# Each process lists its open files in one of them, Linux in the first.
_LISTS = (Path("/proc/self/fd"), Path("/dev/fd"))
_OF_NETWORKS = frozenset({socket.AF_INET, socket.AF_INET6})


class Connections:
    """Those that are opened to other processes from now on until ``note``.

    Example:
        >>> opened = Connections()
        >>> server = socket.create_server(("127.0.0.1", 0))
        >>> near = socket.create_connection(server.getsockname())
        >>> far, _ = server.accept()
        >>> opened.note()
        >>> opened.end()
        >>> far.recv(1)
        b''
        >>> for each in (near, far, server):
        ...     each.close()
    """

    def __init__(self) -> None:
        self._before = _open_sockets()
        self._noted: dict[int, int] = {}

    def note(self, *, port: int | None = None) -> None:
        """Takes down what has been opened by now, to a port where one is named."""
        found = _open_sockets()
        self._noted = {
            number: name
            for number, name in found.items()
            if self._before.get(number) != name and (port is None or _leads_to(number, port))
        }

    def give_up_after(self, *, unacknowledged_s: float, unanswered_s: float) -> None:
        """Has what waits on them end after a time.

        Args:
            unacknowledged_s: After as long the other side's machine is taken for gone. A process
                that only stands still is not: its machine acknowledges for it.
            unanswered_s: After as long the process on the other side is.
        """
        whole_s, rest_s = divmod(unanswered_s, 1)
        wait = struct.pack("@ll", int(whole_s), int(rest_s * 1e6))
        kinds = (socket.SO_RCVTIMEO, socket.SO_SNDTIMEO)
        options = [(socket.SOL_SOCKET, kind, wait) for kind in kinds]
        if kind := getattr(socket, "TCP_USER_TIMEOUT", 0):  # Linux has it
            wait = struct.pack("@i", int(1000 * unacknowledged_s))
            options.append((socket.IPPROTO_TCP, kind, wait))
        for number in self._noted:
            with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
                for level, name, value in options:
                    connection.setsockopt(level, name, value)

    def is_cut(self) -> bool:
        """Whether the other side of one of them has gone, or this side has; safe from any thread.

        Example:
            >>> opened = Connections()
            >>> near, far = socket.socketpair()
            >>> opened.note()
            >>> opened.is_cut()
            False
            >>> far.close()
            >>> opened.is_cut()
            True
            >>> near.close()
        """
        return any(_is_cut(number, name) for number, name in self._noted.items())

    def end(self) -> None:
        """Ends them; safe from any thread. Waits for them are errors at once, on both sides."""
        for number, name in self._noted.items():
            with contextlib.suppress(OSError):
                copy = os.dup(number)
                # Another file may have the number by now.
                is_same = os.fstat(copy).st_ino == name
                with socket.socket(fileno=copy) as connection:
                    # An error for what listens, which gloo could not bear to lose.
                    connection.getpeername()
                    if is_same and connection.family in _OF_NETWORKS:
                        connection.shutdown(socket.SHUT_RDWR)


def open_pairs(*, but_port: int = 0) -> list[str]:
    """Returns this process's connections over a network, each by its two ends.

    Args:
        but_port: A port on either side, whose connections are left out.

    Example:
        >>> server = socket.create_server(("127.0.0.1", 0))
        >>> near = socket.create_connection(server.getsockname())
        >>> far, _ = server.accept()
        >>> end_pairs(open_pairs())  # as those of another process, with these ends
        >>> far.recv(1)
        b''
        >>> for each in (near, far, server):
        ...     each.close()
    """
    return [f"{near} {far}" for near, far, _ in _pairs(but_port)]


def end_pairs(pairs: Collection[str], *, but_port: int = 0) -> None:
    """Ends the connections whose other ends are among those of another process."""
    for near, far, connection in _pairs(but_port):
        if f"{far} {near}" in pairs:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)


def _pairs(but_port: int) -> Iterator[tuple[str, str, socket.socket]]:
    """Yields both ends of each open connection over a network."""
    for number in _open_sockets():
        with contextlib.suppress(OSError), socket.socket(fileno=os.dup(number)) as connection:
            if connection.family in _OF_NETWORKS and connection.type == socket.SOCK_STREAM:
                ends = [connection.getsockname()[:2], connection.getpeername()[:2]]
                if but_port not in {port for _, port in ends}:
                    # One side may see the other's address as one of IPv6.
                    near, far = (f"{host.removeprefix('::ffff:')}:{port}" for host, port in ends)
                    yield near, far, connection


def _leads_to(number: int, port: int) -> bool:
    try:
        with socket.socket(fileno=os.dup(number)) as connection:
            return connection.family in _OF_NETWORKS and connection.getpeername()[1] == port
    except OSError:  # one that only listens
        return False


def _is_cut(number: int, name: int) -> bool:
    try:
        copy = os.dup(number)
    except OSError:
        return True
    with socket.socket(fileno=copy) as connection:
        if os.fstat(copy).st_ino != name:
            return True
        if connection.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            return False
        look = select.poll()
        look.register(connection, getattr(select, "POLLRDHUP", 0))
        return bool(look.poll(0))


def _open_sockets() -> dict[int, int]:
    """Returns the numbers of this process's open sockets, and what tells each from others."""
    listed = next((each for each in _LISTS if each.is_dir()), None)
    found: dict[int, int] = {}
    for path in () if listed is None else listed.iterdir():
        with contextlib.suppress(OSError):  # closed meanwhile, as the list itself is
            about = os.fstat(int(path.name))
            if stat.S_ISSOCK(about.st_mode):
                found[int(path.name)] = about.st_ino
    return found
