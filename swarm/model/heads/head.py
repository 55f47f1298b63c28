"""A head that guesses next tokens from the target's hidden states: one torch module.

A head joins the embedding of a token with the *feature* of the token before it, which is the
target's last hidden state there, and runs a few decoder layers over the tokens that it read so::

    state i     =  layers(fc([embedding of token i + 1 ; feature i]))    at the rotary position i
    prediction  =  LM head(norm(state i)),  of token i + 2

Where the target has not answered yet, state i takes the place of feature i + 1: a head goes on
with states of its own. Published families differ in norms, in names, and in their `Wiring`.
(EAGLE: Li et al. 2024, arXiv 2401.15077. MTP: DeepSeek-V3, arXiv 2412.19437, section 2.2.)
"""

from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from swarm.model.forward_watch import ForwardWatch, watched


@dataclass(frozen=True)
class Wiring:
    """How a family of heads is connected, which no tensor's shape shows.

    Attributes:
        normed_features: features are the target's outputs behind its final norm; else before it.
        normed_states: a state is what is behind the head's own norm, and so carried on; else the
            norm is applied for predictions alone.
    """

    normed_features: bool = True
    normed_states: bool = False


class FeatureHead(nn.Module):
    """A head with its own decoder layers. Parameters are trainable; `forward` has gradients.

    Args:
        decoder: runs the layers on ``inputs_embeds``, and does nothing behind them.
        fc: ``[2 * hidden] -> [hidden]``.
        wiring: of the family.
        embedding_norm: of embeddings, before ``fc``.
        feature_norm: of features, before ``fc``.
        norm: behind the layers.
        lm_head: ``[hidden] -> [tokens]``; None until it is given.

    Attributes:
        watch: is told of each forward, if there is one.
    """

    def __init__(
        self,
        decoder: PreTrainedModel,
        fc: nn.Module,
        wiring: Wiring,
        *,
        embedding_norm: nn.Module | None = None,
        feature_norm: nn.Module | None = None,
        norm: nn.Module | None = None,
        lm_head: nn.Module | None = None,
    ) -> None:
        super().__init__()
        self.decoder = decoder
        self.fc = fc
        self.wiring = wiring
        self.embedding_norm = nn.Identity() if embedding_norm is None else embedding_norm
        self.feature_norm = nn.Identity() if feature_norm is None else feature_norm
        self.norm = nn.Identity() if norm is None else norm
        self.lm_head = nn.Identity() if lm_head is None else lm_head
        self.watch: ForwardWatch | None = None

    @property
    def device(self) -> torch.device:
        device: torch.device = next(self.decoder.parameters()).device
        return device

    @property
    def dtype(self) -> torch.dtype:
        """In which it computes: that of its norms, where its weights are rounded to integers."""
        dtype: torch.dtype = next(self.decoder.parameters()).dtype
        return dtype

    def enter(self, outputs: Tensor) -> Tensor:
        """Return features ``[n, hidden]`` made of what the target's layers gave."""
        return outputs

    def forward(self, embedded: Tensor, features: Tensor, **how: Any) -> Tensor:
        """Return the states of some tokens.

        Args:
            embedded: ``[batch, n, hidden]``, the embeddings of the tokens.
            features: ``[batch, n, hidden]``, each token's feature: that of the token before it.
            how: of the decoder: ``position_ids``, ``attention_mask``, ``past_key_values``. By
                default the tokens follow each other from position 0 on.

        Returns:
            ``[batch, n, hidden]``.
        """
        joined = torch.cat((self.embedding_norm(embedded), self.feature_norm(features)), dim=-1)
        with watched(self.watch):
            output: Tensor = self.decoder(inputs_embeds=self.fc(joined), **how).last_hidden_state
        return self.norm(output) if self.wiring.normed_states else output

    def logits(self, states: Tensor) -> Tensor:
        """Return the predictions ``[..., tokens]`` of what follows the tokens of these states."""
        predicting = states if self.wiring.normed_states else self.norm(states)
        logits: Tensor = self.lm_head(predicting)
        return logits

    def run_once(self) -> None:
        """Read one token of zeros, and predict what follows it."""
        hidden = int(self.decoder.config.hidden_size)
        zeros = torch.zeros(1, 1, hidden, dtype=self.dtype, device=self.device)
        self.logits(self(zeros, zeros, use_cache=False))
