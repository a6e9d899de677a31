"""Every error of the pipeline, as one tree.

    MeteringError
    ├── SettingError              a METERING_… variable cannot be used
    ├── EventRejectedError        one usage event cannot be billed on; carries reason and field
    ├── CatalogError              the catalog file says something that cannot be applied; carries a list of problems
    ├── RequestError              a question or a command was asked wrongly (unknown meter, reversed range, …)
    │   └── LimitError            a question is larger than a setting lets it be; names the setting
    ├── RunError                  a billing run cannot be made, or does not verify
    │   ├── PeriodNotOverError    the period, or its grace time, has not ended
    │   └── VerificationError     a line item differs from what its events say
    ├── UnavailableError          a service did not answer; trying again later may help
    │   ├── KafkaUnavailableError
    │   ├── ClickHouseUnavailableError
    │   ├── GatewayUnavailableError
    │   └── ErasureUnderWayError  a customer is being erased, and rows are on their way from one name to another
    ├── EmbeddedError             an embedded engine cannot start
    │   ├── PortTakenError
    │   ├── AlreadyRunningError
    │   └── JarsUnavailableError
    ├── LogLostError              Kafka no longer has records that were never folded
    ├── PartitionTakenError       another worker went on with a partition that this one still holds
    └── InvariantViolationError   a fact the pipeline stands on does not hold; stop and look

Each message says what happened, where, what was expected, and what to do next.
"""

from __future__ import annotations

from typing import ClassVar


class MeteringError(Exception):
    """Base of all errors: `what` happened, `where`, and `fix`, the next thing to do.

    `exit_code` is what a command ends with when the error reaches its caller.
    """

    exit_code: ClassVar[int] = 1

    def __init__(self, what: str, *, where: str = "", fix: str = "") -> None:
        self.what = what
        self.where = where
        self.fix = fix
        super().__init__(what, where, fix)

    def __str__(self) -> str:
        located = f"{self.where}: {self.what}" if self.where else self.what
        return f"{located}. {self.fix}" if self.fix else located


class SettingError(MeteringError):
    """A setting has a value that cannot be used; `where` names the variable."""

    exit_code = 2


class EventRejectedError(MeteringError):
    """One event cannot be billed on. `reason` is a stable word, `field` a dotted path into the event.

    The gateway answers it as 422; the worker sends the record to the dead letters.
    """

    def __init__(self, reason: str, field: str, what: str) -> None:
        self.reason = reason
        self.field = field
        super().__init__(what, where=field)


class CatalogError(MeteringError):
    """The catalog cannot be applied. `problems` has a line each: path, what is wrong, what was expected."""

    exit_code = 2

    def __init__(self, problems: list[str], *, where: str = "catalog") -> None:
        self.problems = problems
        noun = "problem" if len(problems) == 1 else "problems"
        listed = "".join(f"\n  {problem}" for problem in problems)
        super().__init__(f"{len(problems)} {noun}{listed}", where=where)


class RequestError(MeteringError):
    """What was asked for cannot be answered as asked; nothing was changed."""

    exit_code = 2


class LimitError(RequestError):
    """A question takes more than a setting allows. `setting` is that setting's name."""

    def __init__(self, what: str, *, setting: str, where: str = "", fix: str = "") -> None:
        self.setting = setting
        super().__init__(what, where=where, fix=fix)


class RunError(MeteringError):
    """A billing run cannot be made as asked; nothing was frozen."""


class PeriodNotOverError(RunError):
    """The period or its grace time has not ended yet."""


class VerificationError(RunError):
    """Frozen line items differ from what their events say; `differences` has a line each."""

    def __init__(self, differences: list[str]) -> None:
        self.differences = differences
        listed = "".join(f"\n  {difference}" for difference in differences)
        super().__init__(
            f"{len(differences)} of the line items differ from their events{listed}",
            fix="The frozen lines were not touched: compare the events named above before billing on them",
        )


class UnavailableError(MeteringError):
    """A service did not answer in time. Nothing is known to be lost; try again."""

    exit_code = 3


class KafkaUnavailableError(UnavailableError):
    """Kafka did not answer or did not acknowledge in time."""


class ClickHouseUnavailableError(UnavailableError):
    """ClickHouse did not answer in time."""


class GatewayUnavailableError(UnavailableError):
    """The gateway did not answer in time."""


class ErasureUnderWayError(UnavailableError):
    """A customer is being erased: what reads its rows, or writes them, waits until that is done."""

    def __init__(self, customer: str, what: str = "a worker") -> None:
        """`what` cannot go on meanwhile."""
        super().__init__(
            f"customer {customer} is being erased, and {what} cannot go on meanwhile",
            where="erasures",
            fix=f"Wait until it is done; if it was broken off, `metering erase {customer}` finishes it",
        )


class EmbeddedError(MeteringError):
    """An embedded engine cannot start or stopped by itself."""


class PortTakenError(EmbeddedError):
    """Another program listens on the port."""


class AlreadyRunningError(EmbeddedError):
    """Another stack uses the data folder."""


class JarsUnavailableError(EmbeddedError):
    """Apache Kafka's jars are not in the cache and cannot be downloaded."""


class LogLostError(MeteringError):
    """Kafka has dropped records that no worker has folded."""


class PartitionTakenError(MeteringError):
    """Another worker went on with a partition that this one still holds; nothing was written, start again."""


class InvariantViolationError(MeteringError):
    """A fact the pipeline stands on does not hold. The process stops before it can bill on it."""

    exit_code = 70
