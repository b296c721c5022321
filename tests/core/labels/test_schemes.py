from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import LabelError
from core.labels.palette import colours_for
from core.labels.schemes import (
    available_schemes,
    class_text,
    find_class,
    load_scheme,
    match_classes,
    resolve_with_notes,
)
from core.labels.style import StyleEntry


def scheme_of(values, entries, class_scheme):
    return resolve_with_notes(values, entries, class_scheme).scheme


def test_the_shipped_schemes_are_there_and_valid() -> None:
    assert available_schemes() == ("corine_level1", "corine_level2", "esa_worldcover", "ipcc", "yearly_landcover_9")
    for name in available_schemes():
        assert load_scheme(name).name == name


def test_worldcover_has_its_official_codes_and_colours() -> None:
    scheme = load_scheme("esa_worldcover")
    assert scheme.codes == (10, 20, 30, 40, 50, 60, 70, 80, 90, 95, 100)
    assert dict(zip(scheme.names, scheme.colours, strict=True))["Permanent water bodies"] == "#0064c8"


def test_corine_and_the_others_have_the_classes_of_their_nomenclature() -> None:
    assert load_scheme("corine_level1").codes == (1, 2, 3, 4, 5)
    assert load_scheme("corine_level2").codes == (11, 12, 13, 14, 21, 22, 23, 24, 31, 32, 33, 41, 42, 51, 52)
    assert len(load_scheme("ipcc")) == 6
    assert load_scheme("yearly_landcover_9").names[:3] == ("Water", "Trees", "Flooded vegetation")


@pytest.mark.parametrize(
    ("text", "expected"),
    [("80", "Permanent water bodies"), ("permanent WATER  bodies", "Permanent water bodies"), ("81", None), ("x", None)],
)
def test_a_value_is_found_by_code_and_by_name_in_any_case(text: str, expected: str | None) -> None:
    scheme = load_scheme("esa_worldcover")
    index = find_class(scheme, text)
    assert (None if index is None else scheme.names[index]) == expected


def test_a_value_is_found_by_the_scheme_s_own_short_form() -> None:
    scheme = load_scheme("yearly_landcover_9")
    assert scheme.names[match_classes(scheme, ["Built"])["Built"]] == "Built area"


def test_numbers_mean_values_and_not_codes_where_the_values_are_numbers() -> None:
    scheme = scheme_of([0, 1, 2], (), "auto")
    assert scheme.codes == (1, 2, 3)
    assert [find_class(scheme, text) for text in ("0", "1", "2", "3")] == [0, 1, 2, None]


def test_unknown_values_are_named_with_the_classes_there_are() -> None:
    with pytest.raises(LabelError, match=r"'heath', 'moor'.*'1 Forest land'.*'6 Other land'"):
        scheme_of(["forest", "moor", "heath"], (), "ipcc")


def test_a_named_scheme_is_reduced_to_the_classes_that_occur() -> None:
    scheme = scheme_of([80, 10, 10, None], (), "esa_worldcover")
    assert scheme.codes == (10, 80)
    assert scheme.names == ("Tree cover", "Permanent water bodies")


def test_a_scheme_s_file_is_read_and_its_errors_name_the_entry(tmp_path: Path) -> None:
    path = tmp_path / "é scheme.json"
    classes = [{"code": 7, "name": "Alder", "colour": "#AABBCC"}, {"code": 9, "name": "Birch", "colour": "#001122"}]
    path.write_text(json.dumps({"name": "trees", "classes": classes}), encoding="utf-8")
    assert load_scheme(path).colours == ("#aabbcc", "#001122")
    assert scheme_of(["birch", 7.0], (), str(path)).codes == (7, 9)

    classes[1]["code"] = 300
    path.write_text(json.dumps({"name": "trees", "classes": classes}), encoding="utf-8")
    with pytest.raises(LabelError, match=r"classes\.1\.code"):
        load_scheme(path)
    classes[1]["code"] = 7
    path.write_text(json.dumps({"name": "trees", "classes": classes}), encoding="utf-8")
    with pytest.raises(LabelError, match="same code twice"):
        load_scheme(path)
    path.write_text("{", encoding="utf-8")
    with pytest.raises(LabelError, match="not JSON"):
        load_scheme(path)
    path.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(LabelError, match="not a text file"):
        load_scheme(path)


def test_an_unknown_scheme_lists_the_shipped_ones() -> None:
    with pytest.raises(LabelError, match=r"no class scheme 'worldcver'.*esa_worldcover"):
        load_scheme("worldcver")


def test_a_folder_is_no_scheme(tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="no class scheme"):
        load_scheme(tmp_path)


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, None),
        (float("nan"), None),
        ("  ", None),
        (" Wald ", "Wald"),
        (3.0, "3"),
        (np.int16(4), "4"),
        (np.float32(-2), "-2"),
        (True, "true"),
        (np.bool_(False), "false"),
    ],
)
def test_field_values_as_text(value: object, text: str | None) -> None:
    assert class_text(value) == text


