"""The line screen over HTTP, on a real ledger: who gets in, what is shown, and what is refused."""

from __future__ import annotations

import asyncio
import re
import sys
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import aiohttp
import pytest

from holdfast.wire import manifest
from holdfast.wire.errors import ConfigError
from holdfast_factory.line.book import Book
from holdfast_factory.line.database import Database
from holdfast_factory.line.plant import Plant
from holdfast_factory.screen import people
from holdfast_factory.screen.desk import Desk
from holdfast_factory.screen.people import Role
from holdfast_factory.screen.server import Listening, serving
from holdfast_factory.screen.stations import Stations
from holdfast_factory.unit import StepName
from tests.factory.ledgers import Clock, make_device, plant_in, unit_name

OPERATOR = ("ada", "an operator's password")
SUPERVISOR = ("grace", "a supervisor's password")
IDLE = (sys.executable, "-c", "import sys; sys.stdin.close(); import signal; signal.pause()")


@dataclass
class Line:
    """A factory with a ledger, and people who may look at it."""

    plant: Plant
    book: Book
    clock: Clock
    directory: Path
    spool: Path
    started: list[tuple[str, str]] = field(default_factory=list)

    @asynccontextmanager
    async def open(self, listening: Listening | None = None) -> AsyncIterator[str]:
        def command(name: str, place: str) -> tuple[str, ...]:
            self.started.append((name, place))
            return IDLE

        desk = Desk(Book(self.book.database, "desk", self.clock), self.plant, self.clock(), self.spool)
        stations = Stations({"north": "tcti:north"}, command)
        async with serving(desk, stations, self.directory, listening or Listening(), now=self.clock) as url:
            yield url.rstrip("/")


@pytest.fixture
def line(tmp_path: Path) -> Iterator[Line]:
    clock = Clock()
    with plant_in(tmp_path / "factory") as plant:
        database = Database(f"sqlite:///{tmp_path / 'line.db'}")
        book = Book(database, "south", clock)
        database.prepare()
        book.station_up({})
        people.admit(plant.directory, OPERATOR[0], Role.OPERATOR, OPERATOR[1])
        people.admit(plant.directory, SUPERVISOR[0], Role.SUPERVISOR, SUPERVISOR[1])
        (tmp_path / "spool").mkdir()
        yield Line(plant, book, clock, plant.directory, tmp_path / "spool")
        database.close()


class Browser:
    """Logs in, and sends forms as a page would."""

    def __init__(self, http: aiohttp.ClientSession, url: str) -> None:
        self.http = http
        self.url = url
        self.token = ""

    async def log_in(self, person: tuple[str, str]) -> int:
        answer = await self.http.post(
            f"{self.url}/login", data={"name": person[0], "password": person[1]}, allow_redirects=False
        )
        if answer.status == 303:
            self.token = (re.findall(r'data-token="([^"]+)"', await self.get("/")) or [""])[0]
        return answer.status

    async def get(self, path: str) -> str:
        async with self.http.get(self.url + path, allow_redirects=False) as answer:
            return await answer.text()

    async def status(self, path: str, **headers: str) -> int:
        async with self.http.get(self.url + path, allow_redirects=False, headers=headers) as answer:
            return answer.status

    async def post(
        self, path: str, *, token: str | None = None, serial: str = "", **headers: str
    ) -> tuple[int, bytes]:
        data = {"form-token": self.token if token is None else token, "serial": serial}
        async with self.http.post(
            self.url + path, data=data, allow_redirects=False, headers=headers
        ) as answer:
            return answer.status, await answer.read()


def visit(
    line: Line, what: Callable[[Browser], Awaitable[None]], person: tuple[str, str] | None = None
) -> None:
    """Run *what* with a browser on the page of *line*, logged in as *person*."""

    async def run() -> None:
        # Cookies of numeric hosts are off by default there, unlike in a browser.
        async with (
            line.open() as url,
            aiohttp.ClientSession(cookie_jar=aiohttp.CookieJar(unsafe=True)) as http,
        ):
            browser = Browser(http, url)
            if person is not None:
                assert await browser.log_in(person) == 303
            await what(browser)

    asyncio.run(run())


@pytest.mark.parametrize("path", ["/", "/live", "/events", "/unit?q=1", "/label.png?serial=GW-000001"])
def test_nothing_is_shown_before_the_login(line: Line, path: str) -> None:
    async def what(browser: Browser) -> None:
        assert await browser.status(path) == 303

    visit(line, what)


