"""The repairs of one generation's chain, and what each of them took."""

from collections.abc import Callable
from dataclasses import replace

from swarm.chain.failover import Repairer
from swarm.decoding.windows import ResumePoint
from swarm.errors import ChainBroken, ChainSilent
from swarm.outputs import Failover


class Repairs:
    """Repairs a chain, and measures the pauses. Times are seconds of ``clock``.

    Attributes:
        failovers: so far, in order.
    """

    def __init__(self, repairer: Repairer, clock: Callable[[], float]) -> None:
        self.failovers: list[Failover] = []
        self._repairer = repairer
        self._clock = clock
        self._answered_at = clock()

    def answered(self, at: float) -> None:
        """Note when an answer arrived; the pause of a failover before it is over."""
        before, self._answered_at = self._answered_at, at
        self._repairer.answered()
        if self.failovers and not self.failovers[-1].pause_ms:
            self.failovers[-1] = replace(self.failovers[-1], pause_ms=(at - before) * 1e3)

    async def repair(
        self, failure: ChainBroken | ChainSilent, resume: Callable[[], ResumePoint]
    ) -> None:
        """Replace the peers that failed, if any did. Raises `SwarmIncomplete`."""
        broken = await self._repairer.find_failed(failure)
        if not broken:
            return
        noticed_at = self._clock()
        repair = await self._repairer.repair(broken, resume)
        self.failovers.append(
            Failover(
                peers=repair.peers,
                layers=repair.layers,
                noticed_ms=(noticed_at - self._answered_at) * 1e3,
                waited_ms=repair.waited_ms,
                repair_ms=(self._clock() - noticed_at) * 1e3 - repair.waited_ms,
                pause_ms=0.0,  # until the next answer
                replayed_tokens=repair.replayed_tokens,
                standby=repair.standby,
            )
        )
