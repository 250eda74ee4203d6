"""Headless Chromium for tests of pages."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.options import Options
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.by import By
from selenium.webdriver.support.ui import Select

INSTALL = "apt-get install -y --no-install-recommends chromium chromium-driver"
PHONE = (390, 844)
_SWITCHES = (
    "--headless",
    "--no-sandbox",  # a container's root has no other choice
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-dev-shm-usage",
    "--window-size=1280,1600",
)


@contextmanager
def chromium(profile: Path) -> Iterator[webdriver.Chrome]:
    """Start Debian's Chromium with a profile folder of its own, and end it.

    Raises:
        RuntimeError: Chromium or its driver is not installed.
    """
    browser, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if browser is None or driver is None:
        raise RuntimeError(f"the page is tested in Chromium, which is not on this machine; install it with: {INSTALL}")
    options = Options()
    options.binary_location = browser
    for switch in (*_SWITCHES, f"--user-data-dir={profile}"):
        options.add_argument(switch)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    # With both programs named, selenium looks for none of its own.
    chrome = webdriver.Chrome(options=options, service=Service(executable_path=driver))
    try:
        chrome.get("about:blank")
        requests(chrome), complaints(chrome)  # those of the browser's own first page
        yield chrome
    finally:
        chrome.quit()


def screen(chrome: webdriver.Chrome, width: int, height: int, *, phone: bool = False, dark: bool = False) -> None:
    """Set the size of the screen, and light or dark colours."""
    metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": phone}
    chrome.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)
    scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
    chrome.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})


def complaints(chrome: webdriver.Chrome) -> list[str]:
    """Return console messages since the last call, including violations of the content security policy."""
    return [entry["message"] for entry in _log(chrome, "browser")]


def requests(chrome: webdriver.Chrome) -> list[str]:
    """Return the URLs requested since the last call, except those inside the page."""
    sent: list[str] = []
    for entry in _log(chrome, "performance"):
        message: dict[str, Any] = json.loads(entry["message"])["message"]
        if message["method"] == "Network.requestWillBeSent":
            sent.append(message["params"]["request"]["url"])
    return [address for address in sent if not address.startswith("data:")]


def _log(chrome: webdriver.Chrome, kind: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = chrome.execute("getLog", {"type": kind})["value"]
    return found


class Page:
    """A page in the browser."""

    def __init__(self, chrome: webdriver.Chrome, folder: Path) -> None:
        self.chrome = chrome
        self.folder = folder

    def open(self, html: str, fragment: str = "") -> Page:
        file = self.folder / "page.html"
        file.write_text(html, "utf-8")
        self.chrome.get("about:blank")
        self.chrome.get(f"{file.as_uri()}{fragment}")
        return self

    def run(self, script: str) -> Any:
        return self.chrome.execute_script(f"return {script}")

    def text(self, selector: str) -> str:
        return str(self.run(f"document.querySelector({json.dumps(selector)}).textContent"))

    def texts(self, selector: str) -> list[str]:
        found: list[str] = self.run(f"[...document.querySelectorAll({json.dumps(selector)})].map((e) => e.textContent)")
        return found

    def click(self, selector: str) -> None:
        self.chrome.find_element(By.CSS_SELECTOR, selector).click()

    def select(self, name: str, value: str) -> None:
        Select(self.chrome.find_element(By.ID, name)).select_by_value(value)

    def search(self, text: str) -> None:
        box = self.chrome.find_element(By.ID, "search")
        box.clear()
        box.send_keys(text)

    @property
    def shown(self) -> list[str]:
        """The views whose cards are in the document."""
        found: list[str] = self.run("[...document.querySelectorAll('.card')].map((card) => card.dataset.view)")
        return found

    @property
    def all_shown(self) -> list[str]:
        """The views of all pages, by clicking through them."""
        found = self.shown
        while not self.run("document.getElementById('next').disabled"):
            self.click("#next")
            found += self.shown
        return found

    def visible(self, selector: str) -> bool:
        return self.chrome.find_element(By.CSS_SELECTOR, selector).is_displayed()
