"""The values that choices offer: part of the public interface, and the same as in ``core`` (a test compares them).

Plain data without any import: QGIS does not load ``core``.
"""

AUTO = "auto"

_OPTICAL = (
    "sentinel2_l1c",
    "sentinel2_l2a",
    "landsat_tm",
    "landsat_oli",
    "spot6_7",
    "aerial_rgb",
    "aerial_rgbnir",
    "display_8bit",
    "enmap",
    "hyperspectral",
)

SENSORS = {
    "OPTICAL": _OPTICAL + ("generic",),
    "SAR": ("sentinel1", "display_8bit", "generic"),
    "ELEVATION": ("display_8bit", "dem", "dsm", "height_above_ground", "generic"),
    "OTHER": ("sentinel1",) + _OPTICAL + ("dem", "dsm", "height_above_ground", "generic"),
}
"""For each role the sensors of core's registry that its rasters may come from."""

ARCHITECTURES = ("unet_intermediate", "unet_early")
DEVICES = (AUTO, "cpu", "cuda", "mps")
SENTINEL2_OFFSETS = (AUTO, "yes", "no")
FORMATS = ("gtiff", "cog")
