"""How sure the model was of every token, and what it nearly said.

SWARM_BOOTSTRAP=ADDRESS python docs/examples/logprobs.py MODEL DRAFT
"""

import asyncio
import math
import sys

from swarm import SwarmClient


async def main(model: str, draft: str) -> None:
    async with SwarmClient(model, draft=draft) as client:
        async for piece in client.stream(
            "Problem: Mia has 12 coins.", max_new_tokens=20, logprobs=3
        ):
            assert piece.logprob is not None  # asked for
            nearly = ", ".join(
                f"{each.text!r} {math.exp(each.logprob):.0%}" for each in piece.likely
            )
            print(f"{piece.text!r:12} {math.exp(piece.logprob):4.0%}   ({nearly})")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
