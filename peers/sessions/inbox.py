"""Frames of one session that wait for their turn.

What has gathered till then is computed as one frame.
"""

from collections import deque
from collections.abc import Sequence

from swarm.wire.messages import Frame
from swarm.wire.tensors import MAX_FRAME_TOKENS, WireTensor

# of several frames computed as one: a slow stage gets larger batches, not a longer queue
MAX_JOINED_TOKENS = 64
# Beyond what the session has reserved: tokens may wait that the client knows to be lost already.
MAX_LOST_TOKENS = MAX_FRAME_TOKENS


class Overfull(Exception):
    """The sender does not wait for answers."""

    def __init__(self, waiting_tokens: int, limit: int) -> None:
        super().__init__(waiting_tokens, limit)
        self.waiting_tokens, self.limit = waiting_tokens, limit

    def __str__(self) -> str:
        return (
            f"{self.waiting_tokens} tokens wait already, {self.limit} may; send less before answers"
            " have come"
        )


class Inbox:
    """Waiting frames, all of one epoch; and before them what is replayed, which outlives newer
    epochs.

    This is where a client's credit ends. A session that has reserved ``reserved_tokens`` may let
    all of them wait, for a prompt may come at once, and `MAX_LOST_TOKENS` beside them. So what
    waits on a peer is bounded by the tokens that it has cache for, whatever anybody sends.
    """

    def __init__(self, reserved_tokens: int) -> None:
        self.limit = reserved_tokens + MAX_LOST_TOKENS
        self.tokens = 0
        self._replays: deque[Frame] = deque()  # of epochs that never fall
        self._frames: deque[Frame] = deque()

    def __len__(self) -> int:
        return len(self._replays) + len(self._frames)

    @property
    def replays(self) -> int:
        """How many of the frames are replayed."""
        return len(self._replays)

    def put(self, frame: Frame) -> None:
        """Frames of older epochs that wait are dropped.

        Raises `Overfull` if there is no room left.
        """
        self.cancel(frame.epoch, replays=False)
        if self.tokens + frame.count > self.limit:
            raise Overfull(self.tokens, self.limit)
        if frame.replay is None:
            self._frames.append(frame)
        elif not self._replays or frame.epoch >= self._replays[-1].epoch:
            self._replays.append(frame)
        else:
            return
        self.tokens += frame.count

    def cancel(self, epoch: int, replays: bool = True) -> None:
        """Drop what is of an epoch before ``epoch``; what is replayed only if ``replays``."""
        while replays and self._replays and self._replays[0].epoch < epoch:
            self.tokens -= self._replays.popleft().count
        if self._frames and self._frames[0].epoch < epoch:
            self.tokens -= sum(frame.count for frame in self._frames)
            self._frames.clear()

    def next_tokens(self, room: int) -> int:
        """How many tokens `take` would give; 0 if nothing waits."""
        return sum(frame.count for frame in self._next(room))

    def take(self, room: int) -> Frame:
        """The first frame, joined with as many that follow as make no more than ``room`` tokens
        together. What is replayed comes first, and is never joined."""
        frames = self._next(room)
        waiting = self._replays or self._frames
        for frame in frames:
            waiting.popleft()
            self.tokens -= frame.count
        return join(frames)

    def _next(self, room: int) -> list[Frame]:
        if self._replays:
            return [self._replays[0]]
        joined: list[Frame] = []
        tokens = 0
        for frame in self._frames:
            tokens += frame.count
            if joined and (tokens > min(room, MAX_JOINED_TOKENS) or not follows(joined[-1], frame)):
                break
            joined.append(frame)
        return joined


def follows(before: Frame, frame: Frame) -> bool:
    """Whether two frames of an epoch may be joined: the second goes on where the first ends, and
    all of their tokens are to be answered, which a prompt's are not."""
    return (
        frame.first == before.first + before.count
        and before.tail == before.count
        and frame.tail == frame.count
        and _form(before) == _form(frame)
    )


def join(frames: Sequence[Frame]) -> Frame:
    """One frame for several of which each `follows` the one before.

    It has the root of the first: those of the others come into effect with the next frame.
    """
    if len(frames) == 1:
        return frames[0]
    branching = any(frame.parents for frame in frames)
    parents = tuple(
        distance for frame in frames for distance in frame.parents or (1,) * frame.count
    )
    tokens = tuple(token for frame in frames for token in frame.tokens or ())
    return frames[0].model_copy(
        update={
            "tail": sum(frame.count for frame in frames),
            "parents": parents if branching else None,
            "tokens": tokens or None,
            "hidden": _joined([frame.hidden for frame in frames if frame.hidden is not None]),
            "compute_ms": tuple(
                map(max, zip(*(frame.compute_ms for frame in frames), strict=True))
            ),
            "queue_ms": tuple(map(max, zip(*(frame.queue_ms for frame in frames), strict=True))),
        }
    )


def _form(frame: Frame) -> tuple[str | None, int, int]:
    """What frames must have in common to be one."""
    return frame.hidden.dtype if frame.hidden else None, len(frame.compute_ms), len(frame.queue_ms)


def _joined(parts: Sequence[WireTensor]) -> WireTensor | None:
    if not parts:
        return None
    tokens, data = sum(part.tokens for part in parts), b"".join(part.data for part in parts)
    return WireTensor(dtype=parts[0].dtype, tokens=tokens, hidden=parts[0].hidden, data=data)
