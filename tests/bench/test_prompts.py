"""Which prompts a benchmark can take of a file."""

import pytest

from helpers.swarm_in_thread import ThreadedSwarm
from swarm.bench.prompts import fitting_prompts, prompt_ids
from swarm.client.client import SwarmClient
from swarm.demo import TARGET, locate
from swarm.errors import PromptTooLong
from swarm.util.prompt_files import Prompt

SHORT = Prompt("Problem: Mia has 12 coins.")
LONG = Prompt("Mia has 12 coins. " * 2000)
TEMPLATE = "{% for message in messages %}Q: {{ message['content'] }} A:{% endfor %}"


async def test_prompts_that_are_too_long_are_left_out_unless_all_are(threaded: ThreadedSwarm):
    async with SwarmClient(locate(TARGET), network=threaded.network) as client:
        [(prompt, ids)] = fitting_prompts(client, [LONG, SHORT, LONG], max_new_tokens=8)
        assert (prompt, ids) == (SHORT, client.models.tokenizer(SHORT.text).input_ids)
        with pytest.raises(PromptTooLong):
            fitting_prompts(client, [LONG], max_new_tokens=8)


async def test_a_question_goes_through_the_chat_template_if_there_is_one(
    threaded: ThreadedSwarm, monkeypatch: pytest.MonkeyPatch
):
    async with SwarmClient(locate(TARGET), network=threaded.network) as client:
        tokenizer = client.models.tokenizer
        question = Prompt("Who?", "qa", question=True)
        monkeypatch.setattr(tokenizer, "chat_template", None)
        assert prompt_ids(client, question) == tokenizer("Who?").input_ids
        monkeypatch.setattr(tokenizer, "chat_template", TEMPLATE)
        assert tokenizer.decode(prompt_ids(client, question)).strip() == "Q: Who? A:"
        assert prompt_ids(client, Prompt("Who?")) == tokenizer("Who?").input_ids
