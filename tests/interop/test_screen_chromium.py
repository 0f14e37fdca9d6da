"""A whole shift at the line screen, in a real Chromium: 20 units of which 2 fail, printing again, export.

Everything behind the page is real: the screen's process, the station that it starts, a software TPM a unit.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

import pytest
from cryptography import x509
from selenium import webdriver
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.common.keys import Keys
from selenium.webdriver.remote.webelement import WebElement
from selenium.webdriver.support.ui import WebDriverWait

from holdfast.wire import manifest
from holdfast_factory.authority import Product
from holdfast_factory.line.database import Database
from holdfast_factory.line.entries import Kind
from holdfast_factory.line.plant import init_plant
from holdfast_factory.line.reading import Reading
from holdfast_factory.screen import people
from holdfast_factory.screen.people import Role
from holdfast_factory.swtpm import Swtpm
from holdfast_factory.tpm_meter import TpmMeter
from proofs.bench_floor import ChipMaker
from tests.tools import need

pytestmark = [pytest.mark.interop, pytest.mark.timeout(900)]

UNITS = 20
FAKES = (7, 13)
"""These come from a maker whose root the line does not have."""
PATIENCE = 240
OPERATOR = ("ada", "an operator's password")
SUPERVISOR = ("grace", "a supervisor's password")


@dataclass
class Robot:
    """Lays unit after unit into the station's fixture, and takes each out when the ledger has had its say."""

    home: Path
    reading: Reading
    fault: BaseException | None = None
    fakes: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        self._good = ChipMaker(self.home / "maker.pem")
        self._other = ChipMaker(self.home / "other.pem")
        self._socket = TpmMeter(None)
        self._end = threading.Event()
        self._thread = threading.Thread(target=self._serve)

    @property
    def place(self) -> str:
        return f"tcti:{self._socket.tcti}"

    def __enter__(self) -> Robot:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._end.set()
        self._thread.join()
        self._socket.close()
        if self.fault is not None:
            raise self.fault

    def _serve(self) -> None:
        try:
            for number in range(UNITS):
                home = self.home / f"unit{number}"
                fake = number in FAKES
                unit = (self._other if fake else self._good).make(home)
                if fake:
                    self.fakes.append(unit)
                with Swtpm(home) as chip:
                    self._socket.move(chip.port)
                    while not self._judged(unit):
                        if self._end.wait(0.05):
                            return
                    self._socket.move(None)
                shutil.rmtree(home)
        except BaseException as error:  # noqa: BLE001 - carried to the test
            self.fault = error

    def _judged(self, unit: str) -> bool:
        after, ended = 0, {Kind.SEALED, Kind.FAILED}
        while entries := self.reading.events(after):
            if any(entry.unit == unit and entry.kind in ended for entry in entries):
                return True
            after = entries[-1].seq
        return False


@contextmanager
def screen(factory: Path, robot: Robot, labels: Path) -> Iterator[str]:
    """The screen as a user starts it; its URL."""
    words = [sys.executable, "-m", "holdfast_factory.cli", "screen", "--factory", str(factory)]
    words += ["--station", f"north={robot.place}", "--makers", str(robot.home / "maker.pem")]
    with subprocess.Popen([*words, "--labels", str(labels)], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout is not None
        try:
            yield process.stdout.readline().strip()
        finally:
            process.terminate()
            status = process.wait(60)
    assert status == 0, "a screen that is stopped ends well"


@contextmanager
def chromium(home: Path) -> Iterator[webdriver.Chrome]:
    options = webdriver.ChromeOptions()
    options.binary_location = need("chromium", "chromium")
    for word in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run",
        "--disable-sync", "--disable-background-networking", "--disable-component-update",
        "--window-size=1180,940",
        f"--user-data-dir={home / 'profile'}",
    ):  # fmt: skip
        options.add_argument(word)
    options.add_experimental_option("prefs", {"download.default_directory": str(home / "downloads")})
    options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
    driver = webdriver.Chrome(options, Service(need("chromedriver", "chromium-driver")))
    try:
        yield driver
    finally:
        driver.quit()


class Person:
    """Somebody at the keyboard."""

    def __init__(self, driver: webdriver.Chrome, url: str) -> None:
        self.driver = driver
        self.url = url

    def wait(self, text: str, selector: str) -> WebElement:
        """Until the element says *text*; a live page may replace it while we look."""

        def says(driver: webdriver.Chrome) -> WebElement | None:
            found = driver.find_elements(By.CSS_SELECTOR, selector)
            return next((each for each in found if text in each.text), None)

        waiting = WebDriverWait(self.driver, PATIENCE, ignored_exceptions=stale())
        return waiting.until(says, f"{selector} never said {text!r}: {self.driver.page_source[-4000:]}")

    def type(self, *keys: str) -> None:
        """Into whatever has the keyboard."""
        self.driver.switch_to.active_element.send_keys(*keys)

    def log_in(self, person: tuple[str, str]) -> None:
        self.driver.get(self.url)
        self.type(person[0], Keys.TAB, person[1], Keys.ENTER)
        self.wait(person[0], "#who")

    def says(self, selector: str) -> str:
        return self.wait("", selector).text