@pytest.mark.parametrize("path", ["/export/masa", "/audit", "/stations/north/start", "/reprint"])
def test_nothing_is_done_before_the_login(line: Line, path: str) -> None:
    async def what(browser: Browser) -> None:
        status, _ = await browser.post(path)
        assert status == 303

    visit(line, what)
    assert line.started == []


def test_a_wrong_password_and_a_wrong_name_look_alike(line: Line) -> None:
    async def what(browser: Browser) -> None:
        for person in ((OPERATOR[0], "something else"), ("nobody", OPERATOR[1])):
            async with browser.http.post(
                f"{browser.url}/login", data={"name": person[0], "password": person[1]}
            ) as answer:
                assert answer.status == 403
                assert "Name or password is wrong." in await answer.text()

    visit(line, what)


def test_the_sixth_guess_has_to_wait_even_if_it_is_right(line: Line) -> None:
    async def what(browser: Browser) -> None:
        for _ in range(5):
            assert await browser.log_in((OPERATOR[0], "a wrong guess")) == 403
        assert await browser.log_in(OPERATOR) == 429
        assert await browser.log_in(SUPERVISOR) == 303

    visit(line, what)


def test_the_cookie_is_kept_from_scripts_and_other_sites(line: Line) -> None:
    async def what(browser: Browser) -> None:
        data = {"name": OPERATOR[0], "password": OPERATOR[1]}
        async with browser.http.post(f"{browser.url}/login", data=data, allow_redirects=False) as answer:
            cookie = answer.headers["Set-Cookie"]
        assert "HttpOnly" in cookie
        assert "SameSite=Strict" in cookie

    visit(line, what)


@pytest.mark.parametrize("path", ["/", "/login", "/static/screen.js", "/nowhere"])
def test_every_answer_forbids_foreign_scripts_and_frames(line: Line, path: str) -> None:
    async def what(browser: Browser) -> None:
        async with browser.http.get(browser.url + path, allow_redirects=False) as answer:
            policy = answer.headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "unsafe" not in policy

    visit(line, what)


def test_another_host_name_is_refused(line: Line) -> None:
    async def what(browser: Browser) -> None:
        assert await browser.status("/login", Host="evil.example") == 421

    visit(line, what)


@pytest.mark.parametrize("path", ["/stations/north/start", "/logout", "/reprint"])
def test_a_form_of_another_page_is_refused(line: Line, path: str) -> None:
    async def what(browser: Browser) -> None:
        assert (await browser.post(path, token=""))[0] == 403
        assert (await browser.post(path, token="x" * 43))[0] == 403
        assert (await browser.post(path, Origin="http://evil.example"))[0] == 403
        assert await browser.status("/") == 200, "still logged in"

    visit(line, what, OPERATOR)
    assert line.started == []


@pytest.mark.parametrize("path", ["/export/masa", "/export/owner", "/audit"])
def test_an_operator_may_not_do_what_a_supervisor_may(line: Line, path: str) -> None:
    async def what(browser: Browser) -> None:
        assert (await browser.post(path))[0] == 403
        assert 'action="/export' not in await browser.get("/")

    visit(line, what, OPERATOR)


def test_a_page_of_the_line(line: Line) -> None:
    make_device(line.book, line.plant, 1)
    make_device(line.book, line.plant, 2)
    unit = unit_name(3)
    line.book.meet(unit, b"e", "GW-{:06d}".format, "")
    line.book.failed(unit, StepName.ENDORSEMENT, "factory.ek", "<b>no root</b>")

    async def what(browser: Browser) -> None:
        page = await browser.get("/")
        assert '<b id="sealed">2</b>' in page
        assert '<b id="failed">1</b>' in page
        assert '<b id="yield">67 %</b>' in page
        assert "endorsement: factory.ek" in page
        assert 'data-station="north" class="stopped"' in page
        assert 'data-station="south" class="failed"' in page
        story = await browser.get("/unit?q=GW-000003")
        assert "&lt;b&gt;no root&lt;/b&gt;" in story
        assert "<b>no root" not in story

    visit(line, what, OPERATOR)


def test_a_unit_is_found_by_the_code_on_its_label(line: Line) -> None:
    make_device(line.book, line.plant, 1)

    async def what(browser: Browser) -> None:
        for asked in ("GW-000001", "IDEVID:S:GW-000001;M:GW;;", unit_name(1)[:12]):
            async with browser.http.get(f"{browser.url}/unit", params={"q": asked}) as answer:
                assert answer.status == 200
                assert '<h1 id="serial">GW-000001</h1>' in await answer.text()
        assert await browser.status("/unit?q=GW-999999") == 404

    visit(line, what, OPERATOR)


