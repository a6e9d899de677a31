"""Every metric of a worker: what it means and when to worry."""

from __future__ import annotations

from typing import Final

from prometheus_client import Counter, Gauge, Histogram

# Events stored and folded. Worry when it stands still while the lag grows.
EVENTS_ACCEPTED: Final = Counter("metering_worker_events_accepted_total", "Events stored and folded")

# Repeats that were recognised. A steady share is normal for producers that retry.
EVENTS_DUPLICATE: Final = Counter("metering_worker_events_duplicate_total", "Events whose identity was accepted before")

# Records sent to the dead letters, by reason. Worry at any growth: somebody's usage is not being billed.
EVENTS_REJECTED: Final = Counter(
    "metering_worker_events_rejected_total", "Records sent to the dead letters, by reason", ["reason"]
)

# Dimensions of a subject's day that had more values than the meter takes, by meter. Worry at any growth: what came
# later is counted and billed under `other`. The view usage_other says whose it is.
GROUP_OVERFLOWS: Final = Counter(
    "metering_worker_group_overflows_total",
    "Dimensions of a subject's day that had more values than their meter takes",
    ["meter"],
)

# Offsets without a record. Worry at once: the log has holes, or a producer uses transactions.
OFFSETS_ABSENT: Final = Counter("metering_worker_offsets_absent_total", "Offsets at which Kafka holds no record")

# How long a flush takes from the first insert to the ledger. Worry when it nears the flush interval.
FLUSH_SECONDS: Final = Histogram("metering_worker_flush_seconds", "Time to make one flush durable, in seconds")

# The next offset to fold, by partition. Compare it with Kafka's end offset for the lag.
NEXT_OFFSET: Final = Gauge(
    "metering_worker_next_offset", "Offset after the last durable one, by partition", ["partition"]
)

# Calls to ClickHouse or Kafka that had to be repeated. Worry when it grows for minutes: nothing is lost, nothing moves.
CLICKHOUSE_RETRIES: Final = Counter(
    "metering_worker_retries_total", "Calls that failed in passing and were repeated, by what was called", ["what"]
)

# Age of the oldest event that is folded but not durable. Worry when it passes a few flush intervals.
UNFLUSHED_SECONDS: Final = Gauge("metering_worker_unflushed_seconds", "Seconds since events are waiting for a flush")

# What the worker's own audit found last, by check. Worry at anything but 0: `metering audit` says more, then
# `metering repair` mends it.
AUDIT_DIFFERENCES: Final = Gauge(
    "metering_worker_audit_differences", "Differences that the worker's last audit found, by check", ["check"]
)

# Looks of the worker's own audit, by how they ended: clean, different or failed. Worry when clean ones stop coming.
AUDITS: Final = Counter("metering_worker_audits_total", "Audits by the worker of its own partitions", ["result"])

# Partitions that are not read because too much of them was rejected. Worry at anything but 0: /readyz says why, and
# nothing of these partitions is billed until somebody resumes them.
PARTITIONS_PAUSED: Final = Gauge("metering_worker_partitions_paused", "Partitions paused over too many dead letters")

# How long a partition has stood still although there is more to read. Worry at 30: /readyz is red from there on.
STANDSTILL_SECONDS: Final = Gauge(
    "metering_worker_standstill_seconds", "Seconds since a partition with records to read has moved"
)
