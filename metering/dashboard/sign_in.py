"""Signing in with an API key, and out again; and what is asked of the dashboard without one."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Final

from litestar import Request, Response, get, post
from litestar.params import FromPath, FromQuery
from litestar.response import Redirect

from metering.dashboard.guard import page_after
from metering.dashboard.site import Site
from metering.keys import PUBLIC, KeyRefusedError, NotFoundError, needs

STATIC: Final = Path(__file__).parent / "static"
_TYPES: Final = {".css": "text/css", ".js": "text/javascript", ".svg": "image/svg+xml"}
_KEPT_S: Final = 3_600


def sign_in_routes(site: Site) -> list[Any]:
    """`/login`, `/logout`, `/static/…` and `/healthz`."""

    @get("/login", opt=needs(PUBLIC), sync_to_thread=False)
    def show_login(request: Request[Any, Any, Any], after: FromQuery[str] = "/") -> Response[str] | Redirect:
        if not site.guard.asks_for_keys:
            return Redirect(page_after(after))
        return site.pages.page(request, "login.html", principal=None, after=page_after(after), problem="")

    @post("/login", opt=needs(PUBLIC), status_code=200)
    async def log_in(request: Request[Any, Any, Any]) -> Response[str] | Redirect:
        form = await request.form()
        after, key = page_after(str(form.get("after", "/"))), str(form.get("key", ""))
        try:
            cookie = site.guard.sign_in(key)
        except KeyRefusedError as error:
            return site.pages.page(
                request, "login.html", principal=None, after=after, problem=f"{error.what}. {error.fix}"
            )
        answer = Redirect(after, status_code=303)
        answer.cookies.append(cookie)
        return answer

    @post("/logout", opt=needs(PUBLIC), sync_to_thread=False)
    def log_out() -> Redirect:
        answer = Redirect("/login", status_code=303)
        answer.cookies.append(site.guard.sign_out())
        return answer

    files = {path.name: path.read_bytes() for path in STATIC.iterdir() if path.suffix in _TYPES}

    @get("/static/{name:str}", opt=needs(PUBLIC), sync_to_thread=False)
    def static(name: FromPath[str]) -> Response[bytes]:
        if name not in files:
            raise NotFoundError
        return Response(
            files[name],
            media_type=_TYPES[Path(name).suffix],
            headers={"Cache-Control": f"public, max-age={_KEPT_S}"},
        )

    @get("/healthz", opt=needs(PUBLIC), sync_to_thread=False)
    def is_alive() -> dict[str, str]:
        return {"status": "alive"}

    return [show_login, log_in, log_out, static, is_alive]
