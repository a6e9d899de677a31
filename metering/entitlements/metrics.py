"""Every metric of entitlements, in one place: what it means and when to worry."""

from __future__ import annotations

from prometheus_client import CollectorRegistry, Counter, Gauge, Histogram


class EntitlementMetrics:
    """The metrics, on the registry of the gateway that answers."""

    def __init__(self, registry: CollectorRegistry) -> None:
        # Seconds that a reading of what was used took. Worry when it nears
        # entitlements_stale_s_max: answers become 503.
        self.read_seconds = Histogram(
            "metering_entitlements_read_seconds",
            "Seconds that a reading of what was used took",
            buckets=(0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0),
            registry=registry,
        )

        # Readings that failed. Growth means that ClickHouse is away, or that there is more than entitlements_max;
        # the log says which.
        self.failures = Counter(
            "metering_entitlements_failures_total", "Failed readings of what was used", registry=registry
        )

        # Customers that something is known of. Worry at 0 when the catalog has customers.
        self.customers = Gauge("metering_entitlements_customers", "Customers with entitlements", registry=registry)
