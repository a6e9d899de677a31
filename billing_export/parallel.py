"""Makes the parts of a long piece of work in several processes, and hands them over in order."""

from __future__ import annotations

import gc
import os
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from multiprocessing import Pipe
from multiprocessing.connection import Connection
from typing import Final, TypeVar

T = TypeVar("T")

WORKERS_MAX: Final = 4
"""The database needs processors too."""


def workers_for(parts_count: int) -> int:
    """How many processes are worth it; 1 where processes cannot be forked safely."""
    if sys.platform != "linux":
        return 1
    return max(1, min(WORKERS_MAX, os.cpu_count() or 1, parts_count))


def in_order(
    count: int, workers: int, begin: Callable[[], Callable[[int], T]], here: Callable[[int], T]
) -> Iterator[T]:
    """What `make(0)` … `make(count - 1)` give, in order, made by forked processes that take turns.

    Each process calls `begin` once, for a `make` of its own. A process holds one finished part at most, and ends by
    itself when this one has died. Where one fails, `here` makes the part again in this process, which then raises.
    """
    readers: list[Connection] = []
    children: list[int] = []
    try:
        for worker in range(workers):
            reader, writer = Pipe(duplex=False)
            child = os.fork()
            if not child:
                for one in (*readers, reader):
                    one.close()
                _work(writer, range(worker, count, workers), begin)
            writer.close()
            readers.append(reader)
            children.append(child)
        for place in range(count):
            try:
                found: tuple[T] | None = readers[place % workers].recv()
            except EOFError:
                found = None
            yield here(place) if found is None else found[0]
    finally:
        for reader in readers:
            reader.close()
        for child in children:
            os.waitpid(child, 0)


def _work(writer: Connection, places: range, begin: Callable[[], Callable[[int], T]]) -> None:
    """The life of a process; it never returns, so that nothing of its parent's is done or written twice."""
    try:
        make = begin()
        for place in places:
            writer.send((make(place),))
    except BaseException:  # noqa: BLE001 - whatever it is, the parent meets it where it can be told
        os._exit(1)
    os._exit(0)


@contextmanager
def without_collector() -> Iterator[None]:
    """Do not look for cycles meanwhile: records have none. Looking slows a close by a third, an export by a quarter."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()
