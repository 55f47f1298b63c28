"""The gateway as OpenAI's own package uses it: real sockets, real peers, real text."""

import json

import openai
import pytest

from helpers.gateway_in_process import PROBLEM, chat, gateway_over
from swarm.client.text_memory import TextMemory
from swarm.demo import TARGET
from swarm.demo.problems import answer_of
from swarm.gateway.intake import MAX_BODY_BYTES
from swarm.gateway.keys import ApiKeys

KEY, OTHER_KEY = "k" * 32, "o" * 32
ANSWER = f"#### {PROBLEM.answer}"


async def test_a_chat_is_answered_with_its_usage_and_its_route(served):
    reply = await served.openai.chat.completions.create(**chat())
    (choice,) = reply.choices
    assert answer_of(choice.message.content) == PROBLEM.answer
    assert (choice.message.role, choice.finish_reason) == ("assistant", "stop")
    usage = reply.usage
    assert usage.total_tokens == usage.prompt_tokens + usage.completion_tokens
    assert usage.completion_tokens > usage.completion_tokens_details.accepted_prediction_tokens > 0
    assert usage.completion_tokens_details.rejected_prediction_tokens > 0
    (told,) = reply.swarm
    assert [stop["layers"] for stop in told["route"]] == [[0, 4], [4, 8]]
    assert told["stats"]["new_tokens"] == usage.completion_tokens
    assert "pieces" not in told


async def test_the_next_turn_of_a_chat_goes_on_from_what_the_peers_hold(served, monkeypatch):
    template = "{% for message in messages %}{{ message.content }}{% endfor %}"
    monkeypatch.setattr(served.swarm._models.tokenizer, "chat_template", template)
    first = await served.openai.chat.completions.create(**chat(PROBLEM.prompt, max_tokens=16))
    assert first.usage.prompt_tokens_details.cached_tokens == 0
    messages = [
        *chat(PROBLEM.prompt)["messages"],
        {"role": "assistant", "content": first.choices[0].message.content},
        {"role": "user", "content": " So"},
    ]
    more = chat(max_tokens=16) | {"messages": messages}
    second = await served.openai.chat.completions.create(**more)
    assert second.usage.prompt_tokens_details.cached_tokens >= first.usage.prompt_tokens
    again = await served.openai.chat.completions.create(**more, n=2)  # neither keeps nor takes
    assert second.choices[0].message.content == again.choices[0].message.content


async def test_a_stream_says_what_the_whole_reply_says(served):
    whole = await served.openai.chat.completions.create(**chat())
    stream = await served.openai.chat.completions.create(
        **chat(stream=True, stream_options={"include_usage": True})
    )
    *chunks, last = [chunk async for chunk in stream]
    assert chunks[0].choices[0].delta.role == "assistant"
    assert (
        "".join(chunk.choices[0].delta.content or "" for chunk in chunks)
        == whole.choices[0].message.content
    )
    assert [
        chunk.choices[0].finish_reason for chunk in chunks if chunk.choices[0].finish_reason
    ] == ["stop"]
    assert last.choices == []
    assert last.usage.completion_tokens == whole.usage.completion_tokens
    assert all(chunk.usage is None for chunk in chunks)
    assert len({chunk.id for chunk in chunks}) == 1
    routes = [chunk.swarm["route"] for chunk in chunks if "swarm" in chunk.model_extra]
    assert len(routes) == 2  # with the first token, and in the end
    assert chunks[-1].swarm["stats"]["finish_reason"] == "stop"


async def test_every_tokens_fate_is_told_to_those_who_ask(served):
    stream = await served.openai.chat.completions.create(
        **chat(stream=True), extra_body={"explain": True}
    )
    chunks = [chunk async for chunk in stream]
    pieces = [(chunk, chunk.swarm["pieces"]) for chunk in chunks if "pieces" in chunk.swarm]
    assert all(
        "".join(piece["text"] for piece in told) == chunk.choices[0].delta.content
        for chunk, told in pieces
    )
    origins = {piece["origin"] for _, told in pieces for piece in told}
    # Whether a branch was there to catch a miss of the draft depends on the controller's clock.
    assert "drafted" in origins
    assert origins & {"branch", "corrected"}


