"""Write many texts side by side.

SWARM_BOOTSTRAP=ADDRESS python docs/examples/batch.py MODEL DRAFT
"""

import asyncio
import sys

from swarm import BatchFailed, SwarmClient

NAMES = ("Mia", "Amir", "Olga", "Ravi", "Chen")


async def main(model: str, draft: str) -> None:
    prompts = [f"Problem: {name} has 12 coins." for name in NAMES]
    async with SwarmClient(model, draft=draft) as client:
        try:
            for result in await client.generate_many(prompts, at_once=3, max_new_tokens=20):
                print(result.text.strip())
        except BatchFailed as failure:
            for place, error in failure.errors.items():
                print(f"{NAMES[place]}: {error}", file=sys.stderr)


if __name__ == "__main__":
    asyncio.run(main(*sys.argv[1:]))
