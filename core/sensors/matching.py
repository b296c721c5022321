"""Which sensor a raster comes from, and which of its bands each of the file's is.

Names come first (descriptions, tags, the colour interpretation, the file's own name), then wavelengths, then the number of
bands. Where several sensors remain, the product's name and the pixel size decide; where they do not, the user has to.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from core.errors import SensorError
from core.sensors import evidence
from core.sensors.band_match import BandMatch, MatchedBy, build_match, listing, plural
from core.sensors.description import RasterDescription
from core.sensors.file_bands import display_bands, generic_bands, spectrometer_bands
from core.sensors.names import band_texts, has_names, named_bands, normalise_name
from core.sensors.registry import get_sensor, sensors_of_role
from core.sensors.types import Role, Sensor
from core.sensors.wavelengths import Spectrum, read_spectrum

_MULTISPECTRAL = ("sentinel2_l1c", "sentinel2_l2a", "landsat_tm", "landsat_oli", "spot6_7")
_CAMERAS = ("aerial_rgb", "aerial_rgbnir")
_SENTINEL2 = frozenset(("sentinel2_l1c", "sentinel2_l2a"))

_COUNT_ORDERS: dict[str, tuple[tuple[str, ...], ...]] = {
    "sentinel1": (("VV", "VH"),),
    "landsat_tm": (("B1", "B2", "B3", "B4", "B5", "B7"),),
    "landsat_oli": (("B1", "B2", "B3", "B4", "B5", "B6", "B7"), ("B2", "B3", "B4", "B5", "B6", "B7")),
    # The order of Airbus' DIMAP files: red, green, blue, near infrared.
    "spot6_7": (("B2", "B1", "B0", "B3"),),
}
"""Orders in which products without band names come, beside the registry's own order."""

_ENMAP_TOLERANCE_NM = 1.5
_SPECTROMETER_BANDS = 20
"""A raster with so many wavelengths is a spectrometer's, whatever few bands of a satellite they would cover."""

_CLEARLY_CLOSER = 1.5
_CLEARLY_CLOSER_BY = 0.02
"""Wavelengths decide between sensors when the second is worse by this factor and this part of a band's width."""


def match_bands(description: RasterDescription, sensor_name: str = "auto", role: Role = "optical") -> BandMatch:
    """Finds the sensor and the bands of a raster.

    Args:
        description: what is known of the file.
        sensor_name: a name of the registry, or ``auto`` to choose among the sensors of the role.
        role: the input under which the raster was given.

    Raises:
        SensorError: an unknown sensor, one that does not belong to the role, several sensors that fit equally, or
            bands that cannot be told apart.
    """
    spectrum = read_spectrum(description)
    if sensor_name != "auto":
        sensor = get_sensor(sensor_name)
        candidates = sensors_of_role(role)
        if sensor not in candidates:
            known = ", ".join(candidate.name for candidate in candidates)
            raise SensorError(f"'{description.path}' is given as {role}, and '{sensor_name}' is not.", f"Choose: {known}.")
        return _match_given(description, sensor, role, spectrum)
    if role == "sar":
        return _match_radar(description)
    if role == "elevation":
        return _match_elevation(description)
    if role == "optical":
        return _match_optical(description, spectrum)
    return _generic(description, role, "Taken as a generic raster; values are used as stored.", needs_check=False)


def _match_given(description: RasterDescription, sensor: Sensor, role: Role, spectrum: Spectrum) -> BandMatch:
    """A sensor that the user has set."""
    if sensor.name == "generic":
        return _generic(description, role, "Set by the user; values are used as stored.", needs_check=False)
    if sensor.name == "display_8bit":
        return _display(description, role, "Set by the user.")
    if sensor.name == "hyperspectral":
        return _hyperspectral(description, spectrum)
    named = named_bands(description, sensor)
    if named:
        return build_match(description, sensor, named, "name", ("Set by the user.",))
    assigned = _assign_wavelengths(spectrum, sensor)
    if assigned is not None:
        return build_match(description, sensor, assigned[0], "wavelength", ("Set by the user.",), bad=spectrum.bad)
    counted = _by_count(description, sensor)
    if counted is not None:
        note = "Set by the user; the file names no bands, so their usual order is assumed."
        return build_match(description, sensor, counted, "count", (note,))
    expected = [band.name for band in sensor.bands]
    count, number = description.band_count, len(expected)
    lacking = f" At least {listing(expected[count:])} would be missing." if count < number else ""
    raise SensorError(
        f"'{description.path}' has {plural(count)} without names or wavelengths of {sensor.title}, which has "
        f"{plural(number)}.{lacking}",
        f"Name the bands of the file (band descriptions such as {listing(expected[:4])}), or choose another sensor.",
    )


