from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.errors import SensorError
from core.sensors import SENSORS, RasterDescription, match_bands, require_bands

S2_NAMES = ("B1", "B2", "B3", "B4", "B5", "B6", "B7", "B8", "B8A", "B9", "B11", "B12")


def raster(
    *names: str | None,
    path: str = "scene.tif",
    dtype: str = "uint16",
    resolution_m: float | None = None,
    colors: tuple[str, ...] = (),
    sample: np.ndarray | None = None,
) -> RasterDescription:
    return RasterDescription(
        path,
        len(names),
        dtype,
        names,
        color_interpretation=colors,
        resolution_m=resolution_m,
        sample=sample,
    )


def with_wavelengths(*centers: float, unit: str = "Nanometers", **changes: object) -> RasterDescription:
    tags = tuple({"wavelength": str(center), "wavelength_units": unit} for center in centers)
    return RasterDescription("scene", len(centers), "int16", band_tags=tags, **changes)  # type: ignore[arg-type]


@given(st.permutations(S2_NAMES))
def test_the_order_in_the_file_does_not_matter(names: list[str]) -> None:
    match = match_bands(raster(*names))
    assert match.sensor.name == "sentinel2_l2a"
    assert match.names == S2_NAMES
    assert [names[index - 1] for index in match.indexes] == list(S2_NAMES)


@given(st.sets(st.sampled_from(S2_NAMES), min_size=2).filter(lambda names: "B8A" in names), st.sampled_from(["l1c", "l2a"]))
def test_a_subset_of_named_bands_is_enough(names: set[str], level: str) -> None:
    match = match_bands(raster(*sorted(names)), f"sentinel2_{level}")
    assert set(match.names) == names
    assert match.unused == ()


def test_the_cirrus_band_tells_l1c() -> None:
    assert match_bands(raster(*S2_NAMES, "B10")).sensor.name == "sentinel2_l1c"


def test_the_level_is_read_from_the_product_s_name() -> None:
    path = "/data/S2A_MSIL1C_20200724T101031_N0209_R022_T33UUB_20200724T121031.SAFE/GRANULE/x/stack.tif"
    match = match_bands(raster("B2", "B3", "B4", "B8A", path=path))
    assert match.sensor.name == "sentinel2_l1c"
    assert not match.needs_check


def test_without_any_hint_the_level_is_a_reported_default() -> None:
    match = match_bands(raster("B2", "B3", "B4", "B8A"))
    assert match.sensor.name == "sentinel2_l2a"
    assert match.needs_check
    assert any("L2A" in note for note in match.notes)


def test_names_of_several_sensors_are_ambiguous() -> None:
    with pytest.raises(SensorError) as caught:
        match_bands(raster("B1", "B2", "B3", "B4", "B5", "B6", "B7"))
    for name in ("sentinel2_l2a", "landsat_tm", "landsat_oli"):
        assert name in caught.value.message
    assert "sensor parameter" in caught.value.hint


def test_pixel_size_and_path_settle_names_of_several_sensors() -> None:
    names = ("B1", "B2", "B3", "B4", "B5", "B6", "B7")
    assert match_bands(raster(*names, resolution_m=10.0)).sensor.name == "sentinel2_l2a"
    path = "LC09_L2SP_193024_20220724.tif"
    assert match_bands(raster(*names, resolution_m=30.0, path=path)).sensor.name == "landsat_oli"
    with pytest.raises(SensorError, match="landsat_tm, landsat_oli"):
        match_bands(raster(*names, resolution_m=30.0))


def test_wavelengths_exclude_what_the_names_would_allow() -> None:
    names = ("B2", "B3", "B4", "B5")
    centers = (482.0, 561.4, 654.6, 864.7)
    tags = tuple({"wavelength": str(center), "wavelength_units": "nm"} for center in centers)
    description = RasterDescription("scene.tif", 4, "uint16", names, tags)
    assert match_bands(description).sensor.name == "landsat_oli"


def test_colour_names_take_the_sensor_of_the_pixel_size() -> None:
    match = match_bands(raster("Blue", "Green", "Red", "NIR", resolution_m=10.0))
    assert match.sensor.name == "sentinel2_l2a"
    assert match.bands == (("B2", 1), ("B3", 2), ("B4", 3), ("B8", 4))
    aerial = match_bands(raster("Red", "Green", "Blue", "NIR", resolution_m=0.2, dtype="uint8"))
    assert aerial.sensor.name == "aerial_rgbnir"
    with pytest.raises(SensorError, match="several"):
        match_bands(raster("Red", "Green", "Blue", "NIR"))


