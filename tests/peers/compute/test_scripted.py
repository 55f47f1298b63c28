"""A scripted span keeps a real one's books, takes the time of its table, and says the script."""

import pytest
import torch

from helpers.shapes import TINY
from peers.compute.scripted import ScriptedHead, ScriptedSpan, scripted
from swarm.errors import ConfigError, SpanError
from swarm.model.checkpoint import Checkpoint
from swarm.model.head import Head
from swarm.model.taps import Taps
from swarm.model.work import Work
from swarm.shapes.folder import write_target
from swarm.shapes.script import Script
from swarm.wire.taps import TapTerms
from swarm.wire.token_tree import Placement

SCRIPT = Script.of(TINY.vocab_size, 64, ((1, 1000.0), (11, 2000.0)), ((1, 500.0), (3, 700.0)))
ROWS = torch.randn(TINY.vocab_size, TINY.hidden_size)


def span(first=0, last=2, slept=None):
    slept = [] if slept is None else slept
    return ScriptedSpan(SCRIPT, ROWS, (first, last), torch.float32, slept.append)


def said(output):
    return [int((row == ROWS).all(dim=-1).nonzero()) for row in output]


def test_outputs_are_the_heads_rows_of_what_follows():
    served = span()
    cache = served.new_cache()
    [output] = served.forward([Work.behind(cache, torch.tensor([7, 8, 9]))])
    assert said(output) == list(SCRIPT.tokens[1:4])
    assert cache.length == 3
    [output] = served.forward([Work.behind(cache, torch.tensor([10]))])
    assert said(output) == [SCRIPT.at(4)]


def test_a_branch_is_answered_at_its_own_position():
    served = span()
    cache = served.new_cache()
    served.forward([Work.behind(cache, torch.tensor([7, 8, 9]))])
    work = Work(cache, torch.tensor([1, 2]), Placement(3, (), (3, 3), trunk=3, sees=None))
    assert said(served.forward([work])[0]) == [SCRIPT.at(4), SCRIPT.at(4)]


def test_a_tapped_layer_tells_the_spans_output_at_the_last_tokens():
    served = span(0, 4)
    taps = Taps(TapTerms(layers=(1, 3), float8=False), 2)
    work = Work(
        served.new_cache(), torch.tensor([7, 8, 9]), Placement(0, (), (0, 1, 2), 0, None), taps
    )
    [output] = served.forward([work])
    [told] = taps.outputs
    assert told.unpack().equal(output[-2:, None].expand(2, 2, -1))


def test_a_batch_takes_the_time_of_all_its_positions_in_all_its_layers():
    slept: list[float] = []
    served = span(1, 3, slept)
    works = [Work.behind(served.new_cache(), torch.zeros(n, TINY.hidden_size)) for n in (5, 6)]
    served.forward(works)
    served.forward([Work.behind(served.new_cache(1, 2), torch.zeros(1, 64))], 1, 2)
    assert slept == [pytest.approx(2 * 2.0, abs=0.5), pytest.approx(1.0, abs=0.5)]


def test_a_cache_has_its_limit():
    served = span()
    cache = served.new_cache(limit=2)
    with pytest.raises(SpanError):
        served.forward([Work.behind(cache, torch.tensor([7, 8, 9]))])


def test_a_written_model_is_served_and_its_head_chooses_the_script(tmp_path):
    script = write_target(TINY, tmp_path)
    checkpoint = Checkpoint.open(str(tmp_path))
    served = scripted(str(tmp_path))(checkpoint, 0, 4, dtype=torch.bfloat16)
    work = Work.behind(served.new_cache(), torch.tensor([7, 8, 9]))
    [output] = served.forward([work])
    assert output.dtype == torch.bfloat16
    logits = Head.load(checkpoint).logits(output)
    assert logits.argmax(dim=-1).tolist() == list(script.tokens[1:4])


def test_a_model_with_real_layers_is_refused(tmp_path):
    with pytest.raises(ConfigError) as caught:
        scripted("demo/model")
    assert "real ones" in str(caught.value)
    write_target(TINY, tmp_path)
    (tmp_path / "script.json").unlink()
    with pytest.raises(ConfigError):
        scripted(str(tmp_path))


def test_a_scripted_head_chooses_the_script_and_takes_the_time_of_its_table():
    slept: list[float] = []
    rows = ROWS.bfloat16()
    served = ScriptedSpan(SCRIPT, rows, (0, 2), torch.bfloat16, lambda _: None)
    work = Work.behind(served.new_cache(), torch.tensor([7, 8, 9]))
    [output] = served.forward([work])
    for hidden in (output, output.float()):
        logits = ScriptedHead(SCRIPT, rows, slept.append).logits(hidden)
        assert logits.dtype == torch.float32
        assert logits.argmax(dim=-1).tolist() == list(SCRIPT.tokens[1:4])
    assert slept == [pytest.approx(0.7, abs=0.2)] * 2
