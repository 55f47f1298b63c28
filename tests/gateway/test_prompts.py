"""Prompts become token ids in bounded time, and short ones never wait for long ones."""

import asyncio
import threading
from types import SimpleNamespace

import pytest

from helpers.loopback import soon
from swarm.demo import TARGET
from swarm.errors import PromptTooLong
from swarm.gateway import prompts
from swarm.gateway.asked import asked_of
from swarm.gateway.errors import BadRequest
from swarm.gateway.prompts import SHORT_BYTES, SLICE_CHARS, ParserThreads
from swarm.gateway.requests import ChatBody, TextBody

WORDS = "Mia has 12 coins. A friend brings 30 more coins. "
BOUNDED = 16 * SLICE_CHARS


class Counting:
    """A tokenizer that records the numbers of characters that it gets."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        self.chars = 0

    def __call__(self, text, **options):
        self.chars += len(text)
        return self._tokenizer(text, **options)

    def __getattr__(self, name):
        return getattr(self._tokenizer, name)


@pytest.fixture
def models(demo):
    tokenizer = Counting(demo.models.tokenizer)
    return SimpleNamespace(tokenizer=tokenizer, checkpoint=demo.checkpoint)


@pytest.fixture
def threads():
    with ParserThreads() as threads:
        yield threads


async def prompts_of(body, models, threads):
    """Return the prompts of a body."""
    return await prompts.prompts_of(asked_of(body, models.tokenizer), models, threads)


def _text(prompt, **more):
    return TextBody(model=TARGET, prompt=prompt, **more)


def _chat(content):
    return ChatBody(model=TARGET, messages=[{"role": "user", "content": content}])


@pytest.mark.parametrize("make", [_text, _chat])
@pytest.mark.parametrize(
    "text", [WORDS * 100_000, "好" * 400_000, "x" * 2_000_000], ids=["words", "Chinese", "x"]
)
async def test_a_text_that_is_much_too_long_is_refused_by_its_beginning(
    models, threads, make, text
):
    with pytest.raises(BadRequest, match="context ends at 1024") as told:
        await prompts_of(make(text), models, threads)
    assert told.value.code == "context_length_exceeded"
    assert models.tokenizer.chars <= BOUNDED
    about = int(told.value.problem.split("about ")[1].split()[0])
    part = text[:200_000]
    assert about == pytest.approx(
        len(models.tokenizer(part).input_ids) * len(text) / len(part), rel=0.1
    )


async def test_ids_that_are_too_many_are_counted(models, threads):
    with pytest.raises(PromptTooLong, match="500000 tokens"):
        await prompts_of(_text([[5] * 500_000]), models, threads)


async def test_what_fits_is_read_as_ever(models, threads):
    """This holds for texts with a token for every character, and for long ones with few tokens."""
    read = models.tokenizer._tokenizer
    texts = [WORDS, WORDS * 60, "", "好 😀" * 50]
    assert any(len(text) > 1024 for text in texts)
    found = await prompts_of(_text(texts), models, threads)
    assert [prompt.ids for prompt in found] == [read(text).input_ids for text in texts]


async def test_at_the_edge_the_exact_count_decides(models, threads):
    """The sum over slices never refuses a text that just fits."""
    read = models.tokenizer._tokenizer
    text = WORDS
    while len(read(text + WORDS).input_ids) <= 1024 - 16:
        text += WORDS
    body = _text(text, max_tokens=16)
    (prompt,) = await prompts_of(body, models, threads)
    assert prompt.ids == read(text).input_ids
    assert body.prompt == []  # a text of megabytes is not kept while the answer is written


async def test_the_template_counts_too_and_so_does_what_it_drops(models, threads, monkeypatch):
    """A template may drop earlier thoughts, which then do not count against the context."""
    template = (
        "{% for message in messages %}{{ message.content.split('</think>')[-1] }}{% endfor %}"
    )
    monkeypatch.setattr(models.tokenizer._tokenizer, "chat_template", template)
    body = ChatBody(
        model=TARGET, messages=[{"role": "assistant", "content": WORDS * 5000 + "</think>" + WORDS}]
    )
    (prompt,) = await prompts_of(body, models, threads)
    assert models.tokenizer.decode(prompt.ids).strip() == WORDS.strip()


async def test_short_prompts_do_not_wait_for_long_ones(models, threads):
    begun, go_on = threading.Event(), threading.Event()

    def stand():
        begun.set()
        go_on.wait(60)

    long = [asyncio.create_task(threads.run(SHORT_BYTES + 1, stand)) for _ in range(12)]
    await asyncio.to_thread(begun.wait, 20)
    assert await soon(prompts_of(_text("Mia"), models, threads))
    assert not any(task.done() for task in long)
    go_on.set()
    await asyncio.gather(*long)


async def test_long_texts_take_turns(models, threads):
    """The second of two long texts is refused before the first, longer one is read to its end."""
    order = []

    async def read(name, text, new):
        with pytest.raises((BadRequest, PromptTooLong)):
            await prompts_of(_text(text, max_tokens=new), models, threads)
        order.append(name)

    models.checkpoint = SimpleNamespace(max_positions=1 << 16)
    await asyncio.gather(
        read("long", WORDS * 20_000, 1), read("short", WORDS * 2000, (1 << 16) - 16)
    )
    assert order == ["short", "long"]
