"""The chat page in a browser, and a model that says what it is told."""

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

from aiohttp import web

from helpers.browser import DESKTOP, chromium, visitor
from swarm.client.status import ModelStatus, PeerStatus
from swarm.gateway.pages import add_pages
from swarm.gateway.speedometer import Speedometer
from swarm.gateway.watch import Watch

COMPLETIONS = "**/v1/chat/completions"
PEER = PeerStatus(
    peer_id="12D3KooWabcdefgh",
    layers=(0, 4),
    dtype="bfloat16",
    tokens_per_second=1234.5,
    free_cache_tokens=123_456,
    state="unreachable",
    software="swarm/0.10.12",
    rtt_ms=1234.5,
    path="direct",
    head=True,
)
# An answer with some of everything.
MARKDOWN = """# Languages

Some **bold**, some *italic*, `code`, a
second line and a [link](https://example.org/a?b=1&amp;c=2).

| name | year |
|:-----|-----:|
| Rust | 2015 |
| Go<br>lang | 2009 |

1. first

   ```python
   print("a" * 200)  # a line too long for a telephone, which has to scroll it by itself
   ```
2. second
   - [x] done
   - [ ] to do

> quoted

#### 147 &lt; 200

The sum \\( a_1 * b_2 * c_3 \\) costs $5, not $6.

\\[
x_1 = \\frac{1}{2}
\\]

=$$x
$$
"""


@dataclass
class Site:
    """The page, and a model that says what it is told."""

    browser: Any
    url: str
    asked: list[dict[str, Any]] = field(default_factory=list)  # bodies of requests

    @asynccontextmanager
    async def page(
        self, *answers: str, scheme: str = "light", size: dict[str, int] = DESKTOP
    ) -> AsyncIterator[Any]:
        """Open the chat; the model gives these answers in turn, and then "It is done."."""
        self.asked.clear()
        left = list(answers)

        async def complete(route: Any) -> None:
            self.asked.append(route.request.post_data_json)
            body = events_of(left.pop(0) if left else "It is done.")
            await route.fulfill(body=body, content_type="text/event-stream")

        async with visitor(self.browser, self.url, scheme, size) as page:
            await page.context.route(COMPLETIONS, complete)
            await page.goto("/")
            yield page

    @property
    def messages(self) -> list[str]:
        """The contents of the last request's messages."""
        return [message["content"] for message in self.asked[-1]["messages"]]


def events_of(answer: str) -> str:
    """Return an answer as a gateway streams it. What is before ``</think>`` is a thought."""
    thought, mark, content = answer.rpartition("</think>")
    deltas = [{"reasoning_content": thought}] if mark else []
    texts = [content[at : at + 9] for at in range(0, len(content), 9)]
    stats: dict[str, Any] = {
        "new_tokens": len(texts),
        "tokens_per_second": 10.0,
        "loops": 1,
        "loop_ms": 1.0,
    }
    stats |= {"verification": "exact", "audits": {"caught": [], "failures": {}}}
    chunks: list[dict[str, Any]] = [{"choices": [{"delta": delta}]} for delta in deltas]
    for text in texts:
        piece = {"text": text, "origin": "drafted", "reason": "", "deficit_nats": 0.0}
        chunks.append({"choices": [{"delta": {"content": text}}], "swarm": {"pieces": [piece]}})
    chunks.append({"choices": [{"delta": {}}], "swarm": {"stats": stats}})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


@asynccontextmanager
async def chat_page() -> AsyncIterator[Site]:
    """Serve it, with a peer that is nowhere."""

    async def look() -> list[ModelStatus]:
        return [ModelStatus("scripted", "f" * 32, 4, (PEER,), ())]

    async def models(_: web.Request) -> web.Response:
        return web.json_response({"data": [{"id": "scripted"}]})

    app = web.Application()
    async with AsyncExitStack() as life:
        watch = await life.enter_async_context(Watch(look))
        add_pages(app, watch, Speedometer())
        app.router.add_get("/v1/models", models)
        runner = web.AppRunner(app, shutdown_timeout=5.0)
        await runner.setup()
        life.push_async_callback(runner.cleanup)
        await web.TCPSite(runner, "127.0.0.1", 0).start()
        browser = await life.enter_async_context(chromium())
        yield Site(browser, f"http://127.0.0.1:{runner.addresses[0][1]}")


async def ask(page: Any, question: str, answers: int) -> None:
    """Ask, and wait until so many answers are shown."""
    await page.get_by_role("textbox", name="Message").fill(question)
    await page.keyboard.press("Enter")
    await answered(page, answers)


async def answered(page: Any, answers: int) -> None:
    notes = page.locator(".assistant .note").filter(has_text="tokens/s")
    await notes.nth(answers - 1).wait_for()


async def shown(page: Any) -> list[str]:
    """Return the texts of all turns."""
    return [text.strip() for text in await page.locator("article .text").all_text_contents()]
