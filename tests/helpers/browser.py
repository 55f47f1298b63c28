"""A real browser, for tests of the gateway's pages; these are skipped where there is none."""

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
axe = pytest.importorskip(
    "axe_playwright_python.async_playwright", reason="axe-playwright-python is not installed"
)

CHROMIUM = next(
    filter(None, map(shutil.which, ("chromium", "chromium-browser", "google-chrome"))), None
)
FLAGS = [
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-gpu",
    "--disable-sync",
    "--no-first-run",
    "--no-sandbox",
]
PHONE, DESKTOP = {"width": 360, "height": 667}, {"width": 1280, "height": 800}
WAIT_MS = 30_000  # for what must come true

needs_browser = [
    pytest.mark.asyncio(loop_scope="module"),
    pytest.mark.skipif(
        CHROMIUM is None, reason="no Chromium is installed (Debian: apt install chromium)"
    ),
]


@asynccontextmanager
async def chromium() -> AsyncIterator[Any]:
    """Start Chromium, and stop it at the end."""
    async with playwright.async_playwright() as running:
        browser = await running.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        try:
            yield browser
        finally:
            await browser.close()


@asynccontextmanager
async def visitor(
    browser: Any, url: str, scheme: str = "light", size: dict[str, int] = DESKTOP
) -> AsyncIterator[Any]:
    """Yield an empty page of a new visitor; no script may fail, or violate a policy."""
    context = await browser.new_context(base_url=url, color_scheme=scheme, viewport=size)
    context.set_default_timeout(WAIT_MS)
    page = await context.new_page()
    complaints: list[str] = []
    page.on("pageerror", lambda error: complaints.append(str(error)))
    page.on(
        "console",
        lambda message: complaints.append(message.text) if message.type == "error" else None,
    )
    try:
        yield page
        assert [
            text for text in complaints if "the server responded with a status" not in text
        ] == []
    finally:
        await context.close()


async def violations(page: Any) -> list[str]:
    """Return what axe finds: the rule, and the beginning of the element."""
    found = (await axe.Axe().run(page)).response["violations"]
    return [f"{each['id']}: {node['html'][:120]}" for each in found for node in each["nodes"]]


async def tab_to(page: Any, selector: str, key: str) -> None:
    """Press ``key`` until an element that matches has the focus."""
    for _ in range(40):
        await page.keyboard.press(key)
        if await page.evaluate("selector => document.activeElement.matches(selector)", selector):
            return
    raise AssertionError(f"{selector} cannot be reached with {key}")
