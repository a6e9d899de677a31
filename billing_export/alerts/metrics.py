"""Every metric of `metering alerts`, in one place: what it means and when to worry."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class AlertMetrics:
    """The metrics, on a registry of their own."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()

        # 1 in the process that looks and sends, 0 in those that stand by. Worry when it is 1 nowhere.
        self.active = Gauge("metering_alerts_active", "1 while this process looks and sends", registry=self.registry)

        # Seconds of a turn: reading what was used, deciding, sending. Worry when it nears 5: alerts come
        # later than that.
        self.turn_seconds = Histogram(
            "metering_alerts_turn_seconds",
            "Seconds that a turn took",
            buckets=(0.01, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0),
            registry=self.registry,
        )

        # Alerts put on record, by what they look at. Worry at a jump: a limit may be set too low.
        self.fired = Counter(
            "metering_alerts_fired_total",
            "Alerts put on record by what they look at",
            ["watch"],
            registry=self.registry,
        )

        # Deliveries by target and state. Worry about `failed`: the receiver refused an alert, and gets it no more.
        self.delivered = Counter(
            "metering_alerts_delivered_total",
            "Deliveries by target and state",
            ["target", "state"],
            registry=self.registry,
        )

        # Alerts that a target has not answered. Worry when it grows: the target is away.
        self.pending = Gauge(
            "metering_alerts_pending", "Alerts that a target has not answered", ["target"], registry=self.registry
        )

        # Turns that ended in an error. Growth means that ClickHouse is away; the log says.
        self.failures = Counter("metering_alerts_failures_total", "Turns that failed", registry=self.registry)
