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

LEADING_ROLES = ("OPTICAL", "SAR", "OTHER", "ELEVATION")
"""The order in which rasters are asked to be the main one, whose grid is the map's; the worker's own."""

SENSORS = {
    "OPTICAL": _OPTICAL + ("generic",),
    "SAR": ("sentinel1", "display_8bit", "generic"),
    "ELEVATION": ("display_8bit", "dem", "dsm", "height_above_ground", "generic"),
    "OTHER": ("sentinel1",) + _OPTICAL + ("dem", "dsm", "height_above_ground", "generic"),
}
"""For each role the sensors of core's registry that its rasters may come from."""

ARCHITECTURES = {
    "unet_intermediate": "The default: a dozen polygons a class, any sensors, no model to start from.",
    "unet_early": "The cheapest U-Net: one sensor, or several that see alike.",
    "unet_late": "Sensors that are often missing, and that each can tell the classes alone.",
    "unet_asymmetric_attention": "A good main sensor beside noisy ones that should not drown it.",
    "unet_cross_attention": "Many sensors and few weights: one encoder for all of them.",
    "unet_cross_modality": "Sensors that agree on shapes rather than on single pixels.",
    "unet_joint_tokens": "Sensors that matter alike and should meet at every level; takes the most memory of the U-Nets.",
    "unet_any_sensor": "A model that will see other optical sensors than those it was trained on.",
    "resnet_asymmetric_attention": "With pre-training: an optical image that leads, beside heights or radar.",
    "resnet_intermediate": "With pre-training, or the weights of a public ResNet.",
    "resunet_early": "With pre-training: a residual U-Net for one sensor, or several that see alike.",
    "resunet_intermediate": "With pre-training: radar beside optical images, at a low cost for a large map.",
    "resunet_late": "With pre-training: radar alone where there is cloud, at a low cost for a large map.",
    "vit_cross_scale": "With pre-training on many scenes: a transformer in which sensors read each other.",
    "vit_joint_tokens": "With pre-training on many scenes, or the weights of a public vision transformer.",
}
"""Names with when to use which; the first is the default."""

METHODS = {
    "latent_targets": "The default: any sensors, any of them missing, minutes on a laptop.",
    "sar_optical_contrast_early": "Sensors on one grid that are stacked into one image.",
    "sar_optical_contrast_intermediate": "Radar beside optical images, both always there.",
    "sar_optical_contrast_late": "Radar beside optical images, of which one is often missing; needs two sensors.",
    "asymmetric_attention": "An optical image that leads, beside heights or radar.",
    "cross_scale_mae": "Many scenes of the same sensors, which read each other in a transformer.",
    "cross_sensor_alignment": "Several sensors of the same ground whose features should say the same.",
    "anchor_aware_mae": "Sets of images of one place, of different bands and resolutions.",
}
"""Ways of pre-training with when to use which; the first is the default."""

SETTINGS = ("small", "paper")
MODES = ("auto", "scratch", "linear", "partial", "full", "adapters", "forest", "boosting", "logistic")
CHANGE_MODES = (AUTO, "vote", "network")
ENCODERS = (AUTO, "unet", "resnet", "resunet", "vit")
FUSIONS = (
    AUTO,
    "early",
    "intermediate",
    "late",
    "asymmetric_attention",
    "cross_attention",
    "cross_modality",
    "cross_attention_and_modality",
    "joint_tokens",
)
SIZES = (AUTO, "tiny", "small", "base", "large")
MISSING_INPUTS = ("allow", "require")
MULTI_LABEL = (AUTO, "yes", "no")
DEVICES = (AUTO, "cpu", "cuda", "mps")
SENTINEL2_OFFSETS = (AUTO, "yes", "no")
ALLOCATIONS = ("balanced", "proportional", "equal", "optimal")
FORMATS = ("gtiff", "cog")
PRECISIONS = (AUTO, "float32", "bfloat16")
AREA_UNITS = ("hectares", "pixels")
CONNECTEDNESS = ("4", "8")
POLYGONS = ("patches", "classes")
