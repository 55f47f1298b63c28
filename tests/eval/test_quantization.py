"""What quantized weights do to answers, on the demo target."""

from itertools import islice

import pytest

from swarm.demo import TARGET, locate
from swarm.demo.problems import problems
from swarm.eval import quantization
from swarm.eval.quantization import FRAMES, markdown, measure

for library in ("torchao", "bitsandbytes", "accelerate"):
    pytest.importorskip(
        library, reason="quantized weights are an extra: pip install 'swarm[quant]'"
    )


def test_fewer_bits_cost_more(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(quantization, "TIMES", 1)
    asked = list(islice(problems(1000, held_out=True), 2))
    plain, int8, nf4 = figures = measure(locate(TARGET), asked)
    assert (plain.same_choice, plain.kl_nats) == (1.0, 0.0)
    assert plain.solved == 1.0  # of these two
    assert 0 < int8.kl_nats < nf4.kl_nats < 0.1
    assert nf4.same_choice <= int8.same_choice
    assert int8.perplexity == pytest.approx(plain.perplexity, rel=0.01)
    assert nf4.nbytes < int8.nbytes < plain.nbytes

    lines = markdown(figures).splitlines()
    assert [line.split(" | ")[0] for line in lines] == ["| ", "| ---", "| none", "| int8", "| nf4"]
    assert {line.count("|") for line in lines} == {7 + len(FRAMES)}
