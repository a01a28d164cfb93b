"""Walking through a page with the keyboard."""

from __future__ import annotations

from playwright.sync_api import Page, expect

_LIMIT = 80
_FOCUSED_TEXT = "(selector) => document.activeElement.matches(selector) ? document.activeElement.textContent : null"


def press_until(page: Page, key: str, selector: str, *, name: str | None = None) -> None:
    """Press a key until an element, with this text if there is one, has the focus."""
    for _ in range(_LIMIT):
        page.keyboard.press(key)
        # In one step: a page that draws itself anew moves the focus.
        focused = page.evaluate(_FOCUSED_TEXT, selector)
        if focused is not None and name in (None, focused.strip()):
            return
    raise AssertionError(f"{key} never reaches {selector} {name or ''}")


def apply_corrections(page: Page) -> None:
    """From anywhere before the bar of corrections: ask what will happen, and confirm it."""
    press_until(page, "Tab", ".corrections-bar button:focus", name="Apply and retrain…")
    page.keyboard.press("Enter")
    expect(page.locator(".pending-effect button").first).to_be_focused()
    page.keyboard.press("Enter")
