"""Every model type that transformers knows is served right, or refused, as the table says."""

import re

import pytest
from docs.supported import row, rows_of
from docs.written import ARCHITECTURES

from helpers.all_types import CASES
from helpers.sweep import serve

# Models that no single computer of a volunteer holds: what a swarm is for.
LARGE = (
    *("deepseek_v3", "deepseek_v32", "glm4_moe", "glm_moe_dsa", "qwen3_moe", "qwen3_next"),
    *("qwen3_5_moe_text", "kimi_linear", "minimax_m2", "gpt_oss", "llama4_text", "nemotron_h"),
    *("mimo_v2_flash", "gemma4_text"),
)
HOW = "if that is as it should be, run `python -m tests.docs`"


@pytest.fixture(scope="module")
def table() -> dict[str, str]:
    return rows_of(ARCHITECTURES.read_text("utf-8"))


def test_the_table_has_these_rows(table: dict[str, str]) -> None:
    assert list(table) == list(CASES), HOW


@pytest.mark.parametrize("name", LARGE)
def test_large_models_are_served_whatever_the_table_says(name: str, table: dict[str, str]) -> None:
    assert re.search(r"\| yes \| many \| (yes|no) \|$", table[name])


def test_latent_attention_is_packed_and_branches(table: dict[str, str]) -> None:
    for name in ("deepseek_v3", "deepseek_v32", "glm4_moe_lite", "glm_moe_dsa"):
        assert table[name].endswith("| yes | many | yes |\n")


@pytest.mark.parametrize("name", CASES)
def test_a_model_type_is_served_as_the_table_says(name: str, table: dict[str, str]) -> None:
    case = CASES[name]
    assert row(case, serve(case)) == table.get(name), HOW
