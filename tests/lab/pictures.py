"""Take the pictures of the pages in docs/images: ``python tests/lab/pictures.py [FOLDER]``.

The swarm is a real one. Chromium is needed (Debian: ``apt install chromium``), and a minute or two.
Figures are those of the computer that it runs on, so look at each picture before you commit it.
"""

import argparse
import asyncio
import sys
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
from PIL import Image

from helpers.browser import CHROMIUM, chromium
from swarm.client.client import SwarmClient
from swarm.demo import DRAFT, TARGET, locate
from swarm.demo.local import LocalSwarm
from swarm.gateway.server import Settings, serving

FOLDER = Path(__file__).parents[2] / "docs" / "images"
SPANS = [(0, 2), (1, 5), (2, 4), (4, 6), (4, 8), (6, 8)]  # one to three peers for a layer
KILLED = 5  # of these; the others still serve all layers
LINK_MS = 20.0
WIDTH = 1200
QUESTIONS = (
    "Luis owns 169 marbles. A neighbor carries away 2 baskets of 76. Then 5 baskets with 26 marbles"
    " each are delivered. How many marbles does Luis have in the end?",
    "Mia has 12 coins. A friend brings 30 more coins. At the market, she buys 25 more. How many"
    " coins does Mia have in the end?",
)
TELLING = (
    "branch",
    "corrected",
    "drafted",
)  # fates of a token that is pointed at: the first that there is
PATIENCE_MS = 120_000
COLOURS = 256


async def main(folder: Path) -> None:
    """Take all pictures. Raises what playwright and `LocalSwarm` raise."""
    if CHROMIUM is None:
        raise SystemExit("no Chromium is installed: apt install chromium")
    torch.set_num_threads(1)
    async with AsyncExitStack() as life:
        swarm = await life.enter_async_context(LocalSwarm(TARGET, SPANS, LINK_MS))
        client = SwarmClient(
            locate(TARGET),
            draft=locate(DRAFT),
            network=swarm.network,
            link_ms=LINK_MS,
            audit_rate=0.0,
        )
        await life.enter_async_context(client)
        url = await life.enter_async_context(serving([client], Settings(port=0, remember=False)))
        browser = await life.enter_async_context(chromium())
        await chat(await page_of(browser, url, 720), folder / "chat.png")
        await speed(browser, url, folder / "speed.png")
        page = await page_of(browser, f"{url}/swarm", 660)
        await page.locator("tr[data-state=online]").nth(len(SPANS) - 1).wait_for()
        swarm.peers[KILLED].kill()
        await watched(page, folder / "swarm.png")


async def page_of(browser: Any, url: str, height: int) -> Any:
    """Open a page for a new visitor."""
    context = await browser.new_context(viewport={"width": WIDTH, "height": height})
    context.set_default_timeout(PATIENCE_MS)
    page = await context.new_page()
    await page.goto(url)
    return page


async def chat(page: Any, file: Path) -> None:
    """Take an answer whose tokens are coloured; the first answer only warms up."""
    await ask(page, QUESTIONS[1])
    await answered(page)
    await page.get_by_role("button", name="New chat").click()
    await ask(page, QUESTIONS[0])
    await answered(page)
    await page.get_by_label("Colour by fate").check()
    for fate in TELLING:
        tokens = page.locator(f".assistant .token[data-fate={fate}]")
        if count := await tokens.count():
            await tokens.nth(count // 3).hover()
            break
    await taken(page, file)


async def speed(browser: Any, url: str, file: Path) -> None:
    """Take two texts that are being written, after two that are done."""
    page = await page_of(browser, f"{url}/speed", 986)
    readers = [await page_of(browser, url, 720) for _ in QUESTIONS]
    await asyncio.gather(*map(ask, readers, QUESTIONS))
    await asyncio.gather(*map(answered, readers))
    await asyncio.gather(*map(ask, readers, QUESTIONS))
    await page.get_by_text("2 generations now").wait_for()
    await taken(page, file)


async def watched(page: Any, file: Path) -> None:
    """Take the swarm, of which one peer has gone without a word."""
    await page.get_by_text("unreachable", exact=True).wait_for()
    await taken(page, file)


async def ask(page: Any, question: str) -> None:
    await page.get_by_role("textbox", name="Message").fill(question)
    await page.keyboard.press("Enter")


async def answered(page: Any) -> None:
    await page.locator(".assistant .note").last.filter(has_text="tokens/s").wait_for()


async def taken(page: Any, file: Path) -> None:
    """Take a picture of few colours, which is a quarter as large."""
    await page.screenshot(path=file)
    with Image.open(file) as picture:
        picture.convert("RGB").quantize(COLOURS).save(file, optimize=True)
    print(file)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("folder", nargs="?", type=Path, default=FOLDER)
    asyncio.run(main(parser.parse_args().folder))