async def test_stop_strings_lengths_and_seeds_are_kept_to(served):
    stopped = await served.openai.chat.completions.create(**chat(stop=["####"]))
    assert "####" not in stopped.choices[0].message.content
    assert stopped.choices[0].finish_reason == "stop"
    short = await served.openai.chat.completions.create(**chat(max_completion_tokens=3))
    assert (short.choices[0].finish_reason, short.usage.completion_tokens) == ("length", 3)
    hot = chat(n=3, seed=5, max_tokens=12) | {"temperature": 1.5}
    first, again = [await served.openai.chat.completions.create(**hot) for _ in range(2)]
    texts = [choice.message.content for choice in first.choices]
    assert texts == [choice.message.content for choice in again.choices]
    assert len(set(texts)) == 3
    assert [choice.index for choice in first.choices] == [0, 1, 2]
    alone = await served.openai.chat.completions.create(**(hot | {"n": 1, "seed": 7}))
    assert alone.choices[0].message.content == texts[2]


async def test_biases_penalties_and_rules_change_the_text(served):
    plain = (await served.openai.chat.completions.create(**chat())).choices[0].message.content
    tokens = served.swarm._models.tokenizer("####", add_special_tokens=False).input_ids
    banned = await served.openai.chat.completions.create(
        **chat(logit_bias={str(token): -100 for token in tokens}, max_tokens=80)
    )
    assert "####" not in banned.choices[0].message.content
    more = {"verify": "adaptive:tau=2,budget=32", "window": 8, "depth": 1}
    relaxed = await served.openai.chat.completions.create(**chat(), extra_body=more)
    assert relaxed.swarm[0]["stats"]["rule"] == "adaptive:tau=2,budget=32"
    exact = await served.openai.chat.completions.create(**chat(), extra_body={"window": 0})
    assert exact.choices[0].message.content == plain
    assert exact.usage.completion_tokens_details.accepted_prediction_tokens == 0


async def test_a_chat_tells_log_probabilities(served):
    reply = await served.openai.chat.completions.create(
        **chat(logprobs=True, top_logprobs=3, max_tokens=8)
    )
    content = reply.choices[0].logprobs.content
    assert len(content) == 8
    assert "".join(each.token for each in content) == reply.choices[0].message.content
    for each in content:
        assert len(each.top_logprobs) == 3
        assert each.token == each.top_logprobs[0].token  # greedy
        assert each.logprob == each.top_logprobs[0].logprob <= 0
        assert bytes(each.bytes).decode() == each.token
    stream = await served.openai.chat.completions.create(
        **chat(logprobs=True, max_tokens=8, stream=True)
    )
    told = [
        each
        for chunk in [c async for c in stream]
        for each in getattr(chunk.choices[0].logprobs, "content", ())
    ]
    assert [each.logprob for each in told] == pytest.approx(
        [each.logprob for each in content], abs=1e-3
    )


async def test_a_completion_goes_on_from_texts_and_from_token_ids(served):
    ids = served.swarm._models.tokenizer(PROBLEM.prompt).input_ids
    options = {"model": TARGET, "temperature": 0, "max_tokens": 200}
    replies = [
        await served.openai.completions.create(prompt=prompt, **options)
        for prompt in (PROBLEM.prompt, ids, [PROBLEM.prompt, ids])
    ]
    text = replies[0].choices[0].text
    assert answer_of(text) == PROBLEM.answer
    assert [choice.text for reply in replies for choice in reply.choices] == [text] * 4
    assert replies[2].usage.prompt_tokens == 2 * len(ids)
    told = await served.openai.completions.create(
        prompt=ids, logprobs=2, **(options | {"max_tokens": 5})
    )
    logprobs, text = told.choices[0].logprobs, told.choices[0].text
    assert "".join(logprobs.tokens) == text
    assert [text[at:] for at in logprobs.text_offset] == [
        "".join(logprobs.tokens[i:]) for i in range(5)
    ]
    assert all(len(likely) == 2 for likely in logprobs.top_logprobs)
    stream = await served.openai.completions.create(
        prompt=ids, logprobs=2, stream=True, **(options | {"max_tokens": 5})
    )
    chunks = [chunk async for chunk in stream]
    assert [
        at for chunk in chunks[:-1] for at in chunk.choices[0].logprobs.text_offset
    ] == logprobs.text_offset
    assert chunks[-1].choices[0].finish_reason == "length"


