"""The pages in a real browser, with a real gateway and a small swarm of the demo model."""

import asyncio
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio
import torch

from helpers.browser import DESKTOP, PHONE, chromium, needs_browser, tab_to, violations, visitor
from helpers.loopback import Peer, WatchedSpan, eventually
from swarm.client.client import SwarmClient
from swarm.config import Network
from swarm.demo import DRAFT, TARGET, locate
from swarm.gateway.keys import ApiKeys
from swarm.gateway.server import Settings, serving
from swarm.identity import Identity
from swarm.model.checkpoint import Checkpoint
from swarm.model.span import Span
from swarm.model.work import Work
from swarm.network.dht.directory import Directory
from swarm.network.dht.records import REFRESH_INTERVAL_S
from swarm.util.tasks import end

SPANS = [(0, 3), (3, 6), (6, 8)]
DASH = "\u2013"
LAYERS = [f"layers {first}{DASH}{last - 1}" for first, last in SPANS]
QUESTION = (
    "Max starts with 218 buttons. A friend takes 30 buttons away. How many buttons does Max have in"
    " the end?"
)
KEY = "a-key-that-is-not-guessed"

pytestmark = needs_browser


class HeldSpan(WatchedSpan):
    """Computes ``left`` times, and then waits for `go_on`; always if ``left`` is None."""

    left: int | None = None

    def forward(self, batch: Any, first: int, last: int) -> list[torch.Tensor]:
        works: list[Work] = batch
        if self.left is not None:
            self.left -= 1
            if self.left < 0:
                self.left = None
                self.go_on.clear()
        return super().forward(works, first, last)


@dataclass
class House:
    """Everything in one process: peers, a client, its gateway, and a browser."""

    peers: list[Peer]
    spans: list[HeldSpan]
    client: SwarmClient
    url: str
    browser: Any

    @asynccontextmanager
    async def page(
        self, path: str = "/", scheme: str = "light", size: dict[str, int] = DESKTOP
    ) -> AsyncIterator[Any]:
        """Open a page as a new visitor."""
        async with visitor(self.browser, self.url, scheme, size) as page:
            await page.goto(path)
            yield page


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[House]:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SWARM_CACHE", str(tmp_path_factory.mktemp("cache")))
        async with AsyncExitStack() as life:
            first = await life.enter_async_context(
                await Directory.join(Identity.generate(), Network("test"), bootstrap_node=True)
            )
            network = Network("test", first.addresses)
            checkpoint = Checkpoint.open(locate(TARGET))
            spans = [HeldSpan(Span.load(checkpoint, *layers)) for layers in SPANS]
            peers = [
                await life.enter_async_context(_peer(span, checkpoint, network)) for span in spans
            ]
            client = SwarmClient(
                locate(TARGET), draft=locate(DRAFT), network=network, audit_rate=0.0
            )
            await life.enter_async_context(client)
            # Copies of the same answer would end before they can be stopped.
            settings = Settings(port=0, grace_s=1.0, remember=False)
            url = await life.enter_async_context(serving([client], settings))
            browser = await life.enter_async_context(chromium())
            yield House(peers, spans, client, url, browser)


@asynccontextmanager
async def _peer(span: HeldSpan, checkpoint: Checkpoint, network: Network) -> AsyncIterator[Peer]:
    """Start a peer that the directory lists while it is open."""
    async with Peer(span, checkpoint.fingerprint, cache_tokens=8192, max_positions=1024) as peer:
        server = peer.server
        record = server.record(
            model=checkpoint.name,
            model_layers=checkpoint.num_layers,
            first_layer=span.first,
            last_layer=span.last,
            fingerprint=checkpoint.fingerprint,
        )
        async with await Directory.join(server.identity, network) as directory:
            await directory.publish(record)

            async def refresh() -> None:
                while True:
                    await asyncio.sleep(REFRESH_INTERVAL_S)
                    await directory.publish(record)

            refreshing = asyncio.create_task(refresh())
            try:
                yield peer
            finally:
                await end(refreshing)