def stale() -> tuple[type[Exception], ...]:
    from selenium.common.exceptions import StaleElementReferenceException

    return (StaleElementReferenceException,)


def test_a_shift(tmp_path: Path) -> None:
    factory, labels = tmp_path / "factory", tmp_path / "labels"
    init_plant(factory, Product("masa.example:9443"), datetime.now(UTC).replace(microsecond=0))
    people.admit(factory, OPERATOR[0], Role.OPERATOR, OPERATOR[1])
    people.admit(factory, SUPERVISOR[0], Role.SUPERVISOR, SUPERVISOR[1])
    (tmp_path / "downloads").mkdir()
    database = Database(f"sqlite:///{factory / 'line.db'}")
    database.prepare()
    robot = Robot(tmp_path, Reading(database))
    try:
        with screen(factory, robot, labels) as url, chromium(tmp_path) as driver:
            person = Person(driver, url)
            person.log_in(OPERATOR)
            work(person, robot)
            find_and_print(person, labels)
            person.wait("Log out", "header button").click()
            person.log_in(SUPERVISOR)
            picture(driver)
            person.wait("Export for the MASA", "#export-masa").click()
            devices = exported(person, tmp_path / "downloads", factory)
            assert len(devices) == len(set(devices)) == UNITS - len(FAKES)
            person.wait("Audit the ledger", "#audit").click()
            person.wait("the chain is whole", "main")
            severe = [entry for entry in driver.get_log("browser") if entry["level"] == "SEVERE"]
            assert severe == [], "no script error, and nothing that the page's own policy forbids"
    finally:
        database.close()


def work(person: Person, robot: Robot) -> None:
    """By keyboard alone from the search field to the station's button, and then only looking."""
    person.wait("stopped", "#stations")
    assert person.driver.switch_to.active_element.get_attribute("id") == "search"
    for _ in range(12):
        person.type(Keys.TAB)
        if person.driver.switch_to.active_element.text == "Start":
            break
    person.type(Keys.ENTER)
    person.wait("Stop", "#stations button.stop")
    person.driver.execute_script("window.same = true")  # type: ignore[no-untyped-call]
    with robot:
        person.wait(str(UNITS - len(FAKES)), "#sealed")
        person.wait(str(len(FAKES)), "#failed")
    assert person.driver.execute_script("return window.same") is True, "the page was never loaded again"  # type: ignore[no-untyped-call]
    assert person.says("#yield") == "90 %"
    causes = person.driver.find_elements(By.CSS_SELECTOR, ".charts svg .bad")
    assert len(causes) == 1, "both failed for one cause"
    person.wait("Stop", "#stations button.stop").click()
    person.wait("stopped", "#stations")


def find_and_print(person: Person, labels: Path) -> None:
    """Scan a label as a keyboard scanner does, and print it once more."""
    (label,) = labels.glob("GW-000005.png")
    code = subprocess.run(
        [need("zbarimg", "zbar-tools"), "--quiet", "--raw", label], capture_output=True, check=True, text=True
    ).stdout
    printed = labels / "GW-000005.zpl"
    printed.unlink()
    person.type(code.strip(), Keys.ENTER)
    person.wait("GW-000005", "h1#serial")
    person.wait("Print again", "#reprint").click()
    person.wait("again, for ada", "#story")
    assert printed.read_text().startswith("^XA")
    person.wait("Holdfast Example Works", "header a.name").click()
    person.wait("stopped", "#stations")


def exported(person: Person, downloads: Path, factory: Path) -> list[str]:
    """The serial numbers in the manifest that the browser saved."""

    def saved(_: webdriver.Chrome) -> Path | None:
        return next(downloads.glob("masa-*.cms"), None)

    path = WebDriverWait(person.driver, 60).until(saved, "nothing was saved")
    signer = x509.load_pem_x509_certificate((factory / "line-signer.pem").read_bytes())
    return [device.serial for device in manifest.decode(path.read_bytes(), signer).devices]


def picture(driver: webdriver.Chrome) -> None:
    """For docs/factory-screen.png, where HOLDFAST_PICTURE names a file."""
    if path := os.environ.get("HOLDFAST_PICTURE"):
        driver.save_screenshot(path)
