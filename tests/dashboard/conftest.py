"""A browser for the tests of this folder; where there is none, they are left out and the run says so, but never in CI."""

from __future__ import annotations

from tests.support.chromium import chromium_path, is_required

collect_ignore = [] if chromium_path() or is_required() else ["test_dashboard_browser.py"]
