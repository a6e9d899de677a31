"""Apache Kafka's jars, resolved once per user and shared by every data folder.

They live in `$XDG_CACHE_HOME/usage-metering` (`~/.cache/usage-metering`), not in the data folder: 44 MB that are the
same for every stack and every test run. A list of them is written last, so an interrupted download is never used.
"""

from __future__ import annotations

import fcntl
import logging
import os
import re
import shutil
import zipfile
from pathlib import Path

import msgspec

from schemas.errors import JarsUnavailableError

KAFKA_VERSION = "4.1.0"
# Without the second one Kafka has no logging backend and says nothing when it fails. They are resolved one by one,
# since log4j's dependency management would otherwise replace kafka-clients with the old release it was tested with.
ENDPOINTS = (f"org.apache.kafka:kafka_2.13:{KAFKA_VERSION}", "org.apache.logging.log4j:log4j-slf4j-impl:2.24.3")
LIST_NAME = "jars.json"


class JarList(msgspec.Struct, frozen=True, kw_only=True):
    """What was resolved: file paths relative to the list's folder, and their sizes in bytes."""

    endpoints: tuple[str, ...]
    sizes: dict[str, int]


def cache_dir() -> Path:
    """The user's cache folder of this product."""
    base = os.environ.get("XDG_CACHE_HOME", "")
    # The XDG rules say that a relative path is to be ignored.
    return (Path(base) if base.startswith("/") else Path.home() / ".cache") / "usage-metering"


def kafka_jars(cache: Path | None = None) -> list[Path]:
    """Paths of every jar Kafka needs, downloaded if they are not here yet.

    Raises JarsUnavailableError when they are not here and cannot be had: no network, no access, a broken download.
    """
    folder = (cache or cache_dir()) / f"kafka-{KAFKA_VERSION}"
    found = _listed(folder)
    if found is not None:
        return found
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with (folder / "lock").open("w") as lock:
            # Two first runs at once: the second waits, then finds what the first one brought.
            fcntl.flock(lock, fcntl.LOCK_EX)
            return _listed(folder) or _resolve(folder)
    except OSError as error:
        raise JarsUnavailableError(
            f"Kafka's jars cannot be stored: {error}", where=str(folder), fix="Set XDG_CACHE_HOME to a folder of yours"
        ) from error


def _listed(folder: Path) -> list[Path] | None:
    try:
        listed = msgspec.json.decode((folder / LIST_NAME).read_bytes(), type=JarList)
    except (OSError, msgspec.MsgspecError):
        return None
    if listed.endpoints != ENDPOINTS:
        return None
    paths = {folder / name: size for name, size in listed.sizes.items()}
    complete = all(path.is_file() and path.stat().st_size == size for path, size in paths.items())
    return list(paths) if complete else None


def _resolve(folder: Path) -> list[Path]:
    # jgo writes straight into its repository folder, so whatever an interrupted run left there is not to be trusted.
    for leftover in ("repository", "environments"):
        shutil.rmtree(folder / leftover, ignore_errors=True)
    jars = _download(folder)
    broken = [jar.name for jar in jars if not zipfile.is_zipfile(jar)]
    if broken or not jars:
        raise JarsUnavailableError(
            f"these downloads are no jars: {', '.join(broken) or 'none came'}", where=str(folder)
        )
    sizes = {str(jar.relative_to(folder)): jar.stat().st_size for jar in jars}
    draft = folder / f"{LIST_NAME}.new"
    draft.write_bytes(msgspec.json.encode(JarList(endpoints=ENDPOINTS, sizes=sizes)))
    draft.replace(folder / LIST_NAME)
    return jars


def _download(folder: Path) -> list[Path]:
    try:
        from jgo.env import EnvironmentBuilder, LinkStrategy
        from jgo.maven import MavenContext
    except ImportError as error:
        raise JarsUnavailableError(
            "the package jgo, which brings Kafka's jars, is not installed", fix="Install usage-metering[embedded]"
        ) from error
    logging.getLogger("jgo").setLevel(logging.ERROR)
    context = MavenContext(repo_cache=folder / "repository")
    builder = EnvironmentBuilder(context=context, cache_dir=folder / "environments", link_strategy=LinkStrategy.HARD)
    try:
        jars: dict[str, Path] = {}
        for endpoint in ENDPOINTS:
            for jar in builder.from_endpoint(endpoint=endpoint).all_jars:
                # Kafka's own choice of a version comes first: a class path must not hold two of one library.
                jars.setdefault(_artifact(jar.name), Path(jar))
        return list(jars.values())
    except Exception as error:  # jgo lets through whatever its HTTP client, its XML parser or itself raises
        raise JarsUnavailableError(
            f"Kafka's jars cannot be downloaded: {type(error).__name__}",
            where=str(folder),
            fix="Check the network (HTTPS_PROXY is respected), or name an outside Kafka with METERING_KAFKA_SERVERS",
        ) from error


def _artifact(file_name: str) -> str:
    """`slf4j-api-1.7.36.jar` → `slf4j-api`."""
    return re.sub(r"-\d[^-]*(-\d+)?\.jar$", "", file_name)