async def asked(page: Any, question: str = QUESTION) -> str:
    """Ask by keyboard, and return the whole answer as it is shown."""
    await page.get_by_role("textbox", name="Message").fill(question)
    await page.keyboard.press("Enter")
    await page.locator(".assistant .note").last.filter(has_text="tokens/s").wait_for()
    return str(await page.locator(".assistant .text").last.text_content())


async def test_an_answer_streams_in_with_its_route_and_speed(house: House) -> None:
    async with house.page() as page:
        await page.get_by_label("Colour by fate").check()  # the text as it is written
        answer = await asked(page)
        prompt = f"<|start|>Problem: {QUESTION}\nSolution:"
        ids = house.client.models.tokenizer(prompt, add_special_tokens=False).input_ids
        assert answer == (await house.client.generate(ids, max_new_tokens=256)).text.lstrip()
        assert await page.locator(".assistant .token").count() > 10
        stops = await page.locator("#route li").all_text_contents()
        assert all(
            layers in stop for layers, stop in zip(["You", *LAYERS, "You"], stops, strict=True)
        )
        assert DASH not in await page.locator("#figures").text_content()  # all of them are measured
        await page.goto("/swarm")
        await page.goto("/")
        await page.locator(".assistant .token").first.wait_for()  # it is still there
        assert await page.locator(".assistant .text").text_content() == answer
        await page.get_by_role("button", name="New chat").click()
        assert await page.locator("article").count() == 0
        await page.get_by_role("button", name="Mia has").click()
        assert (await page.get_by_role("textbox", name="Message").input_value()).startswith(
            "Mia has"
        )


@pytest.mark.parametrize("key", [True, False])
async def test_an_answer_can_be_stopped(house: House, key: bool) -> None:
    resting = {each for peer in house.peers for each in peer.handler.sessions}  # of whole answers
    async with house.page() as page:
        house.spans[1].left = 3
        await page.get_by_role("textbox", name="Message").fill(QUESTION)
        await page.keyboard.press("Enter")
        await page.locator(".assistant .markdown p").first.wait_for()
        await eventually(lambda: not house.spans[1].go_on.is_set())
        try:
            if key:
                await page.keyboard.press("Escape")
            else:
                await page.get_by_role("button", name="Stop").click()
            await page.locator(".assistant .note").filter(has_text="Stopped.").wait_for()
        finally:
            house.spans[1].go_on.set()
        assert await page.get_by_role("button", name="Send").is_visible()
        # no peer goes on computing
        await eventually(lambda: all(resting.issuperset(p.handler.sessions) for p in house.peers))
        assert "####" not in await page.locator(".assistant .text").text_content()


async def test_a_keyboard_is_enough(house: House) -> None:
    async with house.page() as page:
        await page.keyboard.type("Mia has 12 coins.")
        await page.keyboard.press("Shift+Enter")
        await page.keyboard.type("She finds 30 more coins. How many coins does Mia have?")
        await page.keyboard.press("Enter")
        await page.locator(".assistant .note").filter(has_text="tokens/s").wait_for()
        assert "coins.\nShe" in await page.locator(".user .text").text_content()
        await tab_to(page, "#fates", "Shift+Tab")
        await page.keyboard.press("Space")
        await tab_to(page, ".assistant .token", "Tab")
        said = [await page.get_by_role("tooltip").text_content()]
        for _ in range(3):
            await page.keyboard.press("ArrowRight")
            said.append(await page.get_by_role("tooltip").text_content())
        assert all(
            any(word in text for word in ("Drafted", "own", "other choice")) for text in said
        )
        await page.goto("/swarm")
        await page.keyboard.press("Tab")
        await page.keyboard.press("Enter")  # the skip link
        assert await page.evaluate("document.activeElement.id") == "main"


