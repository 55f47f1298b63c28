"""The line of figures below an answer of the chat."""

from helpers.text_stats import text_stats, time_share
from swarm.chat.chat import ChatAnswer
from swarm.chat.display import figures
from swarm.outputs import Generation


def test_the_line_tells_the_clients_share_and_what_holds_the_answer_back() -> None:
    stats = text_stats(
        new_tokens=62,
        tokens_per_second=11.23,
        draft_acceptance_rate=0.874,
        share=time_share(links=0.2, judging=0.05, drafting=0.6),
        drafter="model",
        accepted_tokens=50,
        draft_ms_per_token=22.4,
    )
    assert figures(ChatAnswer("why?", generation=Generation("so", (1,), (), stats))) == (
        "62 tokens, 11.2 tokens/s, 87% of the drafted tokens kept, 5% of the time judging here, "
        "60% drafting, ended by max-new-tokens; held back because drafting takes 22 ms a token "
        "here: try a smaller draft"
    )
