"""Write one text.

SWARM_BOOTSTRAP=ADDRESS python docs/examples/generate.py MODEL DRAFT
"""

import asyncio
import sys

from swarm import SwarmClient

PROMPT = "Problem: Mia has 12 coins. She finds 30 more. How many coins does she have?\nSolution:"


async def main(model: str, draft: str) -> None:
    async with SwarmClient(model, draft=draft) as client:
        result = await client.generate(PROMPT, max_new_tokens=100, temperature=0.7, seed=1)
        print(result.text)
        print(f"{result.stats.tokens_per_second:.1f} tokens/s over {len(result.route)} peers")


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
