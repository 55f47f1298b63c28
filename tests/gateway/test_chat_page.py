"""The chat page in a real browser, with scripted answers: Markdown, turns, conversations."""

import json
import re
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest
import pytest_asyncio
from aiohttp import web

from helpers.browser import DESKTOP, PHONE, chromium, needs_browser, tab_to, violations, visitor
from swarm.client.status import ModelStatus, PeerStatus
from swarm.gateway.pages import add_pages
from swarm.gateway.speedometer import Speedometer
from swarm.gateway.watch import Watch

pytestmark = needs_browser

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
HOSTILE = """<img src=x onerror="window.hacked = 1"> <script>window.hacked = 1</script>

<img src=x onerror="window.hacked = 1">
<iframe srcdoc="<script>parent.hacked = 1</script>"></iframe><style>* { display: none }</style>

[a](javascript:window.hacked=1) [b](JaVaScRiPt&#58;window.hacked=1) [c](data:text/html,<i>)
<javascript:window.hacked=1> ![d](javascript:window.hacked=1) [e] [constructor] [__proto__]
![tracked](https://tracker.example/pixel.png) [f](https://x.example/"onmouseover="window.hacked=1)

[e]: javascript:window.hacked=1
[constructor]: vbscript:1

| <svg onload="window.hacked = 1"> | b |
|---|---|
| &lt;img src=x onerror="window.hacked = 1"&gt; | `<b>` |

```"><img/src=x/onerror=window.hacked=1>
</code></pre><img src=x onerror="window.hacked = 1">
```
"""
# What begins as one kind of block and turns out to be another, or belongs to a block before it.
TRICKY = """para
#tag
# head
- a
- b

  more of b
-
***
1. x

   y
2) z

over
===
a | b
--|--
1 | 2

words
|x|y|
|-|-|: no table

words
\\[ x
\\]: no formula

=$$x
$$

> q
lazy
>> deeper

    indented

    code

```js
~~~
```
- a

- b
  - c

        code of c
  text
+ other
- [ ] open

$$x_1 * y * z$$
\\[
x

y \\]

##
###### deep
* * *
_a_ **b *c* d** ~~e~~ ``f`g`` \\* [unfinished](https://example.org"""
LINKS = """# One
[ref], [ref][] and [text][ref] come before

[ref]: https://example.org/long "title"
[ref]: https://example.org/other

and [ref] again"""
# Kinds of text for which Markdown's usual readers take quadratic time, or run out of stack.
HEAVY = [">" * 9000, "1. " * 3000, "[" * 9000, "_a_" * 3000, "a@" * 4000, "\\[\n" * 3000]
HEAVY += ["- item\n" * 2000, "```\n" + "code\n" * 4000, "word " * 3000]
HEAVY += ["|a|\n|-|\n" + "|b|\n" * 2500]

GROW = """async ([text, step]) => {
  const { GrowingMarkdown, drawMarkdown } = await import("/pages/growing.js");
  const grown = document.createElement("div");
  const whole = document.createElement("div");
  const growing = new GrowingMarkdown(grown);
  let read = 0;
  const put = growing.put;
  growing.put = function (blocks, done) {
    read += blocks.reduce((sum, { raw }) => sum + raw.length, 0);
    put.call(this, blocks, done);
  };
  let first = null;
  let kept = true;
  for (let at = 0; at < text.length; at += step) {
    growing.text += text.slice(at, at + step);
    growing.draw();
    if (growing.settled) first ??= grown.firstChild;
    kept &&= !first || first === grown.firstChild;
  }
  growing.finish();
  drawMarkdown(whole, text);
  for (const each of [grown, whole]) each.normalize();
  const same = grown.isEqualNode(whole);
  return { same, read, kept, grown: grown.outerHTML, whole: whole.outerHTML };
}"""


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
    stats = {"new_tokens": len(texts), "tokens_per_second": 10.0, "loops": 1, "loop_ms": 1.0}
    stats |= {"verification": "exact", "audits": {"caught": [], "failures": {}}}
    chunks: list[dict[str, Any]] = [{"choices": [{"delta": delta}]} for delta in deltas]
    for text in texts:
        piece = {"text": text, "origin": "drafted", "reason": "", "deficit_nats": 0.0}
        chunks.append({"choices": [{"delta": {"content": text}}], "swarm": {"pieces": [piece]}})
    chunks.append({"choices": [{"delta": {}}], "swarm": {"stats": stats}})
    return "".join(f"data: {json.dumps(chunk)}\n\n" for chunk in chunks) + "data: [DONE]\n\n"


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Site]:
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