def _match_radar(description: RasterDescription) -> BandMatch:
    sentinel1 = get_sensor("sentinel1")
    if description.dtype == "uint8":
        return _display(description, "sar", "Stored in 8 bits, so taken as a display image and not as backscatter.")
    named = named_bands(description, sentinel1)
    if named:
        return build_match(description, sentinel1, named, "name", ())
    if has_names(description):
        note = "None of the band names is VV or VH; values are used as stored."
        return _generic(description, "sar", note, needs_check=True)
    counted = _by_count(description, sentinel1)
    if counted is not None:
        note = "The file names no bands; two SAR bands are taken as VV, VH."
        return build_match(description, sentinel1, counted, "count", (note,), needs_check=True)
    raise SensorError(
        f"'{description.path}' has {plural(description.band_count)} and does not say which polarisation each is.",
        "Candidates: sentinel1 with VV or VH, generic. Name the bands (band descriptions VV, VH), or set the SAR sensor "
        "to 'generic' to use the values as stored.",
    )


def _match_elevation(description: RasterDescription) -> BandMatch:
    """A band that is named decides; else the file's name; else it is a terrain model."""
    kind = evidence.elevation_kind(description)
    height = get_sensor("height_above_ground")
    named = named_bands(description, height) if has_names(description) else {}
    sensor = height if named else get_sensor(kind or "dem")
    if not named and has_names(description):
        named = named_bands(description, sensor)
    if named:
        return build_match(description, sensor, named, "name", ())
    if description.band_count > 1:
        raise SensorError(
            f"'{description.path}' has {plural(description.band_count)} and does not say which one is the elevation.",
            "Candidates: dem, dsm, height_above_ground. Give a raster of one band, name the band 'elevation' or "
            "'height', or set the sensor to 'generic' to use all bands as stored.",
        )
    note = (
        f"The file's name tells that it is '{sensor.name}'."
        if kind
        else "Nothing tells terrain, surface and height above ground apart; taken as a terrain model (dem)."
    )
    return build_match(description, sensor, {1: sensor.bands[0].name}, "count", (note,), needs_check=kind is None)


def _match_optical(description: RasterDescription, spectrum: Spectrum) -> BandMatch:
    if description.band_count == 1 or has_names(description) or not spectrum.has_centers:
        match = _optical_by_name(description, spectrum)
        if match is not None:
            return match
    if spectrum.has_centers:
        return _optical_by_wavelength(description, spectrum)
    if has_names(description):
        return _generic(description, "optical", "No known sensor has bands of these names.", needs_check=True)
    return _optical_by_count(description)


def _optical_by_name(description: RasterDescription, spectrum: Spectrum) -> BandMatch | None:
    """The sensor with most of the names, or None where no sensor has any."""
    cameras_only = description.dtype == "uint8" and _names_only_colours(description)
    names = _CAMERAS if cameras_only else (*_MULTISPECTRAL, *_CAMERAS)
    found = {name: named_bands(description, get_sensor(name)) for name in names}
    most = max(len(bands) for bands in found.values())
    by_colour = not has_names(description) and description.band_count > 1
    if most == 0 or (by_colour and most < description.band_count - len(_transparent(description))):
        # A colour interpretation that leaves bands out is often a default, not a statement.
        return None
    fitting = [name for name in names if len(found[name]) == most and _agree(spectrum, get_sensor(name), found[name])]
    if not fitting:
        return None
    if cameras_only:
        # Without near infrared both cameras fit alike.
        fitting = [name for name in fitting if evidence.score(get_sensor(name), description)][:1]
        if not fitting:
            return _display(description, "optical", "8-bit colours, and nothing tells of an aerial camera.")
    choice = _decide(description, fitting)
    notes = ("Bands are named by the colour interpretation only.", *choice.notes) if by_colour else choice.notes
    sensor, named = get_sensor(choice.name), found[choice.name]
    return build_match(description, sensor, named, "name", notes, bad=spectrum.bad, needs_check=choice.is_default)


def _names_only_colours(description: RasterDescription) -> bool:
    """Whether bands are called by colours and never by a satellite's numbers, nor the file by an 8-bit satellite."""
    if evidence.names_product(get_sensor("landsat_tm"), description):
        return False
    texts = [text for index in range(1, description.band_count + 1) for text in band_texts(description, index)]
    numbered = any(re.fullmatch(r"b\d+a?", normalise_name(text)) for text in texts)
    return not numbered and bool(named_bands(description, get_sensor("aerial_rgbnir")))


