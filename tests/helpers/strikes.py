"""What may happen to a swarm while it writes a text, and the ways in which it decodes."""

from helpers.loopback import eventually
from helpers.swarm_in_process import STAGES, Strike, Swarm
from swarm.client.generation import GenerationStream

WAYS = [{"window": 0}, {"window": 4, "depth": 1}, {}]
WAY_NAMES = ["plain", "window of 4", "streaming"]


def killing(*stages: int) -> Strike:
    """Peers vanish without a word."""

    async def strike(swarm: Swarm, stream: GenerationStream) -> None:
        for peer in [swarm.serving(stream, stage) for stage in stages]:
            swarm.up.remove(peer)
            await peer.die()

    return strike


def hanging(stage: int) -> Strike:
    """A peer computes for ever, and still answers."""

    async def strike(swarm: Swarm, stream: GenerationStream) -> None:
        swarm.serving(stream, stage).span.go_on.clear()

    return strike


def when_all_stand_by(strike: Strike, count: int = len(STAGES)) -> Strike:
    async def wait(swarm: Swarm, stream: GenerationStream) -> None:
        await eventually(lambda: len(stream.standby) == count)
        await strike(swarm, stream)

    return wait