async def test_answers_are_drawn_as_markdown_and_code_can_be_copied(site: Site) -> None:
    async with site.page(MARKDOWN) as page:
        await page.context.grant_permissions(["clipboard-read", "clipboard-write"])
        await ask(page, "Compare.", 1)
        text = page.locator(".assistant .text")
        assert await text.locator("h3").text_content() == "Languages"
        assert await text.locator("h4").text_content() == "147 < 200"  # one level at a time
        assert await text.locator("td").all_text_contents() == ["Rust", "2015", "Golang", "2009"]
        assert await text.locator("a").get_attribute("href") == "https://example.org/a?b=1&c=2"
        formulas = await text.locator("code.formula, .formula code").all_text_contents()
        assert formulas == ["a_1 * b_2 * c_3", "x_1 = \\frac{1}{2}"]
        assert await text.get_by_text("costs $5, not $6.").is_visible()
        await text.locator(".code").get_by_role("button", name="Copy").click()
        await text.get_by_role("button", name="Copied").wait_for()
        copied = await page.evaluate("navigator.clipboard.readText()")
        assert copied.startswith('print("a" * 200)')
        await page.locator(".assistant .actions").get_by_role("button", name="Copy").click()
        await page.locator(".actions").get_by_role("button", name="Copied").wait_for()
        assert await page.evaluate("navigator.clipboard.readText()") == MARKDOWN.strip()


async def test_html_of_a_model_is_text_and_links_lead_to_the_web_or_nowhere(site: Site) -> None:
    async with site.page(HOSTILE) as page:
        requests: list[str] = []
        page.on("request", lambda request: requests.append(request.url))
        await ask(page, "Attack.", 1)
        text = page.locator(".assistant .text")
        assert await text.locator("img, script, iframe, style, svg, object, form").count() == 0
        attributes = await text.evaluate(
            "node => [...node.querySelectorAll('*')].flatMap(each => each.getAttributeNames())"
        )
        assert not [name for name in attributes if name.startswith("on") or name == "style"]
        links = await text.locator("a").evaluate_all("links => links.map(link => link.href)")
        assert links == [
            "https://tracker.example/pixel.png",
            "https://x.example/%22onmouseover=%22window.hacked=1",
        ]
        content = await text.text_content()
        assert '<img src=x onerror="window.hacked = 1">' in content
        for link in await text.locator("span").get_by_text(re.compile("^[abce]$")).all():
            await link.click()
        assert await page.evaluate("window.hacked") is None
        assert all(url.startswith(f"{site.url}/") for url in requests)


async def test_text_that_grows_is_drawn_as_if_it_had_come_at_once(site: Site) -> None:
    async with site.page() as page:
        for text, steps in ((MARKDOWN, (1, 5)), (TRICKY, (1, 3)), (LINKS, (1,)), (HOSTILE, (1,))):
            for step in steps:
                drawn = await page.evaluate(GROW, [text, step])
                assert drawn["same"], (drawn["grown"], drawn["whole"])
        for text in HEAVY:
            assert (await page.evaluate(GROW, [text, 500]))["same"], text[:20]


async def test_what_has_settled_is_neither_read_nor_drawn_again(site: Site) -> None:
    text = "".join(f"Paragraph {number}, *which* is short.\n\n" for number in range(500))
    async with site.page() as page:
        drawn = await page.evaluate(GROW, [text, 20])
        assert drawn["kept"]
        assert drawn["read"] < 8 * len(text)


