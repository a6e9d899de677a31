"""A ClickHouse node in this process: `python -m tests.support.clickhouse_node FOLDER`, with `config.xml` in the folder.

The engine library can listen like a server, for other nodes too, once its command line's own session asks for it. The
session is held for as long as the process lives. It has no queue of `ON CLUSTER` statements and hands out no parts.
"""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

SERVE = """
SYSTEM START LISTEN TCP;
SYSTEM START LISTEN HTTP;
SELECT sleepEachRow(1) FROM numbers(1000000)
SETTINGS function_sleep_max_microseconds_per_block = 0, max_block_size = 1
FORMAT Null
"""


def main() -> None:
    folder = Path(sys.argv[1])
    # The engine takes the config.xml of the folder it runs in.
    os.chdir(folder)
    from chdb import _chdb

    engine: Any = _chdb
    engine.query(SERVE, "TabSeparated", path=str(folder / "data"))


if __name__ == "__main__":
    main()
