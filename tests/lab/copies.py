"""How much copies of earlier text speed up the texts of a real model, on a simulated chain.

    python tests/lab/copies.py MODEL DATA --texts FILE [--count 8] [--new-tokens 64]

First MODEL, a local folder, answers prompts out of the files in DATA (``gsm8k_test.jsonl``,
``HumanEval.jsonl.gz`` and ``spec_bench.jsonl``), greedily and by itself. The texts are kept in
FILE, and what is there is not written again. Then every text is decoded plainly and with copies, by
the client's own decoder, over a chain whose links and stages take a given time. Prints a table.
"""

import argparse
import gzip
import json
from collections.abc import Iterator
from dataclasses import dataclass, replace
from heapq import heappop, heappush
from pathlib import Path
from typing import Any

from swarm.client.drafters import LEAST_COPY
from swarm.decoding.confidence import Confidence
from swarm.decoding.decoder import Decoder
from swarm.decoding.draft_tree import DraftNode
from swarm.decoding.drafting.copying import CopyDrafter
from swarm.decoding.drafting.drafter import Source
from swarm.decoding.policy import LoopReport, SpeculationPlan
from swarm.decoding.rules.strict import Strict
from swarm.decoding.sampling import Sampling
from swarm.decoding.streaming import Streaming
from swarm.decoding.windows import Window

PEERS = 4
LINK_MS = 20.0
# A stage takes STAGE_MS for a frame and POSITION_MS for each of its tokens.
STAGE_MS = 8.0
POSITION_MS = 1.0
BATCH = 8  # prompts that the model answers at once
EDIT = 'Rewrite this code. Change the name of the function to "solve". Write all of it.\n'
QUOTE = "Repeat the first three sentences of this text word for word.\n\n"
CHATS = ("writing", "roleplay", "stem", "humanities")
MOST_CHARS = 1600  # of a text in a prompt


@dataclass(frozen=True)
class Text:
    """What a model wrote.

    Attributes:
        key: of the prompt, such as ``rag:3``.
    """

    key: str
    prompt: list[int]
    new: list[int]

    @property
    def kind(self) -> str:
        return self.key.partition(":")[0]


# The texts.


def questions(data: Path, count: int) -> Iterator[tuple[str, str]]:
    """Yield prompts, each with its key; ``count`` of each kind."""
    for kind, prompts in prompts_by_kind(data).items():
        for number, prompt in enumerate(prompts[:count]):
            yield f"{kind}:{number}", prompt


def prompts_by_kind(data: Path) -> dict[str, list[str]]:
    """Return all prompts of the published files in a folder."""
    with (data / "gsm8k_test.jsonl").open(encoding="utf-8") as file:
        problems = [json.loads(line)["question"] for line in file]
    with gzip.open(data / "HumanEval.jsonl.gz", "rt", encoding="utf-8") as file:
        programs = [json.loads(line) for line in file]
    bench: dict[str, list[str]] = {}
    with (data / "spec_bench.jsonl").open(encoding="utf-8") as file:
        for entry in map(json.loads, file):
            bench.setdefault(entry["category"], []).append(entry["turns"][0])
    news = [each.removeprefix("Summarize: ") for each in bench["summarization"]]
    return {
        "gsm8k": problems,
        "humaneval": [f"Complete this function:\n{_code(each['prompt'])}" for each in programs],
        "chat": [each for kind in CHATS for each in bench[kind]],
        "summarization": [f"Summarize: {each}"[:MOST_CHARS] for each in news],
        "rag": [each[:MOST_CHARS] for each in bench["rag"]],
        "quote": [QUOTE + each[:MOST_CHARS] for each in news],
        "edit": [EDIT + _code(each["prompt"] + each["canonical_solution"]) for each in programs],
    }


def _code(text: str) -> str:
    return f"```python\n{text}```"


