"""What every request must pass: the right host, a session, and for each change a form that we gave out.

Bound to loopback the page is still reachable by every web site that a browser on that machine opens: hence
the Host check (DNS rebinding), SameSite=Strict cookies, and a token in each form.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Final
from urllib.parse import urlsplit

from aiohttp import web
from multidict import MultiMapping

from holdfast_factory.screen.people import Role
from holdfast_factory.screen.sessions import Session, Sessions, same_token

COOKIE: Final = "line"
TOKEN_FIELD: Final = "form-token"  # noqa: S105 - the name of a field
SESSIONS: Final = web.AppKey("sessions", Sessions)
HOSTS: Final = web.AppKey("hosts", set[str])
SESSION: Final = "session"

# Under "no-referrer" browsers send the Origin "null" with our own forms.
HEADERS: Final = {
    "Content-Security-Policy": "default-src 'none'; script-src 'self'; style-src 'self'; "
    "img-src 'self' data:; connect-src 'self'; form-action 'self'; frame-ancestors 'none'; base-uri 'none'",
    "X-Content-Type-Options": "nosniff",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]

_OPEN_TO_ALL: Final = ("/login", "/static/")


@web.middleware
async def headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    """The security headers, on errors and redirects as well."""
    try:
        response = await handler(request)
    except web.HTTPException as error:
        error.headers.update(HEADERS)
        raise
    if not response.prepared:
        response.headers.update(HEADERS)
    return response


@web.middleware
async def host(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Only by the names that we were started under."""
    if request.host not in request.app[HOSTS]:
        raise web.HTTPMisdirectedRequest(text="This page is not served under that name.\n")
    return await handler(request)


@web.middleware
async def session(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Everything but the login wants a session; whoever has none is led there."""
    found = request.app[SESSIONS].find(request.cookies.get(COOKIE, ""))
    if found is not None:
        request[SESSION] = found
    elif not request.path.startswith(_OPEN_TO_ALL):
        raise web.HTTPSeeOther("/login")
    return await handler(request)


@web.middleware
async def changes(request: web.Request, handler: Handler) -> web.StreamResponse:
    """A POST comes from our own page: its Origin says so, if it is told, and the session's token."""
    if request.method == "POST":
        origin = request.headers.get("Origin")
        if origin is not None and urlsplit(origin).netloc != request.host:
            raise web.HTTPForbidden(text="That form was not sent from this page.\n")
        if SESSION in request and not same_token(request[SESSION], field(await request.post(), TOKEN_FIELD)):
            raise web.HTTPForbidden(text="That form is not from this session: open the page again.\n")
    elif request.method not in {"GET", "HEAD"}:
        raise web.HTTPMethodNotAllowed(request.method, ["GET", "HEAD", "POST"])
    return await handler(request)


def who(request: web.Request) -> Session:
    """The session of a request that passed :func:`session`."""
    found: Session = request[SESSION]
    return found


def only_supervisor(request: web.Request) -> None:
    """Raises 403 for an operator."""
    if who(request).role is not Role.SUPERVISOR:
        raise web.HTTPForbidden(text="That is for a supervisor.\n")


def field(form: MultiMapping[object], name: str) -> str:
    """A text field of a form, empty if it is missing or a file."""
    value = form.get(name, "")
    return value if isinstance(value, str) else ""