def test_a_label_is_printed_again_and_the_ledger_says_for_whom(line: Line) -> None:
    make_device(line.book, line.plant, 1)

    async def what(browser: Browser) -> None:
        status, _ = await browser.post("/reprint", serial="GW-000001")
        assert status == 303
        assert "again, for ada" in await browser.get("/unit?q=GW-000001")
        assert 'data-station="desk"' not in await browser.get("/"), "whoever prints again is no station"

    visit(line, what, OPERATOR)
    (printed,) = line.spool.iterdir()
    assert printed.read_text().startswith("^XA")
    assert "GW-000001" in printed.read_text()


def test_a_serial_number_with_a_slash_is_one_unit_and_one_file(line: Line) -> None:
    unit = make_device(line.book, line.plant, 1, scanned="../7/A")

    async def what(browser: Browser) -> None:
        page = await browser.get("/unit?q=../7/A")
        assert (await browser.post("/reprint", serial="../7/A"))[0] == 303
        picture = (re.findall(r'src="(/label[^"]+)"', page) or [""])[0]
        assert "<svg" in await browser.get(picture)

    visit(line, what, OPERATOR)
    (printed,) = line.spool.iterdir()
    assert printed.name == "..%2F7%2FA.zpl"
    assert unit


def test_a_unit_that_is_not_sealed_has_no_label(line: Line) -> None:
    line.book.meet(unit_name(1), b"e", "GW-{:06d}".format, "")

    async def what(browser: Browser) -> None:
        assert (await browser.post("/reprint", serial="GW-000001"))[0] == 400
        assert await browser.status("/label.png?serial=GW-000001") == 400
        assert "reprint" not in await browser.get("/unit?q=GW-000001")

    visit(line, what, OPERATOR)
    assert list(line.spool.iterdir()) == []


def test_a_supervisor_takes_the_manifest_home(line: Line) -> None:
    make_device(line.book, line.plant, 1)

    async def what(browser: Browser) -> None:
        status, content = await browser.post("/export/masa")
        assert status == 200
        found = manifest.decode(content, line.plant.signer.certificate)
        assert [device.serial for device in found.devices] == ["GW-000001"]
        assert (await browser.post("/export/everybody"))[0] == 400

    visit(line, what, SUPERVISOR)


def test_a_supervisor_audits(line: Line) -> None:
    make_device(line.book, line.plant, 1)

    async def what(browser: Browser) -> None:
        status, content = await browser.post("/audit")
        assert status == 200
        assert b"the chain is whole" in content

    visit(line, what, SUPERVISOR)


def test_a_station_is_started_once_and_stopped(line: Line) -> None:
    async def what(browser: Browser) -> None:
        for _ in range(2):
            assert (await browser.post("/stations/north/start"))[0] == 303
        assert 'action="/stations/north/stop"' in await browser.get("/")
        assert (await browser.post("/stations/north/stop"))[0] == 303
        assert 'action="/stations/north/start"' in await browser.get("/")
        assert (await browser.post("/stations/south/start"))[0] == 400

    visit(line, what, OPERATOR)
    assert line.started == [("north", "tcti:north")]


def test_a_shift_counts_from_its_first_start(line: Line) -> None:
    make_device(line.book, line.plant, 1)

    async def what(browser: Browser) -> None:
        assert '<b id="sealed">1</b>' in await browser.get("/")
        await browser.post("/stations/north/start")
        assert '<b id="sealed">0</b>' in await browser.get("/")

    visit(line, what, OPERATOR)


def test_an_open_page_is_told_that_the_ledger_grew(line: Line) -> None:
    async def what(browser: Browser) -> None:
        async with browser.http.get(f"{browser.url}/events") as events:
            assert await events.content.readuntil(b"\n\n") == b"retry: 1000\n\n"
            make_device(line.book, line.plant, 1)
            assert await asyncio.wait_for(events.content.readuntil(b"\n\n"), 20) == b"event: grown\ndata:\n\n"

    visit(line, what, OPERATOR)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "192.0.2.1", "example.com"])
def test_beyond_loopback_it_wants_tls(line: Line, host: str) -> None:
    async def run() -> None:
        async with line.open(Listening(host)):
            pytest.fail("it was served")

    with pytest.raises(ConfigError, match="is not loopback"):
        asyncio.run(run())


def test_no_body_is_too_large_to_be_refused(line: Line) -> None:
    async def what(browser: Browser) -> None:
        data = {"name": "ada", "password": "x" * 20_000}
        async with browser.http.post(f"{browser.url}/login", data=data) as answer:
            assert answer.status == 413

    visit(line, what)
