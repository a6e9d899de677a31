"""Proves runs in two processes of their own, while the next month is closed in this one."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from concurrent.futures import Future, ProcessPoolExecutor
from contextlib import contextmanager
from multiprocessing import get_context
from typing import Final

from billing_export.run import Run
from billing_export.verify import Prover, Verified
from metering.clickhouse import connect
from metering.config import Settings

PROCESSES: Final = 2

_provers: list[Prover] = []
"""The one of this process, once it has begun."""


@contextmanager
def prover(settings: Settings) -> Iterator[Callable[[Run], Future[Verified]]]:
    """What to call with a frozen run; its proof comes later."""
    with ProcessPoolExecutor(
        PROCESSES, mp_context=get_context("spawn"), initializer=_begin, initargs=(settings,)
    ) as pool:
        yield lambda run: pool.submit(_prove, run)


def _begin(settings: Settings) -> None:
    _provers.append(Prover(connect(settings)))


def _prove(run: Run) -> Verified:
    return _provers[0].prove(run)
