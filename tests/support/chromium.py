"""The machine's own Chromium, for tests that look at pages as people do."""

from __future__ import annotations

import os
import shutil
from typing import Final

NAMES: Final = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable")

MISSING: Final = (
    "NO CHROMIUM ON THIS MACHINE: the dashboard was NOT looked at in a browser. None of "
    f"{', '.join(NAMES)} is on the PATH; on Debian `apt-get install chromium` brings one. Where CI is set this fails."
)


def chromium_path() -> str:
    """Where Chromium is; empty where there is none."""
    return next((found for name in NAMES if (found := shutil.which(name))), "")


def is_required() -> bool:
    """Whether a machine without Chromium fails the tests, as every CI does."""
    return os.environ.get("CI", "").lower() not in ("", "0", "false")