async def test_quotes_within_quotes_are_bounded(site: Site) -> None:
    async with site.page("> " * 500 + "deep") as page:
        await ask(page, "Quote.", 1)
        assert await page.locator(".assistant blockquote").count() == 12
        assert (await shown(page))[1].endswith("> > deep")


async def test_a_selection_survives_while_a_block_grows(site: Site) -> None:
    grow = """async () => {
      const { GrowingMarkdown } = await import("/pages/growing.js");
      const place = document.querySelector("#empty p");
      const growing = new GrowingMarkdown(place);
      const say = (text) => { growing.text += text; growing.draw(); };
      say("- one\\n- two **bo");
      getSelection().selectAllChildren(place.querySelector("li"));
      for (const letter of "ld** three\\n- four\\n\\n  five") say(letter);
      return getSelection().toString();
    }"""
    async with site.page() as page:
        assert await page.evaluate(grow) == "one"


async def test_thoughts_are_folded_away(site: Site) -> None:
    async with site.page("Two numbers.</think>It is 3.", "Too long</think>") as page:
        await ask(page, "What is 1 + 2?", 1)
        assert not await page.get_by_text("Two numbers.").is_visible()
        await page.get_by_text("Thoughts").click()
        assert await page.get_by_text("Two numbers.").is_visible()
        assert await page.locator(".assistant .text").text_content() == "It is 3."
        await ask(page, "And now?", 2)  # thoughts alone are an answer, too
        assert await page.get_by_text("Too long").count() == 1
        await ask(page, "Well?", 3)
        assert site.messages == ["What is 1 + 2?", "It is 3.", "And now?", "", "Well?"]


async def test_an_answer_without_figures_is_complete(site: Site) -> None:
    chunk = {"choices": [{"delta": {"content": "It is 3."}}]}
    body = f"data: {json.dumps(chunk)}\n\ndata: [DONE]\n\n"
    async with site.page() as page:
        await page.route(COMPLETIONS, lambda route: route.fulfill(body=body))
        await page.get_by_role("textbox", name="Message").fill("What is 1 + 2?")
        await page.keyboard.press("Enter")
        await page.get_by_role("status").filter(has_text="complete").wait_for(state="attached")
        assert await shown(page) == ["What is 1 + 2?", "It is 3."]
        assert await page.locator(".assistant .note").text_content() == ""


async def test_fates_are_shown_of_the_text_as_it_was_written(site: Site) -> None:
    async with site.page("It is **3**.") as page:
        await ask(page, "What is 1 + 2?", 1)
        assert await shown(page) == ["What is 1 + 2?", "It is 3."]
        await page.get_by_label("Colour by fate").check()
        assert await shown(page) == ["What is 1 + 2?", "It is **3**."]
        assert await page.locator(".assistant [data-fate=drafted]").count() == 2
        await ask(page, "Sure?", 2)
        await page.get_by_label("Colour by fate").uncheck()
        assert await shown(page) == ["What is 1 + 2?", "It is 3.", "Sure?", "It is done."]


async def test_turns_are_edited_and_retried_and_earlier_versions_stay(site: Site) -> None:
    async with site.page("one", "two", "three", "four") as page:
        await ask(page, "first", 1)
        await ask(page, "second", 2)
        await page.locator(".assistant").last.get_by_role("button", name="Retry").click()
        await page.get_by_text("three").wait_for()
        assert site.messages == ["first", "one", "second"]
        await answered(page, 2)
        await tab_to(page, "article:nth-child(2) [data-act=edit]", "Shift+Tab")
        await page.keyboard.press("Enter")
        await page.keyboard.press("Escape")  # the answers stay
        assert await shown(page) == ["first", "one", "second", "three"]
        await page.keyboard.press("Enter")
        await page.get_by_label("Edited message").fill("changed")
        await page.keyboard.press("Enter")
        await page.get_by_text("four").wait_for()
        assert site.messages == ["changed"]
        assert await shown(page) == ["changed", "four"]
        await answered(page, 1)
        await page.get_by_role("button", name="Earlier version").click()
        assert await shown(page) == ["first", "one", "second", "three"]
        await page.locator(".assistant").get_by_role("button", name="Earlier version").click()
        assert await shown(page) == ["first", "one", "second", "two"]
        await page.reload()
        await page.get_by_text("2 of 2").wait_for(state="detached")
        await page.get_by_text("1 of 2").nth(1).wait_for()
        assert await shown(page) == ["first", "one", "second", "two"]


