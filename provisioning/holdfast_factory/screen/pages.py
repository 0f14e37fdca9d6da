"""The pages and what their buttons do."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Final

import jinja2
from aiohttp import web
from markupsafe import Markup

from holdfast_factory import labels
from holdfast_factory.screen import people
from holdfast_factory.screen.desk import Desk
from holdfast_factory.screen.guard import (
    COOKIE,
    SESSION,
    SESSIONS,
    TOKEN_FIELD,
    field,
    only_supervisor,
    who,
)
from holdfast_factory.screen.live import Pulse
from holdfast_factory.screen.stations import Stations

TEMPLATES: Final = Path(__file__).parent / "templates"


class Pages:
    """One handler a route. Questions to the ledger run in a thread: a slow database stops no page."""

    def __init__(
        self, desk: Desk, stations: Stations, pulse: Pulse, accounts: Path, now: Callable[[], datetime]
    ) -> None:
        self._desk = desk
        self._stations = stations
        self._accounts = accounts
        self._now = now
        self.pulse = pulse
        self._templates = jinja2.Environment(
            loader=jinja2.FileSystemLoader(TEMPLATES),
            autoescape=True,
            undefined=jinja2.StrictUndefined,
            trim_blocks=True,
            lstrip_blocks=True,
        )

    async def line(self, request: web.Request) -> web.Response:
        """The page of the line."""
        return self._page(request, "line.html", await self._facts())

    async def live(self, request: web.Request) -> web.Response:
        """Its live part alone."""
        return self._page(request, "live.html", await self._facts())

    async def login(self, request: web.Request) -> web.Response:
        """The form."""
        if SESSION in request:
            raise web.HTTPSeeOther("/")
        return self._page(request, "login.html", {})

    async def log_in(self, request: web.Request) -> web.Response:
        """A new session, or the form again: it does not tell a wrong name from a wrong password."""
        form = await request.post()
        name = field(form, "name")[:32]
        sessions = request.app[SESSIONS]
        if (seconds := sessions.wait(name)) > 0:
            notice = f"Too many wrong passwords: try again in {seconds:.0f} s."
            return self._page(request, "login.html", {"notice": notice}, status=429)
        person = await asyncio.to_thread(people.known, self._accounts, name, field(form, "password"))
        if person is None:
            sessions.failed(name)
            notice = "Name or password is wrong."
            return self._page(request, "login.html", {"notice": notice}, status=403)
        answer = web.HTTPSeeOther("/")
        answer.set_cookie(
            COOKIE,
            sessions.begin(person.name, person.role),
            httponly=True,
            samesite="Strict",
            secure=request.secure,
            path="/",
        )
        raise answer

    async def log_out(self, request: web.Request) -> web.Response:
        """End the session."""
        request.app[SESSIONS].end(request.cookies.get(COOKIE, ""))
        answer = web.HTTPSeeOther("/login")
        answer.del_cookie(COOKIE, path="/")
        raise answer

    async def unit(self, request: web.Request) -> web.Response:
        """What the ledger knows of one unit, by serial number or by its label's code."""
        asked = labels.scanned_serial(request.query.get("q", ""))
        if not asked:
            raise web.HTTPSeeOther("/")
        story = await asyncio.to_thread(self._desk.story, asked)
        if story is None:
            return self.message(request, "Not known", f"The ledger has no unit {asked!r}.", status=404)
        notice = "Printed again; the ledger says for whom." if "printed" in request.query else ""
        return self._page(request, "unit.html", {**story, "notice": notice})

    async def reprint(self, request: web.Request) -> web.Response:
        """Print a label again; the ledger keeps who did it."""
        serial = field(await request.post(), "serial")
        await asyncio.to_thread(self._desk.reprint, serial, who(request).name)
        raise web.HTTPSeeOther(str(request.rel_url.with_path("/unit").with_query(q=serial, printed="1")))

    async def label(self, request: web.Request) -> web.Response:
        """The label as a file."""
        form = request.match_info["form"]
        label = await asyncio.to_thread(self._desk.label, request.query.get("serial", ""))
        return web.Response(
            body=labels.render(label, form), content_type=labels.SCHEMES[form], charset=_charset(form)
        )

    async def start(self, request: web.Request) -> web.Response:
        """Start one of our stations; the first one begins the shift."""
        if not self._stations.any_running():
            self._desk.begin_shift(self._now())
        await self._stations.start(request.match_info["station"])
        self.pulse.wake()
        raise web.HTTPSeeOther("/")

    async def stop(self, request: web.Request) -> web.Response:
        """Let one of our stations end."""
        await self._stations.stop(request.match_info["station"])
        self.pulse.wake()
        raise web.HTTPSeeOther("/")

    async def export(self, request: web.Request) -> web.Response:
        """The signed manifest, as a download."""
        only_supervisor(request)
        receiver = request.match_info["receiver"]
        now = self._now()
        content = await asyncio.to_thread(self._desk.export, receiver, now)
        name = f"{receiver}-{now:%Y%m%d-%H%M%S}.cms"
        return web.Response(
            body=content,
            content_type="application/cms",
            headers={"Content-Disposition": f'attachment; filename="{name}"'},
        )

    async def audit(self, request: web.Request) -> web.Response:
        """Check the whole chain of the ledger."""
        only_supervisor(request)
        return self.message(request, "Audit", await asyncio.to_thread(self._desk.audit))

    def message(self, request: web.Request, title: str, text: str, status: int = 200) -> web.Response:
        """A page with one sentence."""
        return self._page(request, "message.html", {"title": title, "text": text}, status=status)

    async def _facts(self) -> Mapping[str, object]:
        return await asyncio.to_thread(self._desk.facts, self._stations, self._now())

    def _page(
        self, request: web.Request, template: str, facts: Mapping[str, object], status: int = 200
    ) -> web.Response:
        session = request.get(SESSION)
        token = session.form_token if session else ""
        known: dict[str, object] = {
            "notice": "",
            "session": session,
            "organization": self._desk.organization,
            "model": self._desk.model,
            "token_field": Markup('<input type="hidden" name="{}" value="{}">').format(TOKEN_FIELD, token),
        }
        text = self._templates.get_template(template).render(known | dict(facts))
        return web.Response(text=text, content_type="text/html", status=status)


PAGES: Final = web.AppKey("pages", Pages)


def _charset(form: str) -> str | None:
    return "utf-8" if form in {"txt", "zpl", "svg"} else None