def test_extra_bands_are_reported_as_not_used() -> None:
    match = match_bands(raster(*S2_NAMES, "SCL", "NDVI"))
    assert match.unused == (13, 14)
    assert any("13 (SCL), 14 (NDVI)" in note for note in match.notes)


def test_the_same_band_twice_is_refused() -> None:
    with pytest.raises(SensorError, match=r"bands 1, 3 are all VV"):
        match_bands(raster("VV_20200101", "VH", "VV_20200113", dtype="float32"), role="sar")


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (("Sigma0_VV", "Sigma0_VH"), (("VV", 1), ("VH", 2))),
        (("VH_db", "VV_db"), (("VV", 2), ("VH", 1))),
        (("Gamma0_VH_ASC",), (("VH", 1),)),
    ],
)
def test_radar_names(names: tuple[str, ...], expected: tuple[tuple[str, int], ...]) -> None:
    match = match_bands(raster(*names, dtype="float32"), role="sar")
    assert match.sensor.name == "sentinel1"
    assert match.bands == expected


def test_radar_without_names() -> None:
    pair = match_bands(raster(None, None, dtype="float32"), role="sar")
    assert (pair.names, pair.by, pair.needs_check) == (("VV", "VH"), "count", True)
    with pytest.raises(SensorError, match="polarisation"):
        match_bands(raster(None, dtype="float32"), role="sar")


def test_other_polarisations_are_generic_radar() -> None:
    match = match_bands(raster("HH", "HV", dtype="float32"), role="sar")
    assert (match.sensor.name, match.sensor.kind, match.needs_check) == ("generic", "sar", True)
    assert [band.polarization for band in match.matched_bands] == ["HH", "HV"]


def test_wavelengths_in_micrometres_match_thematic_mapper() -> None:
    match = match_bands(with_wavelengths(0.4825, 0.565, 0.66, 0.825, 1.65, 2.22, unit="Micrometers"))
    assert (match.sensor.name, match.by) == ("landsat_tm", "wavelength")
    assert match.names == ("B1", "B2", "B3", "B4", "B5", "B7")


@pytest.mark.parametrize("name", ["sentinel2_l1c", "landsat_tm", "landsat_oli", "spot6_7", "enmap"])
def test_a_sensor_s_own_wavelengths_lead_back_to_it(name: str) -> None:
    sensor = SENSORS[name]
    bands = [band for band in sensor.bands if band.kind == "optical"]
    centers = tuple(band.center_nm or 0.0 for band in bands)
    match = match_bands(with_wavelengths(*centers, resolution_m=bands[1].gsd_m))
    assert match.sensor.name == name
    assert match.names == tuple(band.name for band in bands)


def test_wavelengths_of_two_alike_sensors_are_ambiguous() -> None:
    with pytest.raises(SensorError, match="landsat_tm, spot6_7"):
        match_bands(with_wavelengths(485.0, 560.0, 660.0, 828.0))


@given(st.lists(st.floats(-0.3, 0.3), min_size=224, max_size=224))
def test_enmap_survives_a_new_spectral_calibration(shifts: list[float]) -> None:
    centers = [(band.center_nm or 0.0) + shift for band, shift in zip(SENSORS["enmap"].bands, shifts, strict=True)]
    match = match_bands(with_wavelengths(*centers))
    assert match.sensor.name == "enmap"
    assert match.indexes == tuple(range(1, 225))


def test_unknown_wavelengths_make_a_spectrometer() -> None:
    centers = tuple(400.0 + 5 * step for step in range(60))
    match = match_bands(with_wavelengths(*centers, resolution_m=1.0))
    assert (match.sensor.name, match.by, len(match.bands)) == ("hyperspectral", "wavelength", 60)
    first = match.matched_bands[0]
    assert (first.name, first.center_nm, first.gsd_m) == ("400.0 nm", 400.0, 1.0)
    assert first.mean is not None


def test_bands_flagged_as_bad_are_dropped_and_named() -> None:
    tags = tuple({"wavelength": str(400 + 10 * step), "bbl": "0" if step in (3, 7) else "1"} for step in range(30))
    match = match_bands(RasterDescription("scene", 30, "int16", band_tags=tags))
    assert match.unused == (4, 8)
    assert any("bad" in note and "4, 8" in note for note in match.notes)


