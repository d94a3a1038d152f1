from __future__ import annotations

import math

from des4.report.plots.wording import in_lines, percent, share_of_pixels, short_name, short_number


def test_percent_writes_a_dash_for_what_does_not_occur() -> None:
    assert [percent(x) for x in (0.1234, None, math.nan)] == ["12.3", "–", "–"]


def test_numbers_and_names_take_little_room() -> None:
    assert [short_number(x) for x in (9_999, 12_300, 4_560_000)] == ["9999", "12k", "4.6M"]
    assert [share_of_pixels(x) for x in (0.0, 0.0004, 0.25)] == ["0.0 %", "< 0.1 %", "25.0 %"]
    assert short_name("traffic light, far") == "traffic light…"


def test_a_label_breaks_at_spaces_and_within_settings() -> None:
    assert in_lines("des4 with sampling=multi_entropy", 16) == "des4 with\nsampling=multi_\nentropy"
    assert in_lines("unbreakably", 4) == "unbr\neaka\nbly"
