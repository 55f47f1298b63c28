"""The client's cost of judging drafts, as a share of a loop without any link delay.

Prints a table; nothing is asserted.

    python tests/lab/verification_cost.py

The loop is that of a whole model of the shape of Qwen3-0.6B (random weights) on this CPU: the
fastest loop that such a vocabulary is likely to see, so that the share is the largest. ``kept``:
the target chooses every draft. ``missed``: it chooses none, and the adaptive rule is set to keep
all, so that it looks at each.
"""

import time
from statistics import median

import torch
from transformers import DynamicCache, Qwen3Config, Qwen3ForCausalLM

from swarm.decoding.drafting.drafter import Drafted
from swarm.decoding.policy import LoopReport
from swarm.decoding.rules.choose import Verification
from swarm.decoding.rules.lexicon import Lexicon
from swarm.decoding.sampling import Sampling, gumbel_noise
from swarm.decoding.window import AutoWindow

VOCABULARY, WINDOW, PROMPT, REPEATS = 151_936, 8, 64, 15
RULES = [("strict", 0.0), ("strict", 1.0), ("adaptive", 0.0), ("adaptive", 1.0), ("rejection", 1.0)]


def milliseconds(work) -> float:
    times = []
    for _ in range(REPEATS):
        # as for guesses that were looked up: a draft model has worked out the same noise
        gumbel_noise.cache_clear()
        started = time.perf_counter()
        work()
        times.append((time.perf_counter() - started) * 1e3)
    return median(times)


@torch.inference_mode()
def main() -> None:
    torch.manual_seed(0)
    config = Qwen3Config(
        vocab_size=VOCABULARY,
        hidden_size=1024,
        intermediate_size=3072,
        num_hidden_layers=28,
        num_attention_heads=16,
        num_key_value_heads=8,
        head_dim=128,
        tie_word_embeddings=True,
    )
    model = Qwen3ForCausalLM(config).eval()
    cache = DynamicCache()
    model(
        input_ids=torch.randint(0, VOCABULARY, (1, PROMPT)), past_key_values=cache, logits_to_keep=1
    )

    def loop() -> torch.Tensor:
        ids = torch.randint(0, VOCABULARY, (1, WINDOW + 1))
        logits = model(input_ids=ids, past_key_values=cache).logits[0]
        cache.crop(-(WINDOW + 1))
        return logits

    loop_ms = milliseconds(loop)
    logits = 3.0 * torch.randn(WINDOW + 1, VOCABULARY)
    logits[:, :50] += 9.0  # some fifty likely tokens, as in a text
    lexicon = Lexicon(lambda ids: " word" * len(ids))
    print(
        f"vocabulary {VOCABULARY}, window {WINDOW}, loop {loop_ms:.0f} ms on"
        f" {torch.get_num_threads()} threads"
    )
    for name, temperature in RULES:
        settings = (
            ":tau=20,budget=10000,gap=1,contrast=20,agreement=0" if name == "adaptive" else ""
        )
        verification, sampling = Verification.parse(name + settings), Sampling(temperature, seed=1)
        chosen = sampling.choose(logits, PROMPT)
        for case, tokens in (
            ("kept", chosen),
            ("missed", [int(row.topk(9).indices[8]) for row in logits]),
        ):
            drafted = [
                Drafted(token, row.clone()) for token, row in zip(tokens, logits[:-1], strict=False)
            ]

            def judge(
                verification: Verification = verification,
                sampling: Sampling = sampling,
                drafted: list[Drafted] = drafted,
            ) -> None:
                verification.rule(sampling, lexicon).judge(logits, [1] * PROMPT, drafted)

            ms = milliseconds(judge)
            print(
                f"{name:10} temperature {temperature:g}  {case:6}  {ms:6.2f} ms  {ms / loop_ms:.1%}"
                " of the loop"
            )
    policy = AutoWindow()

    def steer() -> None:
        policy.observe(LoopReport(WINDOW + 1, loop_ms, WINDOW, 5, 10.0))
        policy.plan()

    ms = milliseconds(steer)
    print(f"window policy: {ms:.3f} ms, {ms / loop_ms:.3%} of the loop")


if __name__ == "__main__":
    main()
