"""The way in: a link is turned into a session at its first look, so that it does not stay in the browser's address."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from litestar import Response, get
from litestar.params import FromPath
from litestar.response import Redirect

from metering.dashboard.sign_in import STATIC
from metering.keys import PUBLIC, NotFoundError, needs
from metering.portal.guard import PortalGuard
from metering.portal.links import PREFIX

_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_KEPT_S: Final = 3_600


def entry_routes(guard: PortalGuard) -> list[Any]:
    """`/portal/enter/…`, `/portal/static/…` and `/portal/healthz`."""
    files = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in _TYPES}

    @get(f"{PREFIX}/enter/{{token:str}}", opt=needs(PUBLIC), sync_to_thread=False)
    def enter(token: FromPath[str]) -> Redirect:
        answer = Redirect(PREFIX, status_code=303)
        answer.cookies.append(guard.enter(token))
        return answer

    @get(f"{PREFIX}/static/{{name:str}}", opt=needs(PUBLIC), sync_to_thread=False)
    def static(name: FromPath[str]) -> Response[bytes]:
        if name not in files:
            raise NotFoundError
        headers = {"Cache-Control": f"public, max-age={_KEPT_S}"}
        return Response(files[name], media_type=_TYPES[Path(name).suffix], headers=headers)

    @get(f"{PREFIX}/healthz", opt=needs(PUBLIC), sync_to_thread=False)
    def is_alive() -> dict[str, str]:
        return {"status": "alive"}

    return [enter, static, is_alive]
