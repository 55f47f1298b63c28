"""What became of drafts, by source and lag."""

from swarm.decoding.acceptance import MAX_LAG, AcceptanceCounts, SourceAcceptance, together


def test_decided_drafts_are_counted_by_source_and_lag():
    counts = AcceptanceCounts()
    for source, lag, accepted in [
        ("model", 1, True),
        ("model", 3, True),
        ("model", 1, False),
        ("copy", 2, False),
    ]:
        counts.count(source, lag, accepted)
    assert counts.by_source == (
        SourceAcceptance("copy", (0, 1), (0, 0)),
        SourceAcceptance("model", (2, 0, 1), (1, 0, 1)),
    )


def test_what_lies_too_far_behind_is_not_counted():
    counts = AcceptanceCounts()
    counts.count("copy", MAX_LAG + 1, True)
    assert counts.by_source == ()
    counts.count("copy", MAX_LAG, True)
    assert len(counts.by_source[0].judged) == MAX_LAG


def test_texts_are_summed_up_by_source():
    one = (SourceAcceptance("model", (5, 2), (4, 1)),)
    other = (SourceAcceptance("copy", (1,), (1,)), SourceAcceptance("model", (1, 1, 1), (0, 1, 0)))
    assert together([one, (), other]) == (
        SourceAcceptance("copy", (1,), (1,)),
        SourceAcceptance("model", (6, 3, 1), (4, 2, 0)),
    )