def _optical_by_wavelength(description: RasterDescription, spectrum: Spectrum) -> BandMatch:
    enmap = get_sensor("enmap")
    assigned = _assign_wavelengths(spectrum, enmap)
    many = len(spectrum.usable) >= _SPECTROMETER_BANDS
    if assigned is not None and (many or evidence.names_product(enmap, description)):
        return build_match(description, enmap, assigned[0], "wavelength", (), bad=spectrum.bad)
    if many:
        return _hyperspectral(description, spectrum)
    fits = {}
    for name in _MULTISPECTRAL:
        assigned = _assign_wavelengths(spectrum, get_sensor(name))
        if assigned is not None:
            fits[name] = assigned
    if not fits:
        return _hyperspectral(description, spectrum)
    best = min(distance for _, distance in fits.values())
    close = [name for name, (_, distance) in fits.items() if distance <= max(best * _CLEARLY_CLOSER, best + _CLEARLY_CLOSER_BY)]
    choice = _decide(description, close)
    return build_match(
        description,
        get_sensor(choice.name),
        fits[choice.name][0],
        "wavelength",
        choice.notes,
        bad=spectrum.bad,
        needs_check=choice.is_default,
    )


def _optical_by_count(description: RasterDescription) -> BandMatch:
    """No names, no wavelengths: only the number of bands, the stored type and the pixel size are left."""
    transparent = _transparent(description)
    count = description.band_count - len(transparent)
    fitting = [name for name in (*_MULTISPECTRAL, *_CAMERAS, "enmap") if _by_count(description, get_sensor(name), count)]
    if description.dtype == "uint8":
        # Satellites deliver more than 8 bits, old Landsat apart, which then has to be named.
        fitting = [
            name
            for name in fitting
            if (name in _CAMERAS and evidence.fits_resolution(get_sensor(name), description))
            or (name == "landsat_tm" and evidence.names_product(get_sensor(name), description))
        ]
        if not fitting:
            return _display(description, "optical", "8-bit values without band names, taken as a display image.")
    if not fitting:
        note = (
            f"{plural(description.band_count)} without names or wavelengths fit no known sensor; values are used as "
            "stored and scaled by the scene's own statistics."
        )
        return _generic(description, "optical", note, needs_check=True)
    choice = _decide(description, fitting)
    sensor = get_sensor(choice.name)
    is_named = evidence.names_product(sensor, description)
    if evidence.fits_resolution(sensor, description) is False and not is_named:
        raise _ambiguous(description, [*fitting, "generic"])
    note = "The file names no bands; their number and usual order decide."
    counted = _by_count(description, sensor, count) or {}
    return build_match(description, sensor, counted, "count", (note, *choice.notes), needs_check=not is_named)


@dataclass(frozen=True)
class _Choice:
    """One of several sensors, why, and whether it is only a default."""

    name: str
    notes: tuple[str, ...] = ()
    is_default: bool = False


def _decide(description: RasterDescription, names: Sequence[str]) -> _Choice:
    """One of several sensors by the evidence beside the bands.

    Raises:
        SensorError: the evidence does not single one out.
    """
    if len(names) == 1:
        return _Choice(names[0])
    scores = {name: evidence.score(get_sensor(name), description) for name in names}
    best = max(scores.values())
    leading = [name for name in names if scores[name] == best]
    if _SENTINEL2.issuperset(leading):
        # The two levels are near enough to each other for a default.
        level = evidence.sentinel2_level(description)
        if level is not None:
            return _Choice(f"sentinel2_{level}", (f"The product's name tells the level, {level.upper()}.",))
        note = "Nothing tells Sentinel-2's levels apart; taken as L2A (there is no cirrus band)."
        return _Choice("sentinel2_l2a", (note,), is_default=True)
    if len(leading) > 1:
        raise _ambiguous(description, leading)
    others = ", ".join(name for name in names if name != leading[0])
    note = f"The bands would also fit {others}; the product's name or the pixel size decides."
    return _Choice(leading[0], (note,))


def _ambiguous(description: RasterDescription, names: Sequence[str]) -> SensorError:
    size = f", pixels of {description.resolution_m:g} m" if description.resolution_m else ""
    return SensorError(
        f"'{description.path}' ({plural(description.band_count)}, {description.dtype}{size}) could come from several "
        f"sensors: {', '.join(names)}.",
        "Set the sensor parameter of this input to one of them, or name the bands of the file.",
    )


