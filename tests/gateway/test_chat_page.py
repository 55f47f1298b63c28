"""The chat page in a real browser, with scripted answers: turns, conversations, files."""

import json
from collections.abc import AsyncIterator

import pytest
import pytest_asyncio

from helpers.browser import PHONE, needs_browser, tab_to, violations
from helpers.chat_page import (
    COMPLETIONS,
    MARKDOWN,
    Site,
    answered,
    ask,
    chat_page,
    shown,
)

pytestmark = needs_browser


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def site() -> AsyncIterator[Site]:
    async with chat_page() as site:
        yield site


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