def test_one_wavelength_twice_gets_two_names() -> None:
    match = match_bands(with_wavelengths(*(400.0 + step // 2 for step in range(40))), "hyperspectral")
    assert len(set(match.names)) == 40


def test_spectrometer_without_wavelengths_is_refused() -> None:
    with pytest.raises(SensorError, match="no wavelengths"):
        match_bands(raster(*[None] * 50), "hyperspectral")


def test_four_nameless_bands_list_the_candidates() -> None:
    for resolution in (None, 1.5, 10.0):
        with pytest.raises(SensorError) as caught:
            match_bands(raster(None, None, None, None, resolution_m=resolution))
        assert "aerial_rgbnir" in caught.value.message
        assert "spot6_7" in caught.value.message


def test_plain_numbering_is_no_name() -> None:
    with pytest.raises(SensorError, match="aerial_rgbnir"):
        match_bands(raster("Band 1", "Band 2", "Band 3", "Band 4"))


def test_an_explicit_sensor_with_too_few_nameless_bands_names_what_is_missing() -> None:
    with pytest.raises(SensorError) as caught:
        match_bands(raster(*[None] * 10), "sentinel2_l2a")
    assert "10 bands" in caught.value.message
    assert "B11, B12" in caught.value.message


def test_an_explicit_sensor_is_matched_by_count() -> None:
    match = match_bands(raster(*[None] * 12), "sentinel2_l2a")
    assert (match.names, match.by) == (S2_NAMES, "count")
    spot = match_bands(raster(*[None] * 4), "spot6_7")
    assert dict(spot.bands) == {"B2": 1, "B1": 2, "B0": 3, "B3": 4}


def test_a_sensor_of_another_role_is_refused() -> None:
    with pytest.raises(SensorError, match="sentinel2_l2a"):
        match_bands(raster("VV", "VH"), "sentinel2_l2a", "sar")


def test_an_alpha_band_is_left_out_and_a_near_infrared_band_called_alpha_is_not() -> None:
    colors = ("red", "green", "blue", "alpha")
    grey = np.linspace(10, 200, 100, dtype=np.float32)
    mask = np.where(np.arange(100) < 20, 0, 255).astype(np.float32)
    nothing = (None,) * 4
    masked = raster(*nothing, dtype="uint8", resolution_m=0.2, colors=colors, sample=np.stack([grey, grey, grey, mask]))
    assert match_bands(masked).sensor.name == "aerial_rgb"
    assert match_bands(masked).unused == (4,)
    infrared = raster(*nothing, dtype="uint8", resolution_m=0.2, colors=colors, sample=np.stack([grey] * 4))
    assert match_bands(infrared).names == ("red", "green", "blue", "nir")


def test_eight_bit_imagery_without_names_is_for_display() -> None:
    match = match_bands(raster(None, None, dtype="uint8", resolution_m=80.0))
    assert (match.sensor.name, match.names) == ("display_8bit", ("band 1", "band 2"))
    radar = match_bands(raster("VH", dtype="uint8"), role="sar")
    assert (radar.sensor.name, radar.sensor.role, radar.names) == ("display_8bit", "sar", ("VH",))


def test_unknown_names_are_generic_and_reported() -> None:
    match = match_bands(raster("NDVI", "slope", "NDVI", dtype="float32"))
    assert match.sensor.name == "generic"
    assert match.names == ("NDVI", "slope", "NDVI (2)")
    assert match.needs_check


@pytest.mark.parametrize(
    ("path", "expected", "doubtful"),
    [
        ("site/hag.tif", "height_above_ground", False),
        ("chm/MLBS_1.tif", "height_above_ground", False),
        ("elevation/lidar_dsm_2m.tif", "dsm", False),
        ("dsm/tile_dtm.tif", "dem", False),
        ("C:\\data\\ndsm\\tile7.tif", "height_above_ground", False),
        ("/home/chmiel/scene.tif", "dem", True),
    ],
)
def test_elevation_by_path(path: str, expected: str, doubtful: bool) -> None:
    match = match_bands(raster(None, dtype="float32", path=path), role="elevation")
    assert (match.sensor.name, match.needs_check) == (expected, doubtful)


def test_elevation_of_several_nameless_bands_is_refused() -> None:
    with pytest.raises(SensorError, match="2 bands"):
        match_bands(raster(None, None, dtype="float32"), role="elevation")
    match = match_bands(raster("slope", "elevation", dtype="float32"), role="elevation")
    assert match.bands == (("elevation", 2),)


def test_other_rasters_are_generic() -> None:
    match = match_bands(raster("B2", "B3", dtype="float32"), role="other")
    assert (match.sensor.name, match.names) == ("generic", ("B2", "B3"))


def test_missing_bands_are_named() -> None:
    match = match_bands(raster("B2", "B3", "B4", "B8"), "sentinel2_l2a")
    require_bands(match, ("B8", "B2"))
    with pytest.raises(SensorError, match=r"B11, B12"):
        require_bands(match, ("B2", "B11", "B12"))


def test_a_description_that_contradicts_itself_is_a_defect() -> None:
    with pytest.raises(ValueError, match="2 bands"):
        RasterDescription("scene.tif", 2, "uint16", ("B1",))