async def test_models_are_listed_and_found(served):
    (model,) = (await served.openai.models.list()).data
    assert (model.id, model.owned_by, model.max_model_len) == (TARGET, "swarm", 1024)
    assert (await served.openai.models.retrieve(TARGET)).swarm["chat"] is True
    with pytest.raises(openai.NotFoundError) as told:
        await served.openai.models.retrieve("org/other")
    assert told.value.code == "model_not_found"
    assert TARGET in told.value.message


@pytest.mark.parametrize(
    ("body", "status", "param", "code", "words"),
    [
        (chat(typical_p=0.5), 400, "typical_p", "unsupported_parameter", "top_p"),
        (
            chat(dry_multiplier=1),
            400,
            "dry_multiplier",
            "unsupported_parameter",
            "repetition_penalty",
        ),
        (chat(top_p=2), 400, "top_p", None, "up to 1"),
        (chat(verify="lazy"), 400, "verify", None, "the rules are strict"),
        (chat("7 " * 2000), 400, None, "context_length_exceeded", "context ends at 1024"),
        (chat(stop=["x"] * 17), 400, "stop", None, "at most 16"),
        (chat(model="other"), 404, "model", "model_not_found", "not served here"),
        (chat(n=9), 400, "n", None, "at most 8"),
        ([], 400, None, None, "JSON object"),
    ],
    ids=lambda value: None,
)
async def test_what_cannot_be_asked_is_one_sentence(demo, body, status, param, code, words):
    async with gateway_over(demo, places=8) as served:
        got, _, answer = await served.post("/v1/chat/completions", body)
        error = answer["error"]
        assert (got, error["param"], error["code"]) == (status, param, code)
        assert words in error["message"]
        assert "\n" not in error["message"]


async def test_other_paths_methods_types_and_sizes_are_refused_in_the_same_envelope(served):
    async with served.http.post(
        f"{served.url}/v1/chat/completions", data=b"x" * (MAX_BODY_BYTES + 1)
    ) as response:
        assert (response.status, (await response.json())["error"]["type"]) == (
            415,
            "invalid_request_error",
        )
    headers = {"Content-Type": "application/json"}
    huge = b"[" * (MAX_BODY_BYTES + 1)
    async with served.http.post(
        f"{served.url}/v1/chat/completions", data=huge, headers=headers
    ) as response:
        assert (response.status, (await response.json())["error"]["type"]) == (
            413,
            "invalid_request_error",
        )
    assert (await served.get("/v1/nothing"))[0] == 404
    assert (await served.get("/v1/chat/completions"))[0] == 405


async def test_a_body_without_a_type_is_read_and_a_forms_is_not(served):
    """litellm sends Ollama's chats without a type; forms of other pages have one."""
    body = json.dumps(chat(max_tokens=1)).encode()
    for headers, status in (({}, 200), ({"Content-Type": "text/plain"}, 415)):
        async with served.http.post(
            f"{served.url}/v1/chat/completions",
            data=body,
            headers=headers,
            skip_auto_headers=["Content-Type"],
        ) as response:
            assert response.status == status


async def test_a_model_without_a_template_says_so(demo, monkeypatch):
    monkeypatch.setattr(demo.models.tokenizer, "chat_template", None)
    async with gateway_over(demo) as served:
        with pytest.raises(openai.BadRequestError, match="no chat template") as told:
            await served.openai.chat.completions.create(**chat())
        assert told.value.code == "no_chat_template"
        assert (await served.openai.models.retrieve(TARGET)).swarm["chat"] is False


async def test_keys_are_asked_for_where_there_are_some(demo):
    async with gateway_over(demo, key=KEY, keys=ApiKeys([KEY])) as served:
        assert (await served.openai.chat.completions.create(**chat(max_tokens=1))).choices
        for wrong in ({}, {"Authorization": "Bearer wrong"}, {"Authorization": f"Basic {KEY}"}):
            status, headers, answer = await served.post("/v1/chat/completions", chat(), wrong)
            assert (status, answer["error"]["code"]) == (401, "invalid_api_key")
            assert headers["WWW-Authenticate"] == "Bearer"
            assert [
                (await served.get(path, wrong))[0]
                for path in ("/v1/models", "/metrics", "/events/speed")
            ] == [401] * 3
            assert [(await served.get(path, wrong))[0] for path in ("/health", "/ready", "/")] == [
                200
            ] * 3


