"""Runs `focus-validator` in its own environment; started there as a program, so it imports nothing of ours.

The validator asks for Python 3.12, for one line of it: an f-string with a backslash inside its braces. On 3.11 that
line is written in the older way while it is imported; every rule it checks stays its own.
"""

from __future__ import annotations

import importlib.abc
import importlib.machinery
import importlib.util
import sys
from collections.abc import Sequence
from types import ModuleType

NEEDS_312 = "focus_validator.config_objects.focus_to_duckdb_converter"
NEW_STYLE = """f"'{k.replace('\\"', '\\"\\"')}'\""""
OLD_STYLE = """"'" + k.replace('"', '""') + "'\""""


class OlderPython(importlib.abc.MetaPathFinder, importlib.abc.Loader):
    """Loads the one module that is written for Python 3.12."""

    def find_spec(
        self, fullname: str, path: Sequence[str] | None, target: ModuleType | None = None
    ) -> importlib.machinery.ModuleSpec | None:
        del target
        if fullname != NEEDS_312:
            return None
        found = importlib.machinery.PathFinder.find_spec(fullname, path)
        if found is None:
            return None
        return importlib.util.spec_from_file_location(
            fullname, found.origin, loader=_Rewritten(fullname, found.origin or "")
        )


class _Rewritten(importlib.machinery.SourceFileLoader):
    def get_data(self, path: str) -> bytes:
        data = super().get_data(path)
        return data.replace(NEW_STYLE.encode(), OLD_STYLE.encode()) if path.endswith(".py") else data

    def set_data(self, path: str, data: object, *, _mode: int = 0o666) -> None:
        """Keep no byte code of a text that stands in no file."""


def main() -> None:
    if sys.version_info < (3, 12):
        sys.meta_path.insert(0, OlderPython())
    from focus_validator.main import main as validate  # type: ignore[import-not-found]

    sys.argv[0] = "focus-validator"
    validate()


if __name__ == "__main__":
    main()
