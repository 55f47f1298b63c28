"""Integers in words of 32 bits, as compressed-tensors, GPTQ and AWQ publish them."""

from collections.abc import Callable

import torch

Tensors = dict[str, torch.Tensor]
Pack = Callable[[torch.Tensor], tuple[Tensors, torch.Tensor]]
"""Given a matrix [rows, columns], returns its parts by their names, and its meaning."""


def pack_words(codes: torch.Tensor, bits: int) -> torch.Tensor:
    """Pack codes [rows, n] into int32 [rows, n * bits / 32], the first in the lowest bits."""
    each = 32 // bits
    words = torch.zeros(codes.shape[0], codes.shape[1] // each, dtype=torch.int64)
    for place in range(each):
        words += codes[:, place::each].long() << (bits * place)
    return torch.where(words >= 1 << 31, words - (1 << 32), words).to(torch.int32)


def unpack_words(words: torch.Tensor, bits: int) -> torch.Tensor:
    """Return the codes that `pack_words` packed."""
    each = 32 // bits
    codes = torch.empty(words.shape[0], words.shape[1] * each, dtype=torch.int64)
    for place in range(each):
        codes[:, place::each] = (words.long() >> (bits * place)) & (2**bits - 1)
    return codes


def integers(
    bits: int, group: int, *, zero_points: bool = False, sorted_columns: bool = False
) -> Pack:
    """compressed-tensors' ``pack-quantized``; a group of -1 is a row."""

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        rows, columns = weight.shape
        size = columns if group == -1 else group
        own = torch.arange(columns) // size
        if sorted_columns:
            own = own[torch.randperm(columns, generator=torch.Generator().manual_seed(columns))]
        scales = torch.empty(rows, columns // size)
        zeros = torch.full((rows, columns // size), 2 ** (bits - 1))
        for each in range(columns // size):
            values = weight[:, own == each]
            if zero_points:
                least, most = values.amin(1), values.amax(1)
                scales[:, each] = (most - least) / (2**bits - 1)
                zeros[:, each] = (-least / scales[:, each]).round().clamp(0, 2**bits - 1)
            else:
                scales[:, each] = values.abs().amax(1) / (2 ** (bits - 1) - 1)
        codes = (weight / scales[:, own]).round() + zeros[:, own]
        codes = codes.clamp(0, 2**bits - 1).long()
        parts = {
            "weight_packed": pack_words(codes, bits),
            "weight_scale": scales,
            "weight_shape": torch.tensor([rows, columns]),
        }
        if zero_points:
            parts["weight_zero_point"] = pack_words(zeros.T.contiguous(), bits).T.contiguous()
        if sorted_columns:
            parts["weight_g_idx"] = own.to(torch.int32)
        return parts, (codes - zeros[:, own]).float() * scales[:, own]

    return pack


def gptq(bits: int, group: int, *, version: int = 1, sorted_inputs: bool = False) -> Pack:
    """GPTQ: words along the inputs; zero points along the outputs, in version 1 less one."""

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        pack = integers(bits, group, zero_points=True, sorted_columns=sorted_inputs)
        parts, _ = pack(weight)
        inputs = weight.shape[1]
        own = parts.get("weight_g_idx", torch.arange(inputs) // (inputs if group == -1 else group))
        scales = parts["weight_scale"].half()
        zeros = unpack_words(parts["weight_zero_point"].T.contiguous(), bits)  # [groups, outputs]
        zeros = zeros.clamp(min=1)  # version 1 has no way to store 0
        codes = unpack_words(parts["weight_packed"], bits)
        meant = (codes - zeros.T[:, own.long()]).float() * scales.float()[:, own.long()]
        stored = zeros - 1 if version == 1 else zeros
        return {
            "qweight": pack_words(codes, bits).T.contiguous(),
            "qzeros": pack_words(stored, bits),
            "scales": scales.T.contiguous(),
            "g_idx": own.to(torch.int32),
        }, meant

    return pack


def awq(group: int) -> Pack:
    """AWQ's "gemm": words along the outputs, whose nibbles hold the columns 0 2 4 6 1 3 5 7."""

    def in_order(codes: torch.Tensor) -> torch.Tensor:
        eights = codes.reshape(len(codes), -1, 8)
        return pack_words(eights[:, :, [0, 2, 4, 6, 1, 3, 5, 7]].reshape(codes.shape), 4)

    def pack(weight: torch.Tensor) -> tuple[Tensors, torch.Tensor]:
        parts, _ = integers(4, group, zero_points=True)(weight)
        scales = parts["weight_scale"].half()
        codes = unpack_words(parts["weight_packed"], 4)
        zeros = unpack_words(parts["weight_zero_point"].T.contiguous(), 4)
        own = torch.arange(weight.shape[1]) // group
        meant = (codes - zeros.T[:, own]).float() * scales.float()[:, own]
        return {
            "qweight": in_order(codes.T.contiguous()),
            "qzeros": in_order(zeros),
            "scales": scales.T.contiguous(),
        }, meant

    return pack
