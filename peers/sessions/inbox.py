"""Frames of one session that wait for their turn; what has gathered by then is one frame."""

from collections import deque
from collections.abc import Sequence

import torch
from torch import Tensor

from swarm.model.batch_invariance import MOST_ROWS
from swarm.wire.messages import Frame
from swarm.wire.tensors import MAX_FRAME_TOKENS, WireTensor

# Of several frames computed as one: a slow stage gets larger batches, not a longer queue. Of more
# tokens, a CPU in 16 bits would round the sums in another way.
MAX_JOINED_TOKENS = MOST_ROWS
# Beyond what the session has reserved: some waiting tokens may be stale to the client already.
MAX_LOST_TOKENS = MAX_FRAME_TOKENS


class InboxFull(Exception):
    """More tokens wait than the session may send before answers come."""

    def __init__(self, waiting_tokens: int, limit: int) -> None:
        super().__init__(waiting_tokens, limit)
        self.waiting_tokens = waiting_tokens
        self.limit = limit

    def __str__(self) -> str:
        return (
            f"{self.waiting_tokens} tokens wait already, {self.limit} may; send less before answers"
            " have come"
        )


class Inbox:
    """Waiting frames of one epoch and, before them, replayed frames, which outlive newer epochs.

    A session that has reserved ``reserved_tokens`` may let all of them wait, since a prompt may
    come at once, and `MAX_LOST_TOKENS` more. So the cache of a peer bounds what waits there,
    whatever clients send.
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
        """Add a frame, and drop waiting frames of older epochs.

        Raises `InboxFull` if there is no room left.
        """
        self.cancel(frame.epoch, replays=False)
        if self.tokens + frame.count > self.limit:
            raise InboxFull(self.tokens, self.limit)
        if frame.replay is None:
            self._frames.append(frame)
        elif not self._replays or frame.epoch >= self._replays[-1].epoch:
            self._replays.append(frame)
        else:
            return
        self.tokens += frame.count

    def cancel(self, epoch: int, replays: bool = True) -> None:
        """Drop frames of epochs before ``epoch``; replayed ones only if ``replays``."""
        while replays and self._replays and self._replays[0].epoch < epoch:
            self.tokens -= self._replays.popleft().count
        if self._frames and self._frames[0].epoch < epoch:
            self.tokens -= sum(frame.count for frame in self._frames)
            self._frames.clear()

    def next_tokens(self, room: int) -> int:
        """Return how many tokens `take` would return; 0 if nothing waits."""
        return sum(frame.count for frame in self._next(room))

    def take(self, room: int) -> Frame:
        """Take the first frame, joined with those that follow it up to ``room`` tokens in all.

        Replayed frames come first and are never joined.
        """
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
    """Whether two frames of an epoch may be joined.

    The second has to go on where the first ends, and all tokens of both have to be answered. That
    is not so in a prompt.
    """
    return (
        frame.first == before.first + before.count
        and before.tail == before.count
        and frame.tail == frame.count
        and _form(before) == _form(frame)
    )


def join(frames: Sequence[Frame]) -> Frame:
    """Return one frame for several, of which each `follows` the one before.

    It has the root of the first. Those of the others take effect with the next frame.
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
    """Return what frames must have in common to be joined."""
    return frame.hidden.dtype if frame.hidden else None, len(frame.compute_ms), len(frame.queue_ms)


def _joined(parts: Sequence[WireTensor]) -> WireTensor | None:
    if not parts:
        return None
    tokens = sum(part.tokens for part in parts)
    data = b"".join(part.data for part in parts)
    return WireTensor(dtype=parts[0].dtype, tokens=tokens, hidden=parts[0].hidden, data=data)


def inputs_of(frame: Frame) -> Tensor:
    """Return a span's input: token ids ``[n]`` at the model's start, else hidden states
    ``[n, hidden]``."""
    if frame.tokens is not None:
        return torch.tensor(frame.tokens)
    assert frame.hidden is not None  # a frame carries one of the two
    return frame.hidden.unpack()
