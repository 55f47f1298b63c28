"""What recurrent layers ask of a cache, under the names that transformers gives it."""

from collections.abc import Sequence

import torch

from swarm.model.masks import NotPackable
from swarm.model.recurrent.states import StateKey, States


class StateAccess:
    """States of the sessions in one forward, as a batch for the layer that runs now.

    Attributes:
        states: of each session; None for sessions without any.
        counts: how many tokens of each the forward reads.
        serving: the sessions whose states the running layer sees, one row of its batch each.
    """

    def __init__(self, states: Sequence[States | None], counts: Sequence[int]) -> None:
        self.states = states
        self.counts = counts
        self.serving: tuple[int, ...] = (0,)
        for each in states:
            if each is not None:
                each.begin()

    def begun(self, session: int) -> bool:
        """Return whether the session's states have read a row."""
        return self._of(session).row > 0

    def get_state(self, key: StateKey) -> torch.Tensor | None:
        """Return a state [sessions, ...], which may be written into; None before the first row."""
        states = [self._of(session).get(key) for session in self.serving]
        if len(states) == 1:
            return states[0]
        held = [state for state in states if state is not None]
        if len(held) < len(states):
            return None  # sessions are served together only if all have read something, or none
        together = torch.cat(held)
        self._split(key, together)
        return together

    def put_state(self, key: StateKey, state: torch.Tensor) -> None:
        """Make `state` [sessions, ...] the state of the sessions that are served."""
        if len(self.serving) == 1:
            self._of(self.serving[0]).put(key, state)
        else:
            self._split(key, state)

    def _split(self, key: StateKey, state: torch.Tensor) -> None:
        for session, own in zip(self.serving, torch.split(state, 1), strict=True):
            self._of(session).put(key, own)

    def _of(self, session: int) -> States:
        states = self.states[session]
        if states is None:
            raise NotPackable("its layers keep states")
        return states

    # The names of `transformers.Cache`.

    def get_conv_state(self, layer_idx: int, state_idx: int = 0) -> torch.Tensor | None:
        return self.get_state((layer_idx, "conv", state_idx))

    def update_conv_state(
        self,
        conv_states: torch.Tensor,
        layer_idx: int,
        state_idx: int = 0,
        conv_kernel_size: int | None = None,
        **kwargs: object,
    ) -> torch.Tensor:
        """Append columns [sessions, channels, n] to a convolution's state, and keep the last ones.

        Returns:
            The columns that were kept before, then the new ones; where there were none, zeros in
            front of too few new ones.
        """
        key = (layer_idx, "conv", state_idx)
        before = self.get_state(key)
        if before is None:
            width = conv_states.shape[-1] if conv_kernel_size is None else conv_kernel_size
            missing = max(0, width - conv_states.shape[-1])
            whole = torch.nn.functional.pad(conv_states, (missing, 0))
        else:
            width = before.shape[-1]
            whole = torch.cat([before, conv_states], dim=-1)
        self.put_state(key, whole[..., -width:])
        return whole

    def get_recurrent_state(self, layer_idx: int, state_idx: int = 0) -> torch.Tensor | None:
        return self.get_state((layer_idx, "recurrent", state_idx))

    def update_recurrent_state(
        self,
        recurrent_states: torch.Tensor,
        layer_idx: int,
        state_idx: int = 0,
        **kwargs: object,
    ) -> torch.Tensor:
        self.put_state((layer_idx, "recurrent", state_idx), recurrent_states)
        return recurrent_states

    def has_previous_state(
        self, layer_idx: int | None = None, state_idx: int | None = None
    ) -> bool:
        return all(self.begun(session) for session in self.serving)

    def is_recording_past(self, layer_idx: int) -> bool:
        return False

    def get_linear_cache(self, layer_idx: int) -> torch.Tensor | None:  # MiniMax
        return self.get_state((layer_idx, "linear", 0))

    def set_linear_cache(self, layer_idx: int, linear_cache: torch.Tensor) -> None:  # MiniMax
        self.put_state((layer_idx, "linear", 0), linear_cache)