def answers(model: str, asked: list[tuple[str, str]], new_tokens: int) -> Iterator[Text]:
    """Yield what a model answers greedily."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer: Any = AutoTokenizer.from_pretrained(model)
    target: Any = AutoModelForCausalLM.from_pretrained(model, dtype=torch.bfloat16)
    target.eval()
    for start in range(0, len(asked), BATCH):
        keys, prompts = zip(*asked[start : start + BATCH], strict=True)
        ids = [
            tokenizer.apply_chat_template(
                [{"role": "user", "content": prompt}], add_generation_prompt=True, return_dict=False
            )
            for prompt in prompts
        ]
        width = max(map(len, ids))
        mask = torch.tensor([[0] * (width - len(row)) + [1] * len(row) for row in ids])
        rows = torch.tensor([[0] * (width - len(row)) + row for row in ids])
        with torch.inference_mode():
            said = target.generate(
                input_ids=rows, attention_mask=mask, max_new_tokens=new_tokens, do_sample=False
            )
        for key, row, prompt_ids in zip(keys, said[:, width:].tolist(), ids, strict=True):
            end = row.index(tokenizer.eos_token_id) + 1 if tokenizer.eos_token_id in row else None
            yield Text(key, list(prompt_ids), row[:end])


def texts(model: str, data: Path, file: Path, count: int, new_tokens: int) -> list[Text]:
    """Return the texts of all prompts; write those that are not in the file yet."""
    asked = dict(questions(data, count))
    lines = file.read_text("utf-8").splitlines() if file.exists() else []
    known = [Text(**json.loads(line)) for line in lines]
    missing = [each for each in asked.items() if each[0] not in {text.key for text in known}]
    with file.open("a", encoding="utf-8") as out:
        for text in answers(model, missing, new_tokens):
            out.write(json.dumps(vars(text)) + "\n")
            out.flush()
            known.append(text)
    return [text for text in known if text.key in asked]


# The chain.


class Chain:
    """Stages that compute one frame after the other, and the answers on their way."""

    def __init__(self) -> None:
        self._free_ms = [0.0] * PEERS  # when each stage may begin the next frame
        self._answers: list[tuple[float, int, Window, float, float]] = []

    @property
    def next_ms(self) -> float:
        """When the next answer arrives."""
        return self._answers[0][0] if self._answers else float("inf")

    def send(self, window: Window, now_ms: float) -> None:
        """Compute a frame; what it reads of the prompt takes no time."""
        stage_ms = STAGE_MS + POSITION_MS * window.tail
        at = now_ms + LINK_MS
        for stage, free_ms in enumerate(self._free_ms):
            self._free_ms[stage] = max(at, free_ms) + stage_ms
            at = self._free_ms[stage] + LINK_MS
        heappush(self._answers, (at, window.first, window, now_ms, stage_ms))

    def receive(self) -> tuple[float, Window, float, float]:
        """Return when the next answer arrives, to which window, when that was sent, and the time of
        a stage."""
        at, _, window, sent_ms, stage_ms = heappop(self._answers)
        return at, window, sent_ms, stage_ms


@dataclass(frozen=True)
class Written:
    """A text that was decoded.

    Attributes:
        sent: positions that the peers computed.
    """

    ms: float
    sent: int


def write(text: Text, confidence: Confidence | None, least: float = LEAST_COPY) -> Written:
    """Decode a text with copies, or plainly without a ``confidence``.

    Args:
        least: the least chance of a copy that is sent.
    """
    whole = [*text.prompt, *text.new]
    decoder = Decoder(
        text.prompt, Strict(Sampling()), max_new_tokens=len(text.new), confidence=confidence
    )
    decoder.sources = (Source.COPY,)
    drafter = CopyDrafter()
    policy = Streaming()
    chain = Chain()
    now = ready = judged = 0.0
    while not decoder.finish_reason:
        decoder.plan = SpeculationPlan()
        if confidence is not None:
            decoder.plan = replace(policy.plan(), least_chance=least)
        while ask := decoder.ask():
            decoder.propose(ask, drafter.draft_each(ask.text, ask.paths, ask.count))
        if (decoder.urgent or now >= ready) and (window := decoder.next_window()):
            chain.send(window, now)
            ready = now + decoder.pause_ms
        elif now < ready < chain.next_ms:
            now = ready
        else:
            now, window, sent_ms, stage_ms = chain.receive()
            if committed := _judge(decoder, [node for _, node in decoder.take([window])], whole):
                first = len(decoder.tokens) - committed == len(text.prompt)
                if not first:  # that answer carried the prompt
                    policy.observe(
                        LoopReport(
                            positions=window.tail,
                            loop_ms=now - sent_ms,
                            drafted=window.tail - 1,
                            kept=committed - 1,
                            draft_ms=0.0,
                            stage_ms=stage_ms,
                            tokens=committed,
                            elapsed_ms=now - judged,
                        )
                    )
                judged = now
    assert decoder.tokens == whole
    return Written(now, decoder.counts.sent)


def _judge(decoder: Decoder, nodes: list[DraftNode], whole: list[int]) -> int:
    """Answer as the model that wrote the text; return how many tokens that commits."""
    choices = [whole[min(node.position + 1, len(whole) - 1)] for node in nodes]
    return len(decoder.judge(nodes, [None] * len(nodes), choices=choices)) if nodes else 0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("model")
    parser.add_argument("data", type=Path)
    parser.add_argument("--texts", type=Path, required=True)
    parser.add_argument("--count", type=int, default=8)
    parser.add_argument("--new-tokens", type=int, default=64)
    parser.add_argument("--least", type=float, default=LEAST_COPY, help="chance of a copy")
    given = parser.parse_args()
    kept = texts(given.model, given.data, given.texts, given.count, given.new_tokens)
    confidence = Confidence()  # it learns from text to text, as a client's does
    print("| text | prompts | tokens | times plain | slowest text | positions a token |")
    print("|---|---:|---:|---:|---:|---:|")
    for kind in dict.fromkeys(text.kind for text in kept):
        some = [text for text in kept if text.kind == kind]
        plain = [write(text, None) for text in some]
        copied = [write(text, confidence, given.least) for text in some]
        tokens = sum(len(text.new) for text in some)
        speedup = sum(each.ms for each in plain) / sum(each.ms for each in copied)
        slowest = min(a.ms / b.ms for a, b in zip(plain, copied, strict=True))
        positions = sum(each.sent for each in copied) / tokens
        cells = (kind, len(some), tokens, f"{speedup:.2f}", f"{slowest:.2f}", f"{positions:.2f}")
        print("| " + " | ".join(map(str, cells)) + " |")


if __name__ == "__main__":
    main()
