"""The processes of the stack beside the engines: how each is started, and how one can tell that it is ready."""

from __future__ import annotations

from http import HTTPStatus

import httpx

from metering.config import Settings, variable_of
from metering.embedded.parts import ChildSpec

READY_TIMEOUT_S = 2.0


def children(settings: Settings, *, python: str) -> list[ChildSpec]:
    """The gateway, one worker, the dashboard and the alerts, run by the interpreter `python`."""
    scheme = "https" if settings.gateway_tls_cert_file else "http"
    gateway = f"{scheme}://127.0.0.1:{settings.gateway_port}"
    worker = f"http://127.0.0.1:{settings.worker_metrics_port}"
    dashboard = f"{scheme}://127.0.0.1:{settings.dashboard_port}"
    has_health = settings.worker_metrics_port != 0
    return [
        ChildSpec(
            name="gateway",
            argv=(python, "-m", "metering", "gateway"),
            ready=lambda: _answers_ok(f"{gateway}/readyz"),
            address=gateway,
            ports={variable_of("gateway_port"): settings.gateway_port},
        ),
        ChildSpec(
            name="worker",
            argv=(python, "-m", "metering", "worker"),
            ready=(lambda: _worker_works(f"{worker}/readyz")) if has_health else None,
            address=f"{worker}/metrics" if has_health else "",
            ports={variable_of("worker_metrics_port"): settings.worker_metrics_port} if has_health else {},
        ),
        ChildSpec(
            name="dashboard",
            argv=(python, "-m", "metering", "dashboard"),
            ready=lambda: _answers_ok(f"{dashboard}/healthz"),
            address=dashboard,
            ports={variable_of("dashboard_port"): settings.dashboard_port},
        ),
        ChildSpec(name="alerts", argv=(python, "-m", "metering", "alerts")),
    ]


def _answers_ok(url: str) -> bool:
    answer = _asked(url)
    return answer is not None and answer.status_code == HTTPStatus.OK


def _worker_works(url: str) -> bool:
    """Whether a worker is ready, or would be if no partition were paused: starting it again would not resume one."""
    answer = _asked(url)
    if answer is None:
        return False
    return answer.status_code == HTTPStatus.OK or bool(answer.json().get("paused"))


def _asked(url: str) -> httpx.Response | None:
    try:
        # Asked of a child of our own on this machine, whose certificate is for another name.
        return httpx.get(url, timeout=READY_TIMEOUT_S, verify=False)  # noqa: S501 - see above  # nosec B501
    except httpx.TransportError:
        return None
