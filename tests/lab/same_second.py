"""Start a bootstrap node and eight peers at the same moment, repeatedly: do they become one swarm?

    PYTHONPATH=.:tests python tests/lab/same_second.py [TIMES] [PEERS] [BOOTSTRAP NODES]

These are real DHT nodes, each with libp2p's daemon. Several bootstrap nodes name each other. Prints
a line for each time: how long it took until every node saw every peer, and how many each saw.
"""

import asyncio
import logging
import sys
import time

from helpers.start_together import start_together


def main(times: int = 20, peers: int = 8, bootstraps: int = 1) -> None:
    logging.getLogger("asyncio").setLevel(logging.CRITICAL)  # hivemind leaves tasks behind
    whole = 0
    for number in range(1, times + 1):
        started = time.monotonic()
        seen = asyncio.run(start_together(peers, bootstraps))
        whole += seen == [peers] * (peers + bootstraps)
        print(f"{number:3}  {time.monotonic() - started:5.1f} s  seen by each: {seen}", flush=True)
    print(f"one swarm {whole} times of {times}")


if __name__ == "__main__":
    main(*map(int, sys.argv[1:]))
