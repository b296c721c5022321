"""The values that choices offer: part of the public interface, and the same as in ``core`` (a test compares them).

Plain data without any import: QGIS does not load ``core``.
"""

AUTO = "auto"

SENSORS = {
    "OPTICAL": (
        "sentinel2_l1c",
        "sentinel2_l2a",
        "landsat_tm",
        "landsat_oli",
        "spot6_7",
        "aerial_rgb",
        "aerial_rgbnir",
        "enmap",
        "hyperspectral",
        "display_8bit",
        "generic",
    ),
    "SAR": ("sentinel1", "display_8bit", "generic"),
    "ELEVATION": ("dem", "dsm", "height_above_ground", "generic"),
    "OTHER": ("display_8bit", "generic"),
}
"""For each role the sensors of core's registry that its rasters may come from."""

ARCHITECTURES = ("unet_intermediate", "unet_early")
DEVICES = (AUTO, "cpu", "cuda", "mps")
SENTINEL2_OFFSETS = (AUTO, "yes", "no")
FORMATS = ("gtiff", "cog")
