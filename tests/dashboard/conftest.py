"""Where there is no browser, what needs one is left out, and the run says so at its end; never where CI is set."""

from __future__ import annotations

from tests.support.chromium import chromium_path, is_required

collect_ignore = [] if chromium_path() or is_required() else ["test_dashboard_browser.py"]
