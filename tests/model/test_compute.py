"""What a user may ask about where a client computes."""

import pytest

from swarm.errors import ConfigError
from swarm.model.compute import ComputeOptions


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("device", "gpu"),
        ("device", "cuda:"),
        ("draft_device", "cuda:-1"),
        ("draft_device", "cpu\n"),
        ("draft_dtype", "int4"),
    ],
)
def test_a_malformed_device_or_dtype_is_refused_by_its_field(field: str, value: str) -> None:
    with pytest.raises(ConfigError) as caught:
        ComputeOptions(**{field: value})
    assert caught.value.field == field
    assert repr(value) in str(caught.value)


def test_a_draft_goes_where_the_head_goes_unless_it_is_asked_elsewhere() -> None:
    assert ComputeOptions().drafts_on == "auto"
    assert ComputeOptions(device="cuda:1").drafts_on == "cuda:1"
    assert ComputeOptions(device="cuda", draft_device="cpu").drafts_on == "cpu"
