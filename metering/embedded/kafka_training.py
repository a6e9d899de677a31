"""Makes the archive that lets brokers start early: runs one, watched, and keeps what its Java runtime learned.

    python -m metering.embedded.kafka_training

Done by `make install`; takes half a minute once per user, and 65 MB beside Kafka's jars.
"""

from __future__ import annotations

import fcntl
import os
import subprocess
import tempfile
from pathlib import Path

from confluent_kafka import Consumer, KafkaException, Producer
from confluent_kafka.admin import AdminClient, NewTopic
from rich.console import Console

from metering.embedded.kafka import EmbeddedKafka
from metering.embedded.kafka_archive import FEATURES_NAME, StartArchive, start_archive
from metering.embedded.kafka_jars import kafka_jars
from metering.embedded.kafka_java import java_environment, java_program, standing_options
from schemas.errors import EmbeddedError, MeteringError

TOPIC = "training"
RECORDS = 2_000
TIMEOUT_S = 60.0


def make_start_archive(cache: Path | None = None) -> StartArchive:
    """The archive, made now unless it is there. Raises JarsUnavailableError or EmbeddedError."""
    jars = kafka_jars(cache)
    archive = start_archive(standing_options(), cache)
    with archive.classes.with_suffix(".lock").open("w") as lock:
        # Two first installations at once: the second waits, then finds what the first one made.
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not archive.is_made:
            with tempfile.TemporaryDirectory(dir=archive.classes.parent, prefix="training-") as folder:
                _make(archive, jars, Path(folder), cache)
    return archive


def _make(archive: StartArchive, jars: list[Path], folder: Path, cache: Path | None) -> None:
    learned, classes = folder / "learned.aotconf", folder / "classes.aot"
    kafka = EmbeddedKafka(
        folder / "kafka", cache=cache, watched=["-XX:AOTMode=record", f"-XX:AOTConfiguration={learned}"]
    )
    with kafka:
        _use(kafka.bootstrap)
    command = [
        str(java_program()),
        *standing_options(),
        "-XX:AOTMode=create",
        f"-XX:AOTConfiguration={learned}",
        f"-XX:AOTCache={classes}",
        "-cp",
        os.pathsep.join(map(str, jars)),
    ]
    done = subprocess.run(command, capture_output=True, text=True, env=java_environment(), cwd=folder, check=False)
    if done.returncode or not classes.is_file():
        raise EmbeddedError(f"Java made no archive of Kafka's classes: {done.stderr or done.stdout}", where=str(folder))
    (kafka.log_folder / FEATURES_NAME).replace(archive.features)
    classes.replace(archive.classes)


def _use(bootstrap: str) -> None:
    """Have the broker do once what clients of the pipeline ask of it."""
    admin = AdminClient({"bootstrap.servers": bootstrap})
    (created,) = admin.create_topics([NewTopic(TOPIC, 2, 1)]).values()
    created.result(TIMEOUT_S)
    producer = Producer({"bootstrap.servers": bootstrap, "acks": "all", "compression.type": "lz4"})
    for number in range(RECORDS):
        producer.produce(TOPIC, b"%d" % number, key=b"%d" % (number % 10))
    producer.flush(TIMEOUT_S)
    consumer = Consumer({"bootstrap.servers": bootstrap, "group.id": TOPIC, "auto.offset.reset": "earliest"})
    consumer.subscribe([TOPIC])
    read = 0
    while read < RECORDS and (records := consumer.consume(RECORDS, TIMEOUT_S)):
        read += len(records)
    consumer.commit(asynchronous=False)
    consumer.close()


def main() -> None:
    """Make the archive; a machine that cannot have one starts its brokers more slowly, so this never fails."""
    console = Console(stderr=True, highlight=False, soft_wrap=True, markup=False)
    try:
        archive = make_start_archive()
    except (MeteringError, KafkaException, OSError) as error:
        console.print(f"Kafka will take longer to start, because no archive of its classes could be made: {error}")
    else:
        console.print(f"Kafka's classes are archived for an early start ({archive.classes.stat().st_size >> 20} MiB)")


if __name__ == "__main__":
    main()
