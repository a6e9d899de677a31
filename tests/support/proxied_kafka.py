"""A broker of its own whose clients all come through a wire that can be spoilt."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from typing_extensions import override

from metering.embedded.kafka import EmbeddedKafka
from tests.support.fault_wire import FaultWire


class ProxiedKafka(EmbeddedKafka):
    """Tells its clients to come back through `advertised_port`."""

    advertised_port = 0

    @override
    def _write_config(self, controller_port: int) -> Path:
        path = super()._write_config(controller_port)
        text = path.read_text(encoding="utf-8")
        here, there = (
            f"advertised.listeners=PLAINTEXT://127.0.0.1:{port}" for port in (self.port, self.advertised_port)
        )
        assert here in text
        path.write_text(text.replace(here, there), encoding="utf-8")
        return path


@contextmanager
def proxied_kafka(folder: Path) -> Iterator[tuple[ProxiedKafka, FaultWire]]:
    """A broker and the wire to it; clients bootstrap at the wire's port."""
    broker = ProxiedKafka(folder)
    with FaultWire(1) as wire:
        broker.advertised_port = wire.port
        broker.start()
        wire.aim(broker.port)
        try:
            yield broker, wire
        finally:
            wire.heal()
            broker.kill()
