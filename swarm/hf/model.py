"""A model that a swarm computes, for code that was written for transformers."""

import asyncio
import atexit
import functools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor
from transformers import GenerationConfig, PreTrainedConfig
from transformers.modeling_outputs import CausalLMOutputWithPast
from typing_extensions import Unpack

from swarm.client.batch import DEFAULT_AT_ONCE, side_by_side
from swarm.client.settings import ClientOptions
from swarm.client.sync import BlockingClient
from swarm.errors import UnsupportedArgument
from swarm.hf.arguments import GenerateCall, mask_of, read_call, unpadded
from swarm.hf.outputs import GeneratedRow, SwarmGenerateOutput, assemble, placed
from swarm.hf.settings import refused

# arguments of `forward` that are honoured, since they ask for what it does
HARMLESS = (("return_dict", True), ("use_cache", True))


class SwarmModel:
    """A drop-in replacement for models of ``AutoModelForCausalLM``.

    Use it as ``SwarmModel.from_pretrained(model, draft=..., bootstrap=[...])``. Calls block; calls
    from several threads run side by side. Close it at the end, or use it in a ``with`` block.

    Attributes:
        client: for everything that transformers has no interface for.
        config: the model's configuration.
        generation_config: the defaults of `generate`. May be changed.
    """

    def __init__(self, client: BlockingClient) -> None:
        """Take over ``client``, which has to be open."""
        self.client = client
        checkpoint = client.client.models.checkpoint
        self.config: PreTrainedConfig = checkpoint.config
        self.generation_config: GenerationConfig = checkpoint.generation_config
        atexit.register(self.close)

    @classmethod
    def from_pretrained(cls, model: str, **options: Unpack[ClientOptions]) -> "SwarmModel":
        """Enter a swarm that serves ``model``, a folder, a GGUF file or a hub id.

        Args:
            options: those of `SwarmClient`: ``draft``, ``bootstrap``, and more.

        Raises:
            NoBootstrap, ModelNotFound, DamagedModel, UnsupportedModel, DraftMismatch, ConfigError:
                as `SwarmClient` does.
        """
        return cls(BlockingClient(model, **options).open())

    def close(self) -> None:
        """Leave the swarm. May be called again."""
        atexit.unregister(self.close)
        self.client.close()

    def __enter__(self) -> "SwarmModel":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @property
    def device(self) -> torch.device:
        """The device of the LM head, for inputs; outputs are on the device of the inputs."""
        head = self.client.client.models.head
        return torch.device("cpu") if head is None else head.device

    @property
    def tokenizer(self) -> Any:
        """The model's tokenizer, one of transformers'."""
        return self.client.client.models.tokenizer

    def generate(
        self,
        inputs: Tensor | None = None,
        generation_config: GenerationConfig | None = None,
        *,
        input_ids: Tensor | None = None,
        attention_mask: Tensor | None = None,
        stopping_criteria: Sequence[Any] | None = None,
        streamer: Any = None,
        at_once: int = DEFAULT_AT_ONCE,
        **more: Any,
    ) -> Tensor | SwarmGenerateOutput:
        """Continue texts, as ``transformers.GenerationMixin.generate`` does.

        docs/sdk.md lists the arguments that are honoured.

        Args:
            inputs, input_ids: ``[batch, tokens]``, padded on the left; one of the two.
            attention_mask: ``[batch, tokens]``, 0 for padding.
            stopping_criteria: called for each row by itself after each of its tokens, without
                scores.
            streamer: gets the prompt, every token and the end of one sequence.
            at_once: how many rows are generated side by side.
            more: fields of GenerationConfig, which override those of ``generation_config``;
                ``seed``; and options of `SwarmClient.generate` that transformers does not have,
                such as ``verify`` or ``window``.

        Returns:
            Sequences ``[batch * num_return_sequences, tokens]``, prompts included, or with
            ``return_dict_in_generate`` a `SwarmGenerateOutput`.

        Raises:
            UnsupportedArgument: for arguments that a swarm cannot honour.
            RequestError, SamplingError, PromptTooLong, MissingLayers, SwarmIncomplete, ...: as
                `SwarmClient.generate`.
        """
        if inputs is not None and input_ids is not None:
            raise UnsupportedArgument(
                "inputs", inputs, "it is another name of input_ids: give one of the two"
            )
        call = read_call(
            input_ids if inputs is None else inputs,
            attention_mask,
            generation_config,
            self.generation_config,
            self.client.client.models.checkpoint.max_positions,
            tuple(stopping_criteria or ()),
            more,
        )
        if streamer is not None and len(call.prompts) > 1:
            raise UnsupportedArgument(
                "streamer", streamer, "it takes one sequence, and several are requested"
            )
        works = [
            functools.partial(self._row, call, row, streamer) for row in range(len(call.prompts))
        ]
        return assemble(call, self.client.run(side_by_side(works, at_once)))

    def forward(
        self,
        input_ids: Tensor,
        attention_mask: Tensor | None = None,
        *,
        logits_to_keep: int = 0,
        output_hidden_states: bool = False,
        at_once: int = DEFAULT_AT_ONCE,
        **more: Any,
    ) -> CausalLMOutputWithPast:
        """Return the model's logits at every token of some texts, in one pass.

        Args:
            input_ids: ``[batch, tokens]``, padded on either side.
            attention_mask: ``[batch, tokens]``, 0 for padding.
            logits_to_keep: return only the logits of the last so many positions; 0 is all.
            output_hidden_states: also return the last layer's, ``[batch, tokens, hidden]``.
            at_once: how many rows are computed side by side.

        Returns:
            ``logits`` ``[batch, tokens, vocabulary]`` float32; zeros at padding.

        Raises:
            UnsupportedArgument: for arguments that a swarm cannot honour.
            PromptTooLong, MissingLayers, ChainBroken, ...: as `SwarmClient.read`.
        """
        for name, value in more.items():
            if value is not None and value is not False and (name, value) not in HARMLESS:
                raise refused(name, value)
        if logits_to_keep < 0:
            raise UnsupportedArgument(
                "logits_to_keep", logits_to_keep, "give a number of tokens; 0 is all"
            )
        mask = mask_of(input_ids, attention_mask)
        kept = mask[:, -logits_to_keep:]
        read = self.client.client.read
        works = [
            functools.partial(read, prompt, logits_to_keep=max(1, int(text.sum())))
            for prompt, text in zip(unpadded(input_ids, mask), kept, strict=True)
        ]
        readings = self.client.run(side_by_side(works, at_once))
        hidden_states = placed([reading.hidden_states for reading in readings], mask)
        return CausalLMOutputWithPast(
            logits=placed([reading.logits for reading in readings], kept),
            hidden_states=(hidden_states,) if output_hidden_states else None,
        )

    __call__ = forward

    async def _row(self, call: GenerateCall, number: int, streamer: Any) -> GeneratedRow:
        """Generate one row.

        The user's streamer and criteria run in threads, because they may take long.
        """
        row = GeneratedRow()
        tokens = call.inputs[number : number + 1]
        stream = self.client.client.stream(call.prompts[number], **call.options_of(number))
        pieces = stream.__aiter__()
        try:
            if streamer is not None:
                await asyncio.to_thread(streamer.put, tokens.cpu())
            async for piece in pieces:
                row.pieces.append(piece)
                token = tokens.new_tensor([piece.token_id])
                if streamer is not None:
                    await asyncio.to_thread(streamer.put, token.cpu())
                if call.criteria:
                    tokens = torch.cat([tokens, token[None]], dim=1)
                    if await asyncio.to_thread(_ended, call.criteria, tokens):
                        return row
            row.generation = stream.result
            return row
        finally:
            await pieces.aclose()
            if streamer is not None:
                await asyncio.to_thread(streamer.end)


def _ended(criteria: Sequence[Callable[..., Any]], tokens: Tensor) -> bool:
    return any(bool(torch.as_tensor(each(tokens, None)).all()) for each in criteria)
