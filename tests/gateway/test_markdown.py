"""Answers as Markdown, in a real browser: as it grows, and from a model that is hostile."""

import re
from collections.abc import AsyncIterator

import pytest_asyncio

from helpers.browser import needs_browser
from helpers.chat_page import MARKDOWN, Site, ask, chat_page, shown

pytestmark = needs_browser

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


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Site]:
    async with chat_page() as site:
        yield site


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
