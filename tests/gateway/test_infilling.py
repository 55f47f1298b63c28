"""Editors ask for the text between two others, where the model can fill in the middle."""

import pytest
import pytest_asyncio

from helpers.gateway_in_process import gateway_over
from swarm.client import infilling
from swarm.client.infilling import FimForm, infilling_of
from swarm.demo import TARGET

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOLE = {"model": TARGET, "prompt": "Problem: Mia has ", "suffix": " coins.", "temperature": 0}


@pytest.fixture
def form(monkeypatch):
    """Control tokens of the demo's model mark a hole."""
    form = FimForm("<|pad|>", "<|start|>", "<|end|>")
    monkeypatch.setattr(infilling, "FORMS", (form,))
    infilling_of.cache_clear()
    yield form
    infilling_of.cache_clear()


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def gateway(demo):
    async with gateway_over(demo) as served:
        yield served


async def test_a_suffix_is_part_of_the_prompt(demo, gateway, form):
    tokenizer = demo.models.tokenizer
    before, behind = (
        tokenizer(HOLE[name], add_special_tokens=False).input_ids for name in ("prompt", "suffix")
    )
    pad, start, end = tokenizer.convert_tokens_to_ids([form.prefix, form.suffix, form.middle])
    whole = {**HOLE, "prompt": [start, pad, *before, start, *behind, end], "suffix": ""}
    _, _, expected = await gateway.post("/v1/completions", whole)
    _, _, filled = await gateway.post("/v1/completions", HOLE)
    assert filled["usage"]["prompt_tokens"] == len(whole["prompt"])
    assert filled["choices"][0]["text"] == expected["choices"][0]["text"]
    options = {"temperature": 0, "num_predict": 16}
    _, _, other = await gateway.post(
        "/api/generate", {**HOLE, "stream": False, "options": options, "system": "Fill."}
    )
    assert other["response"] == filled["choices"][0]["text"]
    assert (await gateway.post("/api/show", {"model": TARGET}))[2]["capabilities"][-1] == "insert"


@pytest.mark.parametrize(
    ("more", "param"), [({"prompt": [5, 6]}, "suffix"), ({"echo": True}, "echo")]
)
async def test_what_a_suffix_excludes_is_named(gateway, form, more, param):
    status, _, reply = await gateway.post("/v1/completions", {**HOLE, **more})
    assert (status, reply["error"]["param"]) == (400, param)


@pytest.mark.parametrize("path", ["/v1/completions", "/api/generate"])
async def test_a_model_that_cannot_fill_in_says_so(gateway, path):
    status, _, reply = await gateway.post(path, HOLE)
    assert status == 400
    assert "fill in the middle" in str(reply["error"])
    status, _, reply = await gateway.post(path, {**HOLE, "suffix": None, "stream": False})
    assert status == 200
