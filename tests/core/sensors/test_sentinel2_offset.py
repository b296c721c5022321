from __future__ import annotations

import numpy as np
import pytest

from core.sensors import RasterDescription, match_bands
from core.sensors.sentinel2_offset import sentinel2_offset

NAMES = ("B2", "B3", "B4", "B8", "B8A", "B11")
LONG_NAME = "S2B_MSIL2A_20230724T101031_N{}_R022_T33UUB_20230724T121031"


def description(
    reflectance: float | None,
    offset: float = 0.0,
    path: str = "scene_l2a.tif",
    tags: dict[str, str] | None = None,
    band_tags: dict[str, str] | None = None,
) -> RasterDescription:
    sample = None
    if reflectance is not None:
        generator = np.random.default_rng(0)
        sample = (reflectance * 1e4 * generator.uniform(1, 8, (len(NAMES), 500)) + offset).astype(np.float32)
    every = tuple(band_tags or {} for _ in NAMES)
    return RasterDescription(path, len(NAMES), "uint16", NAMES, every, tags or {}, sample=sample)


def decide(entry: RasterDescription, setting: str = "auto"):  # type: ignore[no-untyped-def]
    return sentinel2_offset(entry, match_bands(entry, "sentinel2_l2a"), setting)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("tags", "applies"),
    [
        ({"PROCESSING_BASELINE": "04.00"}, True),
        ({"PROCESSING_BASELINE": "05.10"}, True),
        ({"PROCESSING_BASELINE": "02.14"}, False),
        ({"s2:processing_baseline": "05.09"}, True),
        ({"BOA_ADD_OFFSET": "-1000"}, True),
        ({"BOA_ADD_OFFSET_B2": "-1000"}, True),
        ({"RADIO_ADD_OFFSET": "0"}, False),
        ({"PROCESSING_BASELINE": "04.00", "earthsearch:boa_offset_applied": "True"}, False),
        ({"PRODUCT_URI": LONG_NAME.format("0509") + ".SAFE"}, True),
        ({"PRODUCT_URI": LONG_NAME.format("0301") + ".SAFE"}, False),
    ],
)
def test_metadata_decide(tags: dict[str, str], applies: bool) -> None:
    decision = decide(description(None, tags=tags))
    assert (decision.applies, decision.how, decision.warning) == (applies, "metadata", None)


def test_band_metadata_and_paths_decide() -> None:
    assert decide(description(None, band_tags={"BOA_ADD_OFFSET": "-1000"})).applies
    assert decide(description(None, path=f"/data/{LONG_NAME.format('0400')}.SAFE/x/stack.tif")).how == "metadata"
    assert decide(description(0.01, path=f"/data/{LONG_NAME.format('9999')}.tif")).how == "guessed"


def test_the_user_overrules_everything() -> None:
    entry = description(0.01, tags={"PROCESSING_BASELINE": "04.00"})
    for setting, applies in (("yes", True), ("no", False)):
        decision = decide(entry, setting)
        assert (decision.applies, decision.how, decision.warning) == (applies, "set", None)


@pytest.mark.parametrize("offset", [0.0, 1000.0])
def test_dark_pixels_give_it_away(offset: float) -> None:
    decision = decide(description(0.01, offset))
    assert (decision.applies, decision.how) == (offset > 0, "guessed")
    assert decision.warning is not None
    assert "sentinel2_offset" in decision.warning


def test_without_dark_pixels_nothing_is_taken_off() -> None:
    decision = decide(description(0.4))
    assert not decision.applies
    assert "open" in decision.detail


def test_without_values_nothing_is_taken_off() -> None:
    decision = decide(description(None))
    assert not decision.applies
    assert decision.warning is not None


def test_metadata_against_the_values_are_followed_with_a_warning() -> None:
    decision = decide(description(0.01, 0.0, tags={"PROCESSING_BASELINE": "05.09"}))
    assert decision.applies
    assert decision.warning is not None
    assert "taken off already" in decision.warning


def test_haze_over_dark_ground_is_not_taken_for_the_offset() -> None:
    """From above, blue is never dark: the atmosphere alone reaches 1000 there."""
    names = ("B1", "B2", "B3")
    haze = np.array([[1300.0], [1050.0], [980.0]]) * np.ones((3, 50))
    entry = RasterDescription("x_l1c.tif", 3, "uint16", names, sample=haze)
    assert not sentinel2_offset(entry, match_bands(entry, "sentinel2_l1c")).applies
    raised = RasterDescription("x_l1c.tif", 3, "uint16", names, sample=haze + 1000)
    assert sentinel2_offset(raised, match_bands(raised, "sentinel2_l1c")).applies