def _agree(spectrum: Spectrum, sensor: Sensor, named: dict[int, str]) -> bool:
    """Whether the wavelengths, where there are any, do not contradict the names."""
    for index, name in named.items():
        center, band = spectrum.centers_nm[index - 1], sensor.band(name)
        if center is not None and band.center_nm is not None and abs(center - band.center_nm) > (band.fwhm_nm or 0.0):
            return False
    return True


def _assign_wavelengths(spectrum: Spectrum, sensor: Sensor) -> tuple[dict[int, str], float] | None:
    """Gives each usable wavelength a band of its own.

    Returns:
        1-based index to band name, and the mean distance in parts of a band's width; None where a wavelength lies
        outside every band or two lie in one.
    """
    usable = spectrum.usable
    bands = [band for band in sensor.bands if band.center_nm is not None]
    if not usable or len(usable) > len(bands):
        return None
    indexes = list(usable)
    centers = np.array([usable[index] for index in indexes])
    nominal = np.array([band.center_nm or 0.0 for band in bands])
    widths = np.array([band.fwhm_nm or 1.0 for band in bands])
    offsets = np.abs(centers[:, None] - nominal[None, :])  # (file's bands, sensor's bands), nm
    if len(spectrum.centers_nm) == len(bands):
        # As many as the product has: in its order, which also tells overlapping detectors apart.
        nearest = np.array(indexes) - 1
        if not _within(sensor, offsets[np.arange(len(indexes)), nearest], widths[nearest]):
            nearest = offsets.argmin(axis=1)
    else:
        nearest = offsets.argmin(axis=1)
    distances = offsets[np.arange(len(indexes)), nearest]
    if len(set(nearest.tolist())) < len(indexes) or not _within(sensor, distances, widths[nearest]):
        return None
    named = {index: bands[position].name for index, position in zip(indexes, nearest.tolist(), strict=True)}
    return named, float((distances / widths[nearest]).mean())


def _within(sensor: Sensor, distances: np.ndarray, widths: np.ndarray) -> bool:
    limits = np.full_like(widths, _ENMAP_TOLERANCE_NM) if sensor.name == "enmap" else widths / 2
    return bool((distances <= limits).all())


def _by_count(description: RasterDescription, sensor: Sensor, count: int | None = None) -> dict[int, str] | None:
    """The bands in the order in which the sensor's products come, where their number is a product's."""
    wanted = description.band_count if count is None else count
    orders = (tuple(band.name for band in sensor.bands), *_COUNT_ORDERS.get(sensor.name, ()))
    # Later entries are the more specific: they win over the registry's order of the same length.
    fitting = [order for order in orders if len(order) == wanted]
    return dict(enumerate(fitting[-1], start=1)) if fitting else None


def _transparent(description: RasterDescription) -> frozenset[int]:
    """Alpha bands. A near-infrared band is often declared alpha, so one that holds more than 0 and the top is not."""
    declared = [index for index in range(1, description.band_count + 1) if description.color_of(index) == "alpha"]
    if description.sample is None:
        return frozenset(declared)
    found = set()
    for index in declared:
        values = description.sample[index - 1]
        values = np.unique(values[np.isfinite(values)])
        if values.size <= 1 or (values.size == 2 and values[0] == 0):
            found.add(index)
    return frozenset(found)


def _generic(description: RasterDescription, role: Role, note: str, *, needs_check: bool) -> BandMatch:
    sensor, named = generic_bands(description, role)
    by: MatchedBy = "name" if has_names(description) else "count"
    return build_match(description, sensor, named, by, (note,), needs_check=needs_check)


def _display(description: RasterDescription, role: Role, note: str) -> BandMatch:
    sensor, named = display_bands(description, role, _transparent(description))
    by: MatchedBy = "name" if set(named.values()) & {band.name for band in get_sensor("display_8bit").bands} else "count"
    return build_match(description, sensor, named, by, (note,))


def _hyperspectral(description: RasterDescription, spectrum: Spectrum) -> BandMatch:
    if not spectrum.usable:
        raise SensorError(
            f"'{description.path}' tells no wavelengths, so its bands cannot be matched as a spectrometer's.",
            "Add the wavelengths (the ENVI header's 'wavelength' list, or 'wavelength' in each band's metadata), or set "
            "the sensor to 'generic'.",
        )
    sensor, named = spectrometer_bands(spectrum, description.resolution_m)
    return build_match(description, sensor, named, "wavelength", (), bad=spectrum.bad)
