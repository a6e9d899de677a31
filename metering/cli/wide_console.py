"""Standard output for tables of data, on a terminal and in a pipe."""

from __future__ import annotations

import sys
from typing import Final

from rich.console import Console

PIPE_WIDTH: Final = 400


def wide_console() -> Console:
    """Standard output. Where that is no terminal, lines are as wide as they need, so that no cell is cut."""
    return Console(highlight=False, soft_wrap=True, width=None if sys.stdout.isatty() else PIPE_WIDTH)
