"""Without await: several threads share one client.

SWARM_BOOTSTRAP=ADDRESS python docs/examples/blocking.py MODEL DRAFT
"""

import sys
from concurrent.futures import ThreadPoolExecutor

from swarm import BlockingClient


def main(model: str, draft: str) -> None:
    with BlockingClient(model, draft=draft) as client, ThreadPoolExecutor(4) as threads:

        def ask(name: str) -> str:
            return client.generate(f"Problem: {name} has 12 coins.", max_new_tokens=20).text

        for text in threads.map(ask, ["Mia", "Amir", "Olga", "Ravi"]):
            print(text.strip())


if __name__ == "__main__":
    main(*sys.argv[1:])
