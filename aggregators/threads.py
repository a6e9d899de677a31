"""What the pipeline's threads have in common: they end when the worker is told to stop, and never alone."""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable
from typing import Final, TypeVar

import structlog

from aggregators.worker_store import StoppedError

log = structlog.get_logger(__name__)

_Item = TypeVar("_Item")

STOP_CHECK_S: Final = 0.2


def offer(to: queue.Queue[_Item], item: _Item, stopping: threading.Event) -> None:
    """Put an item into a queue, however long it is full. Raises StoppedError when the worker stops meanwhile."""
    while not stopping.is_set():
        try:
            to.put(item, timeout=STOP_CHECK_S)
        except queue.Full:
            continue
        return
    raise StoppedError("queue")


def guarded(loop: Callable[[], None], on_fatal: Callable[[BaseException], None]) -> Callable[[], None]:
    """A thread that dies must take the process along: half a worker would look alive and do nothing."""

    def run() -> None:
        try:
            loop()
        except StoppedError:
            log.debug("thread stopped")
        except BaseException as error:  # noqa: BLE001 - the rim of the thread; on_fatal ends the process
            on_fatal(error)

    return run
