"""Programs that tests wait for."""

from asyncio.subprocess import Process

from swarm.util.tasks import within


async def output_of(process: Process, patience_s: float) -> bytes:
    """Return what a program has printed when it has ended; kill it if it takes too long."""
    try:
        out, _ = await within(patience_s, process.communicate())
    finally:
        if process.returncode is None:
            process.kill()
            await process.wait()
    return out
