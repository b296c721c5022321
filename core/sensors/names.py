"""Names of bands as people and programs write them, brought to one form."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Sequence

from core.sensors.description import RasterDescription
from core.sensors.types import Sensor

_WAVELENGTH_NOTE = re.compile(r"\(\s*[\d.]+\s*(?:nm|nanomet|[uµμ]m|micromet)[^()]*\)", re.IGNORECASE)
_NUMBERED = re.compile(r"(?:band|b)0*(\d+)([a-z]?)")
_PRODUCT_PREFIXES = frozenset(("sr", "st", "toa", "boa", "rho", "refl", "reflectance", "surface"))
"""Words that products put before a band's name: ``SR_B4`` is band 4."""

_POLARIZATION = re.compile(r"(?:^|[^a-z])(vv|vh|hh|hv)(?![a-z])")
_NAME_TAGS = (
    "bandname",
    "band_name",
    "name",
    "common_name",
    "eo:common_name",
    "polarization",
    "polarisation",
    "long_name",
)
_COLOURS = frozenset(("red", "green", "blue", "nir", "nearinfrared"))


def normalise_name(text: str) -> str:
    """A band's name without what varies: case, separators, zero padding, product prefixes, a wavelength in brackets.

    ``B04``, ``band_4``, ``SR_B4`` and ``band 4 (664.6 Nanometers)`` all become ``b4``. Normalising twice changes nothing.
    """
    plain = unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", _WAVELENGTH_NOTE.sub(" ", text)).casefold())
    words = re.findall(r"[a-z0-9]+", plain)
    while len(words) > 1 and words[0] in _PRODUCT_PREFIXES:
        words = words[1:]
    joined = "".join(words)
    numbered = _NUMBERED.fullmatch(joined)
    return f"b{numbered[1]}{numbered[2]}" if numbered else joined


def polarization_of(text: str) -> str | None:
    """``VV``, ``VH``, ``HH`` or ``HV`` where exactly one of them stands in the text as a word of its own."""
    found = set(_POLARIZATION.findall(text.lower()))
    return found.pop().upper() if len(found) == 1 else None


def sensor_names(sensor: Sensor) -> dict[str, str]:
    """From every normalised name and alias of a sensor's bands to the band's name."""
    return {normalise_name(text): band.name for band in sensor.bands for text in (band.name, *band.aliases)}


def is_enumeration(text: str, index: int) -> bool:
    """Whether a text only repeats the band's position, as ``Band 3`` for the third band does, and so names nothing."""
    return (
        re.fullmatch(rf"(?:band|layer|channel)?[\s_.#:-]*0*{index}", _WAVELENGTH_NOTE.sub("", text).strip().lower()) is not None
    )


def band_texts(description: RasterDescription, index: int) -> tuple[str, ...]:
    """The texts that may name a band (1-based), the most trustworthy first."""
    tags = description.tags_of(index)
    texts = [description.description(index), *(tags.get(key, "") for key in _NAME_TAGS)]
    # GDAL's Sentinel-2 driver writes "B4, central wavelength 665 nm".
    texts += [re.split(r"[,;:]", text, maxsplit=1)[0] for text in texts if re.search(r"[,;:]", text)]
    return tuple(text for text in texts if normalise_name(text) and not is_enumeration(text, index))


def has_names(description: RasterDescription) -> bool:
    """Whether any band carries a text that is more than its number."""
    return any(band_texts(description, index) for index in range(1, description.band_count + 1))


def file_name_words(path: str) -> tuple[str, ...]:
    """The words of a file's name without its extension, as written, last first."""
    name = re.split(r"[\\/]", path)[-1]
    stem = name.rsplit(".", 1)[0] if "." in name else name
    return tuple(word for word in reversed(re.split(r"[^A-Za-z0-9]+", stem)) if word)


def color_names(description: RasterDescription) -> dict[int, str]:
    """Bands (1-based) that the colour interpretation calls red, green, blue or near infrared."""
    colours = {index: normalise_name(description.color_of(index)) for index in range(1, description.band_count + 1)}
    return {index: colour for index, colour in colours.items() if colour in _COLOURS}


def named_bands(description: RasterDescription, sensor: Sensor) -> dict[int, str]:
    """The sensor's bands that the file names: 1-based index to band name.

    Looks at descriptions and tags, then, where those say nothing at all, at the colour interpretation, and for a file of
    one band at the words of its name (``T33UUB_20220724_B8A.tif``).
    """
    known = sensor_names(sensor)
    found: dict[int, str] = {}
    for index in range(1, description.band_count + 1):
        name = _first_known(band_texts(description, index), known, sensor)
        if name is not None:
            found[index] = name
    if found or has_names(description):
        return found
    colours = {index: known[colour] for index, colour in color_names(description).items() if colour in known}
    if colours:
        return colours
    if description.band_count == 1:
        name = _first_known(_joined_words(description.path), known, sensor)
        return {} if name is None else {1: name}
    return {}


def _joined_words(path: str) -> tuple[str, ...]:
    """Words of a file's name; single letters are left out, they are too often initials or versions."""
    return tuple(word for word in file_name_words(path) if len(word) > 1)


def _first_known(texts: Sequence[str], known: dict[str, str], sensor: Sensor) -> str | None:
    for text in texts:
        name = known.get(normalise_name(text))
        if name is None and sensor.kind == "sar":
            polarization = polarization_of(text)
            name = known.get(polarization.lower()) if polarization else None
        if name is not None:
            return name
    return None
