"""Variants: what they change, what they must share, and what is refused."""

import dataclasses
import runpy
from pathlib import Path
from typing import Any

import pytest

from mobilebert_jax.ablations.variants import check, ladder_of, orders_of, variants_of
from mobilebert_jax.config.config_dict import from_config_dict
from mobilebert_jax.config.schema import Ablations, Config, InputError, flatten
from mobilebert_jax.config.stage_settings import student_steps
from mobilebert_jax.pipeline import curriculum
from tests import tiny
from tests.pipeline.test_curriculum import setting

ROOT = Path(__file__).resolve().parents[2]
EXPERIMENT = runpy.run_path(str(ROOT / "experiments/ablations.py"))
SETTINGS = ("transfer.", "distill.", "student.")


def published(scale: str = "demo") -> Config:
    return from_config_dict(EXPERIMENT["get_config"](scale))


def with_ablations(**settings: Any) -> Config:
    base = published()
    ablations = Ablations(variants=("a distill", "b control", "c baseline"))
    return dataclasses.replace(base, ablations=dataclasses.replace(ablations, **settings))


@pytest.mark.parametrize("scale", EXPERIMENT["SCALES"])
def test_a_variant_differs_in_nothing_but_what_it_names(scale: str) -> None:
    config = published(scale)
    check(config)
    base = flatten(config)
    for variant in variants_of(config):
        found = flatten(variant.config)
        changed = {key: found[key] for key in found if found[key] != base[key]}
        assert changed.pop("stages") == ["prepare", "teacher", variant.stage]
        assert changed == variant.settings
        assert student_steps(variant.config) == student_steps(config)


def test_every_variant_trains_as_long_on_the_same_stream() -> None:
    base = setting().config
    config = dataclasses.replace(
        base,
        teacher=dataclasses.replace(base.teacher, model=tiny.TEACHER.config),
        tokenizer=dataclasses.replace(base.tokenizer, vocab_size=tiny.VOCABULARY),
        transfer=dataclasses.replace(base.transfer, steps=3 * tiny.LAYERS),
        ablations=published().ablations,
    )
    check(config)
    batches = []
    for variant in variants_of(config):
        chosen = setting(variant.config)
        stages = {
            "baseline": lambda s: [curriculum.baseline_training(s)],
            "control": lambda s: [curriculum.control_training(s, {})],
            "distill": lambda s: [
                *([curriculum.transfer_training(s, {})] if _has_transfer(s.config) else []),
                curriculum.distill_training(s, {}, None),
            ],
        }[variant.stage](chosen)
        read = [
            stage.feed[stage.feed_offset + step]["input_ids"]
            for stage in stages
            for step in range(stage.steps)
        ]
        batches.append(read)
    first = batches[0]
    assert len(first) == student_steps(config)
    for read in batches[1:]:
        assert len(read) == len(first)
        assert all((own == other).all() for own, other in zip(read, first, strict=True))


def _has_transfer(config: Config) -> bool:
    return config.transfer.strategy in ("progressive", "joint")


def test_the_ladder_adds_one_part_at_a_time() -> None:
    config = published()
    by_name = {variant.name: variant for variant in variants_of(config)}
    ladder = [by_name[name] for name in ladder_of(config)]
    assert [(v.stage, v.settings) for v in ladder] == [
        ("control", {"distill.alpha": 1.0}),
        ("control", {}),
        ("distill", {"transfer.attention_weight": 0.0}),
        ("distill", {}),
    ]


def test_only_some_variants_leave_the_claims_about_them() -> None:
    config = with_ablations(
        only=("a", "b"), orders=("a < b", "b < c"), ladder=("a", "b", "c"), largest_gain="b"
    )
    assert [variant.name for variant in variants_of(config)] == ["a", "b"]
    assert orders_of(config) == [("a", "b")]
    assert ladder_of(config) == ()


def test_a_transfer_that_progressive_would_cut_short_is_refused() -> None:
    base = with_ablations()
    config = dataclasses.replace(base, transfer=dataclasses.replace(base.transfer, steps=397))
    with pytest.raises(InputError, match=r"transfer.steps=397 is no multiple .* nearest is 396"):
        check(config)


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ({"variants": ("a",)}, "must be one of distill, control, baseline"),
        ({"variants": ("a distil",)}, "the nearest is 'distill'"),
        ({"variants": ("a/b distill",)}, "'a/b' is no name"),
        ({"variants": ("a distill", "a baseline")}, "names 'a' twice"),
        ({"variants": ("a distill transfer.stratgy=joint",)}, "nearest is transfer.strategy"),
        ({"variants": ("a distill distill.steps=7",)}, "cannot change distill.steps"),
        ({"variants": ("a distill seed=1",)}, "cannot change seed"),
        ({"variants": ("a distill transfer.attention_weight=much",)}, "must be of type float"),
        ({"variants": ("a distill transfer.copy_embeddings=no",)}, "must be of type bool"),
        ({"variants": ("a distill transfer.strategy=joined",)}, "the nearest is 'joint'"),
        ({"variants": ("a distill distill.alpha=2",)}, "must be from 0 to 1"),
        ({"only": ("d",)}, "names 'd', which is no variant"),
        ({"orders": ("a > b",)}, "is not of the form 'BETTER < WORSE'"),
        ({"orders": ("a < d",)}, "names 'd', which is no variant"),
        ({"ladder": ("a", "d")}, "names 'd', which is no variant"),
        ({"ladder": ("a", "b"), "largest_gain": "a"}, "must be one of ablations.ladder after"),
        ({"seeds": ()}, "ablations.seeds is empty"),
        ({"seeds": (0, 0)}, "names a seed twice"),
    ],
)
def test_mistakes_are_named_with_the_nearest_choice(settings: dict[str, Any], said: str) -> None:
    with pytest.raises(InputError) as error:
        check(with_ablations(**settings))
    assert said in str(error.value)
