"""What a model card says of the network itself."""

from pathlib import Path

import pytest

from mobilebert_jax.export import card
from mobilebert_jax.export.subjects import Subject
from tests.interop import exchanged


@pytest.mark.parametrize(
    ("name", "tag", "groups"),
    [
        ("released", "mobilebert", ""),
        ("bert", "bert", ""),
        (
            "squeezebert",
            "squeezebert",
            "| groups of q, k, v, post_attention, intermediate, output | 4, 2, 4, 1, 4, 2 |",
        ),
    ],
)
def test_the_family_is_a_tag_and_groups_are_listed_where_there_are_any(
    name: str, tag: str, groups: str
) -> None:
    model = exchanged.make(exchanged.CONFIGS[name], "bare")
    written = card.write(
        Subject("network", Path("network"), model, None, None, 8, None), [], [], [], ""
    )
    assert f"tags:\n- {tag}\n" in written
    assert groups in written
    assert ("groups of" in written) == bool(groups)
