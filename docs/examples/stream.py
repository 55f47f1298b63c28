"""Show a text while it is written, and end it after its first sentence.

SWARM_BOOTSTRAP=ADDRESS python docs/examples/stream.py MODEL DRAFT
"""

import asyncio
import sys
from contextlib import aclosing

from swarm import SwarmClient

PROMPT = "Problem: Mia has 12 coins. She finds 30 more. How many coins does she have?\nSolution:"


async def main(model: str, draft: str) -> None:
    async with SwarmClient(model, draft=draft) as client:
        # aclosing ends the generation, and with it the peers' work, as soon as the block is left.
        async with aclosing(aiter(client.stream(PROMPT))) as pieces:
            async for piece in pieces:
                print(piece.text, end="", flush=True)
                if "." in piece.text:
                    break
        print()


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
