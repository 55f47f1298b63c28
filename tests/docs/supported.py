"""The table of docs/architectures.md: the architectures that tests/model/test_span.py serves."""

import re

from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES

from helpers.models import ARCHITECTURES, UNPACKED, UNSUPPORTED
from helpers.recurrent_models import RECURRENT, RECURRENT_ALONE

BEGIN, END = "<!-- written by `python -m tests.docs` -->\n", "<!-- up to here -->\n"

# Published models of each model type, so that a reader finds theirs.
FAMILIES = {
    "axk1": "A.X K1",
    "bailing_hybrid": "Ling 2.5, Ring 2.5",
    "bamba": "Bamba",
    "bloom": "BLOOM, BLOOMZ",
    "cohere": "Command R, Command R+, Aya 23",
    "cohere2": "Command R7B, Command A",
    "deepseek_v2": "DeepSeek V2, V2-Lite, V2.5",
    "deepseek_v3": "DeepSeek V3, V3.1, R1, Kimi K2",
    "deepseek_v32": "DeepSeek V3.2",
    "exaone4": "EXAONE 4.0",
    "falcon": "Falcon 7B, 40B, 180B",
    "falcon_mamba": "Falcon Mamba 7B",
    "gemma": "Gemma",
    "gemma2": "Gemma 2",
    "gemma3_text": "Gemma 3 (text)",
    "gemma4_text": "Gemma 4 31B, 26B-A4B",
    "glm4": "GLM-4-0414",
    "glm4_moe_lite": "GLM-4.7-Flash",
    "glm_moe_dsa": "GLM-5, GLM-5.2",
    "gpt_neox": "GPT-NeoX-20B, Pythia",
    "gpt_oss": "gpt-oss, in an unquantized copy",
    "granite": "Granite 3",
    "granitemoehybrid": "Granite 4",
    "helium": "Helium 1",
    "inkling_text": "Inkling (text)",
    "jamba": "Jamba",
    "kimi_linear": "Kimi Linear",
    "lfm2": "LFM2",
    "lfm2_moe": "LFM2-8B-A1B",
    "lfm3": "LFM3",
    "llama": "Llama 1 to 3.3, TinyLlama, Vicuna, SmolLM 2",
    "mamba": "Mamba",
    "mamba2": "Mamba 2, Codestral Mamba",
    "minicpm3": "MiniCPM3-4B",
    "minimax": "MiniMax-Text-01, MiniMax-M1",
    "ministral": "Ministral 8B",
    "mistral": "Mistral 7B, Mistral Nemo",
    "mixtral": "Mixtral 8x7B, 8x22B",
    "nanochat": "nanochat",
    "nemotron": "Nemotron-4, Minitron",
    "nemotron_h": "Nemotron-H, Nemotron 3 Nano",
    "olmo": "OLMo",
    "olmo2": "OLMo 2",
    "olmo_hybrid": "Olmo Hybrid",
    "phi": "Phi-1, Phi-1.5, Phi-2",
    "phi3": "Phi-3, Phi-3.5 mini, Phi-4",
    "qwen2": "Qwen 1.5, Qwen 2, Qwen 2.5, QwQ",
    "qwen2_moe": "Qwen1.5-MoE, Qwen2-57B-A14B",
    "qwen3": "Qwen 3, dense",
    "qwen3_5_moe_text": "Qwen 3.5, mixtures of experts (text)",
    "qwen3_5_text": "Qwen 3.5, dense (text)",
    "qwen3_moe": "Qwen3-30B-A3B, 235B-A22B",
    "qwen3_next": "Qwen3-Next-80B-A3B",
    "recurrent_gemma": "RecurrentGemma",
    "seed_oss": "Seed-OSS",
    "smollm3": "SmolLM 3",
    "stablelm": "StableLM 2",
    "starcoder2": "StarCoder 2",
    "xlstm": "xLSTM",
    "youtu": "Youtu-LLM",
}


def with_table(page: str) -> str:
    """Return the page with its table up to date."""
    before, begin, rest = page.partition(BEGIN)
    _, end, after = rest.partition(END)
    assert begin, f"the page has no {BEGIN!r}"
    assert end, f"the page has no {END!r}"
    return before + begin + table() + end + after


def table() -> str:
    """Return one row per variant, with the model types in alphabetical order."""
    rows = sorted((each.model_type, name) for name, each in (ARCHITECTURES | RECURRENT).items())
    names = (
        "`model_type`",
        "class",
        "published models",
        "variant",
        "served",
        "sessions in one forward",
        "branches",
    )
    head = f"| {' | '.join(names)} |\n{'|---' * len(names)}|\n"
    return head + "".join(_row(model_type, name) for model_type, name in rows)


def _row(model_type: str, name: str) -> str:
    variant = name.removeprefix(model_type).removeprefix("_text").strip("_")
    why = UNSUPPORTED.get(name) or UNPACKED.get(name) or RECURRENT_ALONE.get(name)
    served = "no: " + why if name in UNSUPPORTED else "yes"
    together = "" if name in UNSUPPORTED else f"one after another: {why}" if why else "many"
    branches = "" if name in UNSUPPORTED else "no" if why or name in RECURRENT else "yes"
    kind = MODEL_FOR_CAUSAL_LM_MAPPING_NAMES[model_type]
    cells = (
        f"`{model_type}`",
        f"`{kind}`",
        FAMILIES[model_type],
        variant,
        served,
        together,
        branches,
    )
    return f"| {' | '.join(cells)} |\n"


def count(page: str) -> int:
    """Return the number of model types in the table of a page that are served."""
    return len(set(re.findall(r"^\| `(\w+)` \|.*\| yes \|", page, re.MULTILINE)))
