"""The session that a text is written in: one that holds its beginning, or a new one."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from swarm.chain.retry import on_some_chain
from swarm.chain.router import Router
from swarm.chain.session import ChainSession
from swarm.chain.stage import ChainLink
from swarm.chain.terms import Terms
from swarm.client.models import ClientModels
from swarm.client.sequence import TextSequence
from swarm.client.session_cache import Found, SessionCache
from swarm.decoding.windows import NOTHING_HELD, ResumePoint
from swarm.errors import ChainBroken
from swarm.request import Request
from swarm.routing.taps import Tapping
from swarm.wire.candidates import HeadTerms
from swarm.wire.faults import FaultCode

NO_TAPS = (
    "a peer of the chain cannot tell what its layers give, and the head reads that; its software is"
    " older"
)
OPEN_TRIES = 5  # peers that may refuse or fail before a session is open


@dataclass(frozen=True)
class Beginning:
    """A text that begins, the session that it is written in, and what that one holds of it."""

    sequence: TextSequence
    session: ChainSession
    held: ResumePoint


class SessionOpener:
    """Opens the session of one text.

    Args:
        router: chooses the chain of a new session.
        kept: sessions that the text may go on from.
        head: on which terms the last peer answers; None for hidden states.
        sequence_from: makes the text's sequence, from what a session holds of the prompt.
    """

    def __init__(
        self,
        models: ClientModels,
        request: Request,
        router: Router,
        kept: SessionCache | None,
        head: HeadTerms | None,
        sequence_from: Callable[[ResumePoint], TextSequence],
    ) -> None:
        self._models = models
        self._request = request
        self._router = router
        self._kept = kept
        self._head = head
        self._sequence_from = sequence_from

    async def begin(self, prompt: Sequence[int]) -> Beginning:
        """Go on in a session that holds a beginning of the prompt, or in a fork of one that holds
        more of it. Without either, or if that fails, open a new session on the best chain."""
        if self._kept is not None:
            # before a session is taken: an error would lose it
            self._request.check_prompt(prompt, self._models.checkpoint)
            tokens = self._request.session_tokens(len(prompt))
            found = await self._kept.find(prompt, tokens, self._request.owner)
            if found is not None:
                begin = self._go_on if found.taken else self._fork
                if (beginning := await begin(self._kept, found)) is not None:
                    return beginning
        sequence = self._sequence_from(NOTHING_HELD)
        return Beginning(sequence, await self._open(sequence), NOTHING_HELD)

    async def _go_on(self, kept: SessionCache, found: Found) -> Beginning | None:
        """Have the peers of a session that was given up answer by this text's terms; if one fails,
        close the session and return None."""
        session = found.session
        try:
            sequence = self._sequence_from(found.held)
            await session.agree(self._head, sequence.taps)
        except BaseException as error:
            kept.left(session)
            await session.close()
            if isinstance(error, ChainBroken):
                return None
            raise
        use_taps(session, sequence)
        return Beginning(sequence, session, found.held)

    async def _fork(self, kept: SessionCache, found: Found) -> Beginning | None:
        """Begin with a copy of what the peers hold in another session; None if they do not.

        The copy takes room beside its source. Where there is too little, none is asked for a next
        turn; then the owner's other kept sessions are closed; then the source, which takes the room
        that the text needs.
        """
        held = found.held.beginning(found.shared)
        sequence = self._sequence_from(held)
        count = _unread_by_drafter(sequence, held)
        if count < len(held.tokens):
            if count < kept.least_shared:
                return None
            held = found.held.beginning(count)
            sequence = self._sequence_from(held)
        spares = [0, self._spare(sequence)]
        while spares:
            terms = self._terms(sequence, sequence.max_tokens + spares.pop())
            session = found.session.fork(found.held.root, len(held.tokens), terms)
            try:
                await self._opened(session, sequence)
            except ChainBroken as failure:
                # nothing is held against the peer: opening a session on it comes next, and tells
                if failure.code is not FaultCode.BUSY:
                    break
                if not spares and await kept.make_room(self._request.owner, found.session):
                    spares.append(0)
            else:
                return Beginning(sequence, session, held)
        await kept.drop(found.session)
        return None

    async def _open(self, sequence: TextSequence) -> ChainSession:
        """Open a session on the best chain on which one can be opened.

        It has room for a next turn of the conversation, until a peer refuses that for want of room.
        """
        spare = self._spare(sequence)

        async def open_on(chain: Sequence[ChainLink]) -> ChainSession:
            nonlocal spare
            session = ChainSession(chain, self._terms(sequence, sequence.max_tokens + spare))
            try:
                return await self._opened(session, sequence)
            except ChainBroken as failure:
                spare = 0 if failure.code is FaultCode.BUSY else spare
                raise

        tapping = None
        if sequence.taps is not None:
            tapping = Tapping(sequence.taps.layers, self._models.calibrations.doubted)
        patience_s = self._request.patience_s
        return await on_some_chain(
            self._router, open_on, tries=OPEN_TRIES, patience_s=patience_s, tapping=tapping
        )

    def _spare(self, sequence: TextSequence) -> int:
        """Return the cache tokens for a next turn in the same session, if it is to be kept."""
        if self._kept is None:
            return 0
        return self._request.spare_tokens(len(sequence.prompt), self._models.checkpoint)

    def _terms(self, sequence: TextSequence, max_tokens: int) -> Terms:
        checkpoint = self._models.checkpoint
        return Terms(
            checkpoint.fingerprint,
            max_tokens,
            checkpoint.hidden_size,
            self._models.guard,
            self._head,
            checkpoint.vocab_size,
            sequence.taps,
        )

    @staticmethod
    async def _opened(session: ChainSession, sequence: TextSequence) -> ChainSession:
        """Open a session; close it if that fails, and raise `ChainBroken`."""
        try:
            await session.open()
        except BaseException:
            await session.close()
            raise
        use_taps(session, sequence)
        return session


def use_taps(session: ChainSession, sequence: TextSequence) -> None:
    """Calibrate a head by the peers that tell outputs of layers, or have the text do without it if
    the chain does not tell them."""
    if sequence.taps is None:
        return
    if session.protocol.taps is None:
        sequence.leave_head(NO_TAPS)
    else:
        sequence.told_by(session.protocol.tellers)


def _unread_by_drafter(sequence: TextSequence, held: ResumePoint) -> int:
    """Return how many of the tokens that are held need not be read again.

    Of a prompt's last tokens a drafter may need the target's answers. Where the other text has
    none at these places, they are computed again.
    """
    count = len(held.tokens)
    book = sequence.decoder.book
    if book is None:
        return count
    answered_from = book.answered_from(len(sequence.prompt))
    known_from = count - len(held.features)
    return count if known_from <= answered_from else min(count, answered_from)
