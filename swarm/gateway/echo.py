"""Texts that begin with their prompt, whose log probabilities evaluations ask for."""

from dataclasses import replace

from swarm.gateway.requests import Body, TextBody
from swarm.gateway.service import EndEvent
from swarm.outputs import Generation


def echoed(event: EndEvent, body: Body) -> Generation:
    """Return a text that has ended, behind its prompt if that is to be told."""
    generation = event.generation
    if event.echo is None:
        return generation
    if isinstance(body, TextBody) and body.scores_only:
        stats = replace(generation.stats, new_tokens=0)
        generation = replace(generation, text="", token_ids=(), pieces=(), stats=stats)
    prompt = "".join(piece.text for piece in event.echo)
    behind = tuple(replace(piece, offset=piece.offset + len(prompt)) for piece in generation.pieces)
    return replace(generation, text=prompt + generation.text, pieces=(*event.echo, *behind))