async def test_an_edit_that_brings_no_answer_is_given_back(site: Site) -> None:
    async with site.page("one") as page:
        await ask(page, "first", 1)
        await page.context.unroute(COMPLETIONS)  # the server has none
        await page.get_by_role("button", name="Edit").click()
        await page.get_by_label("Edited message").fill("changed")
        await page.keyboard.press("Enter")
        await page.get_by_role("alert").wait_for()
        assert await page.get_by_label("Edited message").input_value() == "changed"
        await page.get_by_role("button", name="Cancel").click()
        assert await shown(page) == ["first", "one"]
        await page.get_by_role("button", name="Retry").click()
        await page.get_by_role("alert").wait_for()
        assert await shown(page) == ["first", "one"]


async def test_conversations_outlive_a_reload_and_are_renamed_and_deleted(site: Site) -> None:
    async with site.page("one", "two") as page:
        past = page.locator("#list li")
        assert await page.get_by_text("in this browser only").is_visible()
        await ask(page, "A first question", 1)
        await page.get_by_role("button", name="New chat").click()
        await ask(page, "Another one", 1)
        await page.reload()
        await page.get_by_text("two").wait_for()
        titles = page.locator("#list [data-act=open]")
        assert await titles.all_text_contents() == ["Another one", "A first question"]
        await page.get_by_role("button", name="A first question").click()
        await page.get_by_text("one", exact=True).wait_for()
        assert await shown(page) == ["A first question", "one"]
        await past.get_by_role("button", name="Rename").click()
        await page.get_by_label("Name of the conversation").fill("Renamed")
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name="Renamed").wait_for()
        await page.evaluate("sessionStorage.clear()")  # as in a new tab
        await page.reload()
        await titles.nth(1).wait_for()
        assert await titles.all_text_contents() == ["Another one", "Renamed"]
        assert await shown(page) == []
        await titles.nth(1).click()
        await past.get_by_role("button", name="Delete").click()
        assert await violations(page) == []
        await page.get_by_role("dialog").get_by_role("button", name="Cancel").click()
        await past.get_by_role("button", name="Delete").click()
        await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        await titles.nth(1).wait_for(state="detached")
        assert await shown(page) == []
        await page.get_by_role("button", name="Delete all").click()
        await page.get_by_role("dialog").get_by_role("button", name="Delete all").click()
        await titles.first.wait_for(state="detached")
        await page.reload()
        await page.locator("#model option").wait_for(state="attached")
        assert await titles.count() == 0


async def test_a_tab_catches_up_with_what_another_one_wrote(site: Site) -> None:
    async with site.page("one", "two") as page:
        await ask(page, "first", 1)
        other = await page.context.new_page()
        await other.goto("/")
        await other.get_by_role("button", name="first", exact=True).click()
        await answered(other, 1)
        await ask(other, "second", 2)
        await page.evaluate("document.dispatchEvent(new Event('visibilitychange'))")
        await answered(page, 2)
        assert await shown(page) == ["first", "one", "second", "two"]


async def test_a_conversation_that_is_deleted_while_it_is_written_stays_deleted(site: Site) -> None:
    async with site.page() as page:
        await ask(page, "first", 1)
        await page.route(COMPLETIONS, lambda _: None)  # it never answers
        await page.get_by_role("textbox", name="Message").fill("second")
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name="Delete", exact=True).click()
        await page.get_by_role("dialog").get_by_role("button", name="Delete").click()
        await page.get_by_role("button", name="Send").wait_for()
        await page.reload()
        await page.locator("#model option").wait_for(state="attached")
        assert await page.locator("#list li").count() == 0