@pytest.mark.parametrize("value", [1.5, float("inf"), [1, 2], np.datetime64("2020-01-01")])
def test_field_values_that_are_no_class(value: object) -> None:
    with pytest.raises(LabelError, match="classes are text or whole numbers"):
        class_text(value)


def test_classes_made_from_text_are_sorted_and_coloured_by_their_names() -> None:
    scheme = scheme_of(["water", "Forest", None, "acacia", "forest"], (), "auto")
    assert scheme.names == ("acacia", "Forest", "water")
    assert scheme.codes == (1, 2, 3)
    red, green, blue = (int(scheme.colours[2][at : at + 2], 16) for at in (1, 3, 5))
    assert blue > green > red
    red, green, blue = (int(scheme.colours[1][at : at + 2], 16) for at in (1, 3, 5))
    assert green > max(red, blue)


def test_spellings_that_differ_in_case_are_one_class_and_that_is_said() -> None:
    resolved = resolve_with_notes(["Forest", "forest", "water"], (), "auto")
    assert len(resolved.scheme) == 2
    assert "'Forest', 'forest'" in resolved.notes[0]
    assert find_class(resolved.scheme, "forest") == find_class(resolved.scheme, "Forest")


def test_numbers_keep_themselves_as_codes_in_numerical_order() -> None:
    scheme = scheme_of([10.0, 2.0, float("nan"), 200.0], (), "auto")
    assert scheme.codes == (2, 10, 200)
    assert scheme.names == ("2", "10", "200")


@pytest.mark.parametrize("values", [[0, 5, 7], [1, 300], [-1, 2]])
def test_numbers_that_are_no_codes_are_numbered(values: list[int]) -> None:
    scheme = scheme_of(values, (), "auto")
    assert scheme.codes == tuple(range(1, len(values) + 1))
    assert scheme.names == tuple(map(str, values))


def test_more_classes_than_a_map_can_have_are_refused() -> None:
    assert len(scheme_of([f"class {index}" for index in range(255)], (), "auto")) == 255
    with pytest.raises(LabelError, match="256 different values"):
        scheme_of([f"class {index}" for index in range(256)], (), "auto")


def test_an_empty_field_is_refused() -> None:
    with pytest.raises(LabelError, match="empty in all features"):
        scheme_of([None, "", float("nan")], (), "auto")


def test_the_style_gives_order_names_and_colours() -> None:
    entries = [StyleEntry("7", "Water", "#0000ff"), StyleEntry("3.0", "Wood", "#00ff00"), StyleEntry("5", "x", "#111111")]
    resolved = resolve_with_notes([3, 7, 9, 7], entries, "auto")
    assert resolved.scheme.codes == (7, 3, 9)
    assert resolved.scheme.names == ("Water", "Wood", "9")
    assert resolved.scheme.colours[:2] == ("#0000ff", "#00ff00")
    assert resolved.scheme.colours[2] not in ("#0000ff", "#00ff00")
    assert any("'x'" in note for note in resolved.notes)
    assert any("'9'" in note for note in resolved.notes)


def test_a_scheme_that_was_asked_for_wins_over_the_style() -> None:
    entries = [StyleEntry("10", "Wood", "#00ff00"), StyleEntry("80", "Lake", "#0000ff")]
    scheme = scheme_of([10, 80], entries, "esa_worldcover")
    assert scheme.names == ("Tree cover", "Permanent water bodies")
    with pytest.raises(LabelError, match="no class for the label values '7'"):
        scheme_of([7, 10], entries, "esa_worldcover")


def test_style_and_text_values_meet_whatever_the_case() -> None:
    entries = [StyleEntry("WOOD", "Wald", "#00ff00"), StyleEntry("water", "", "#0000ff")]
    scheme = scheme_of(["wood", "Water"], entries, "auto")
    assert scheme.names == ("Wald", "Water")
    assert scheme.codes == (1, 2)
    assert [entry.value for entry in scheme.classes] == ["wood", "Water"]


@given(st.lists(st.text(max_size=12), min_size=1, max_size=60))
def test_colours_are_distinct_and_always_the_same(names: list[str]) -> None:
    colours = colours_for(names)
    assert len(set(colours)) == len(names)
    assert colours == colours_for(names)


def test_colours_avoid_those_already_taken() -> None:
    assert set(colours_for(["a", "b", "water"], ["#0072b2", "#2b6cb0"])).isdisjoint({"#0072b2", "#2b6cb0"})


def test_the_class_scheme_s_module_stays_light() -> None:
    code = (
        "import sys, core.labels.scheme as s;"
        "heavy = {'numpy', 'pandas', 'geopandas', 'shapely', 'pyogrio', 'pydantic', 'torch'} & set(sys.modules);"
        "sys.exit(', '.join(sorted(heavy)) or 0)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
