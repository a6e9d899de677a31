"""The version of this code, which the ledger and every billing run record."""

from __future__ import annotations

from importlib.metadata import version
from typing import Final

CODE_VERSION: Final = version("usage-metering")