@pytest.mark.parametrize(
    ("breaks", "told"),
    [
        ("new DOMException('full', 'QuotaExceededError')", "no room left"),
        ("new DOMException('no', 'InvalidStateError')", "does not keep conversations"),
    ],
)
async def test_a_browser_that_keeps_nothing_is_told_of(site: Site, breaks: str, told: str) -> None:
    async with site.page() as page:
        await page.evaluate(
            f"() => {{ IDBObjectStore.prototype.put = () => {{ throw {breaks}; }} }}"
        )
        await ask(page, "first", 1)
        await page.get_by_role("alert").filter(has_text=told).wait_for()
        assert await shown(page) == ["first", "It is done."]


async def test_text_files_are_sent_with_a_message(site: Site) -> None:
    notes = {"name": "my notes.md", "mimeType": "", "buffer": b"a ```` b\r\nc"}
    table = {"name": "table.csv", "mimeType": "", "buffer": "ä,b\n".encode()}
    refused = {
        "is not a text file": {"name": "x.png", "mimeType": "", "buffer": b"\x89PNG\0"},
        "262 kB at most": {"name": "y.txt", "mimeType": "", "buffer": b"y" * 262_145},
    }
    async with site.page() as page:
        chosen, files = page.locator("#chosen"), page.locator("#files li")
        for reason, file in refused.items():
            await chosen.set_input_files([file])
            await page.get_by_role("alert").filter(has_text=reason).wait_for()
        await chosen.set_input_files([notes, table])
        await files.nth(1).wait_for()
        assert await violations(page) == []
        await page.get_by_role("button", name="Leave out table.csv").click()
        assert await files.count() == 1
        await chosen.set_input_files([table])
        await files.nth(1).wait_for()
        await ask(page, "Compare them.", 1)
        assert await files.count() == 0
        assert site.messages == [
            "my notes.md:\n`````\na ```` b\nc\n`````\n\ntable.csv:\n```\nä,b\n```\n\nCompare them."
        ]
        assert await page.locator(".user summary").first.text_content() == "my notes.md 10 bytes"
        await page.get_by_role("button", name="Edit").click()
        await page.get_by_label("Edited message").fill("Again.")
        await page.keyboard.press("Enter")
        await page.get_by_role("button", name="Earlier version").wait_for()
        assert site.messages[0].endswith("ä,b\n```\n\nAgain.")  # the files stay


@pytest.mark.parametrize("scheme", ["light", "dark"])
async def test_answers_are_accessible(site: Site, scheme: str) -> None:
    async with site.page(f"Thought.</think>{MARKDOWN}", scheme=scheme) as page:
        await ask(page, "Compare.", 1)
        await page.get_by_text("Thoughts").click()
        await page.locator(".assistant").get_by_role("button", name="Retry").click()
        await page.get_by_text("2 of 2").wait_for()
        await page.get_by_role("button", name="Edit").click()
        assert await violations(page) == []


async def test_answers_fit_a_phone(site: Site) -> None:
    async with site.page(MARKDOWN, size=PHONE) as page:
        await ask(page, "Compare.", 1)
        wide = await page.evaluate("document.documentElement.scrollWidth")
        log = await page.locator("#log").evaluate("log => log.scrollWidth - log.clientWidth")
        assert (wide, log) == (PHONE["width"], 0)
        await page.get_by_text("Conversations").click()
        await page.locator("#list [data-act=open]").wait_for()
        assert await violations(page) == []
        await page.keyboard.press("Escape")
        assert not await page.locator("#list [data-act=open]").is_visible()
        await page.goto("/swarm")
        await page.locator(".peers tbody tr").first.wait_for()
        wide = await page.evaluate("document.documentElement.scrollWidth")
        assert wide == PHONE["width"]