async def test_texts_are_kept_for_the_key_that_asked_for_them(demo):
    keys = [KEY, OTHER_KEY]
    async with gateway_over(demo, key=KEY, keys=ApiKeys(keys)) as served:
        memory = served.swarm.memory = TextMemory(2)
        for key in (*keys, KEY):
            headers = {"Authorization": f"Bearer {key}"}
            status, _, _ = await served.post("/v1/chat/completions", chat(max_tokens=2), headers)
            assert status == 200
        assert len(memory) == len(keys)


async def test_a_key_owns_its_chats_also_where_no_texts_are_kept(demo, monkeypatch):
    keys = ApiKeys([KEY, OTHER_KEY])
    async with gateway_over(demo, key=KEY, keys=keys, remember=False) as served:
        memory = served.swarm.memory = TextMemory(2)
        template = "{% for message in messages %}{{ message.content }}{% endfor %}"
        monkeypatch.setattr(served.swarm._models.tokenizer, "chat_template", template)

        async def cached(body, key):
            headers = {"Authorization": f"Bearer {key}"}
            _, _, answer = await served.post("/v1/chat/completions", body, headers)
            message = answer["choices"][0]["message"]
            return answer["usage"]["prompt_tokens_details"]["cached_tokens"], message

        first = chat(PROBLEM.prompt, max_tokens=16)
        _, message = await cached(first, KEY)
        turns = [*first["messages"], message, {"role": "user", "content": " So"}]
        following = first | {"messages": turns}
        assert (await cached(following, OTHER_KEY))[0] == 0
        assert (await cached(following, KEY))[0] > 0
        assert len(memory) == 0


async def test_other_peoples_pages_are_kept_out(served):
    own, foreign = {"Origin": served.url}, {"Origin": "https://evil.example"}
    assert (await served.post("/v1/chat/completions", chat(max_tokens=1), own))[0] == 200
    status, _, answer = await served.post("/v1/chat/completions", chat(), foreign)
    assert (status, answer["error"]["code"]) == (403, "foreign_page")
    assert (await served.get("/v1/models", {"Host": "rebound.example:8000"}))[0] == 403
    assert (await served.get("/health", {"Host": "probe.example"}))[0] == 200
    _, headers, _ = await served.get("/v1/models", foreign)
    assert not [name for name in headers if name.startswith("Access-Control")]


async def test_a_bug_of_ours_tells_nothing(served, monkeypatch):
    async def fail(*_):
        raise ZeroDivisionError("secret")

    monkeypatch.setattr(served.swarm.router, "chain", fail)
    status, _, answer = await served.post("/v1/chat/completions", chat())
    assert (status, answer["error"]["code"]) == (500, "internal_error")
    assert "secret" not in json.dumps(answer)


async def test_metrics_count_what_was_done(served):
    reply = await served.openai.chat.completions.create(**chat())
    usage, stats = reply.usage, reply.swarm[0]["stats"]
    await served.post("/v1/chat/completions", chat(suffix="x"))
    text = (await served.get("/metrics"))[2].decode()
    values = dict(line.rsplit(" ", 1) for line in text.splitlines() if not line.startswith("#"))
    model = f'{{model_name="{TARGET}"}}'
    assert float(values[f"vllm:prompt_tokens_total{model}"]) == usage.prompt_tokens
    assert float(values[f"vllm:generation_tokens_total{model}"]) == usage.completion_tokens
    assert (
        float(values[f"vllm:spec_decode_num_draft_tokens_total{model}"]) == stats["drafted_tokens"]
    )
    accepted = float(values[f"vllm:spec_decode_num_accepted_tokens_total{model}"])
    places = [
        float(value) for name, value in values.items() if "accepted_tokens_per_pos_total" in name
    ]
    assert accepted == stats["accepted_tokens"] == sum(places)
    assert float(values[f"vllm:time_to_first_token_seconds_count{model}"]) == 1
    assert float(values['swarm_requests_refused_total{code="unsupported_parameter"}']) == 1
    assert float(values["vllm:num_requests_running"]) == 0