async def test_fates_are_coloured_on_demand_and_explained(house: House) -> None:
    async with house.page() as page:
        await asked(page)
        kept = page.locator(".assistant [data-fate=drafted]").first
        background = "node => getComputedStyle(node).backgroundColor"
        assert await kept.count() == 0
        assert not await page.locator("#legend").is_visible()
        await page.get_by_label("Colour by fate").check()
        assert await kept.evaluate(background) != "rgba(0, 0, 0, 0)"
        assert await page.locator("#legend").is_visible()
        await kept.hover()
        await (
            page.get_by_role("tooltip")
            .filter(has_text="Drafted, and what the model itself would say.")
            .wait_for()
        )
        await page.get_by_label("Colour by fate").uncheck()
        assert not await page.get_by_role("tooltip").is_visible()


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_pages_are_accessible(house: House, scheme: str) -> None:
    async with house.page(scheme=scheme) as page:
        await asked(page)
        await page.get_by_label("Colour by fate").check()
        await page.get_by_text("Settings").click()
        assert await violations(page) == []
        for path, there in (("/swarm", ".peers tbody tr"), ("/speed", "#last table")):
            await page.goto(path)
            await page.locator(there).first.wait_for()
            assert await violations(page) == [], path


async def test_pages_fit_a_phone(house: House) -> None:
    async with house.page(size=PHONE) as page:
        await asked(page)
        for path, there in (
            ("/", ".assistant"),
            ("/swarm", ".peers tbody tr"),
            ("/speed", "#last table"),
        ):
            await page.goto(path)
            await page.locator(there).first.wait_for()
            wide, high = await page.evaluate("[document.documentElement.scrollWidth, innerHeight]")
            assert (wide, high) == (PHONE["width"], PHONE["height"]), path


async def test_speed_is_shown(house: House) -> None:
    async with house.page() as page:
        await asked(page)
        await page.goto("/speed")
        await (
            page.locator("#last").get_by_text(house.client.models.checkpoint.name).first.wait_for()
        )
        rows = await page.locator("#loop tbody tr").all_text_contents()
        assert all(layers in row for layers, row in zip(LAYERS, rows[: len(SPANS)], strict=True))
        assert await page.get_by_text("Nothing is being generated.").is_visible()
        parts = await page.locator("#spent li").all_text_contents()
        assert [part.rsplit(" ", 2)[0] for part in parts] == [
            "links",
            "peers computing",
            "judging here",
            "drafting here",
            "waiting",
        ]
        # each is rounded by itself
        assert abs(sum(int(part.split()[-2]) for part in parts) - 100) <= len(parts) / 2
        assert await page.locator("#spent .time span").count() == len(parts)


async def test_a_gateway_with_keys_asks_for_one(house: House) -> None:
    settings = Settings(port=0, keys=ApiKeys([KEY]), grace_s=1.0)
    async with serving([house.client], settings) as url:
        guarded = House(house.peers, house.spans, house.client, url, house.browser)
        async with guarded.page("/swarm") as page:
            for key, there in (("another", "The one you gave is not valid."), (KEY, None)):
                await page.get_by_label("API key", exact=True).fill(key)
                await page.keyboard.press("Enter")
                if there:
                    await page.get_by_text(there).wait_for()
            await page.locator(".peers tbody tr").first.wait_for()
            await page.goto("/")  # and does not ask again
            await asked(page)


async def test_a_peer_that_is_killed_is_shown_and_its_layers_missed(house: House) -> None:
    """This is the last test, because the swarm stays incomplete."""
    async with house.page("/swarm") as page:
        rows = page.locator(".peers tbody tr")
        await rows.nth(2).wait_for()
        assert await page.locator(".peers tbody [data-state=online].state").count() == len(SPANS)
        assert await page.locator(".gaps li").count() == 0
        await house.peers[1].die()
        await page.get_by_text(f"{LAYERS[1]} missing: no peer serves them").first.wait_for()
        assert "unreachable" in await rows.nth(1).text_content()
        assert await violations(page) == []
        await page.goto("/")
        await page.get_by_role("textbox", name="Message").fill(QUESTION)
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name="Stop").click()
        # it can be asked again
        assert await page.get_by_role("textbox", name="Message").input_value() == QUESTION
