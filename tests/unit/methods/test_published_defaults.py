"""What a method is trained with where a user says nothing: the published numbers, those of VOC where they differ."""

from __future__ import annotations

from typing import Any

import pytest

from des4.methods import METHODS

PUBLISHED: dict[str, dict[str, Any]] = {
    "mean_teacher": {"consistency_weight": 100, "momentum": 0.99},
    "cutmixseg": {"consistency_weight": 1, "threshold": 0.97, "momentum": 0.99},
    "fixmatch": {"threshold": 0.95},
    "unimatch": {"threshold": 0.95, "strong_weight": 0.25, "feature_weight": 0.5, "drop": 0.5},
    "unimatch_v2": {"threshold": 0.95, "strong_weight": 0.5, "momentum": 0.996, "whole": 0.5},
    "augseg": {"threshold": 0.95, "momentum": 0.999, "unlabeled_weight": 1},
    "corrmatch": {
        "threshold": 0.85,
        "threshold_momentum": 0.999,
        "strong_weight": 0.25,
        "divergence_weight": 0.25,
        "feature_weight": 0.25,
        "correlation_weight": 0.25,
        "drop": 0.5,
        "regions": 128,
    },
    "prevmatch": {"threshold": 0.95, "previous_threshold": 0.9, "kept_states": 8, "asked_states": 3},
    "vat": {"consistency_weight": 0.1, "threshold": 0.97, "radius": 0.5},
    "advsemseg": {
        "adversarial_weight": 0.01,
        "unlabeled_adversarial_weight": 0.001,
        "semi_weight": 0.1,
        "threshold": 0.2,
    },
    "cct": {"consistency_weight": 30, "ramp": 0.1},
    "gct": {"correction_weight": 1, "consistency_weight": 100, "flaw_threshold": 0.6, "detector_lr": 1e-4},
    "pseudoseg": {"unlabeled_weight": 1, "sharpening": 0.5},
    "cps": {"unlabeled_weight": 1},
    "dars": {"ratios": (0.4, 0.5), "unlabeled_weight": 1, "pseudo_label_mirror": True},
    "ael": {"consistency_weight": 1, "threshold": 0.7, "confidence_momentum": 0.999, "paste": 0.5},
    "u2pl": {"unlabeled_weight": 1, "contrast_weight": 0.25, "unreliable": 0.2, "anchor_threshold": 0.3},
    "cmb": {"momentum": 0.995, "entropy_weight": 0.01, "contrast_weight": 0.1, "memory_threshold": 0.95, "queue": 256},
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_defaults_are_the_published_ones(name: str) -> None:
    config: Any = METHODS[name].Config()
    assert {key: getattr(config, key) for key in PUBLISHED[name]} == PUBLISHED[name]
