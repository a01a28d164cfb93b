"""A window of the browser with the console in it."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from urllib.parse import urlsplit

from playwright.sync_api import Browser, ConsoleMessage, Page, Request

from tests.console.browser import DEADLINE_MILLISECONDS
from tests.gateway_harness.stage import PASSWORD, USER

WIDE = (1280, 800)
NARROW = (375, 720)
# The browser reports every refused request as an error of the page; the page itself shows them in words. Without HTTPS it also
# reports that it ignores a header that needs HTTPS.
_EXPECTED = ("Failed to load resource", "The Cross-Origin-Opener-Policy header has been ignored")


@dataclass(kw_only=True)
class Window:
    """One page, and what went wrong in it."""

    page: Page
    address: str
    """Of the gateway."""
    faults: list[str] = field(default_factory=list)
    """Errors of scripts, violations of the policy, and requests to other hosts."""

    def open(self, path: str = "") -> None:
        """Show a page of the console, such as `#/new`."""
        self.page.goto(f"{self.address}/console/{path}")

    def log_in(self, path: str = "", *, user: str = USER, password: str = PASSWORD) -> None:
        """Show a page, and log in for it."""
        self.open(path)
        self.fill_log_in(user, password)
        self.page.get_by_role("button", name="Log out").wait_for()

    def fill_log_in(self, user: str, password: str) -> None:
        self.page.get_by_label("User name").fill(user)
        self.page.locator("input[type=password]:enabled").fill(password)
        self.page.get_by_role("button", name="Log in").click()

    def go(self, path: str) -> None:
        """Show another page without loading the console again, which would log out."""
        self.page.evaluate("hash => { location.hash = hash }", path)

    def _note_message(self, message: ConsoleMessage) -> None:
        if message.type == "error" and not message.text.startswith(_EXPECTED):
            self.faults.append(message.text)

    def _note_request(self, request: Request) -> None:
        if urlsplit(request.url).scheme not in ("blob", "data") and not request.url.startswith(self.address):
            self.faults.append(f"request to {request.url}")


@contextmanager
def open_window(
    browser: Browser, address: str, *, size: tuple[int, int] = WIDE, dark: bool = False, **options: object
) -> Iterator[Window]:
    """A new window without cookies or stored values."""
    width, height = size
    context = browser.new_context(
        viewport={"width": width, "height": height},
        color_scheme="dark" if dark else "light",
        reduced_motion="reduce",
        **options,  # type: ignore[arg-type]
    )
    context.set_default_timeout(DEADLINE_MILLISECONDS)
    window = Window(page=context.new_page(), address=address)
    window.page.on("console", window._note_message)
    window.page.on("pageerror", lambda error: window.faults.append(str(error)))
    window.page.on("request", window._note_request)
    yield window
    context.close()
