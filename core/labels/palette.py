"""Colours for classes that come without any: fixed, readable, and distinct for colour-blind readers too."""

from __future__ import annotations

import colorsys
import math
import re
from collections.abc import Iterable, Iterator, Sequence

_THEMES: tuple[tuple[tuple[str, ...], tuple[str, ...]], ...] = (
    (("cloud",), ("#616161", "#8a8a8a")),
    (("shadow",), ("#2f2f3a", "#4a4a58")),
    (("snow", "ice", "glacier"), ("#a8ebff", "#d5f5ff")),
    (("wetland", "marsh", "swamp", "bog", "peat", "mangrove", "flooded"), ("#4fa3a5", "#7a87c6", "#2e6f78")),
    (("water", "river", "lake", "sea", "ocean", "pond", "stream"), ("#2b6cb0", "#63a4dc", "#123f73")),
    (("road", "street", "pavement", "asphalt", "rail", "railway", "transport"), ("#5a5a64", "#84848e", "#3c3c46")),
    (
        ("built", "urban", "building", "roof", "settlement", "artificial", "city", "house", "industrial", "impervious"),
        ("#c8372d", "#e0756b", "#8c1f1a"),
    ),
    (("crop", "cropland", "arable", "agricultur", "farm", "cultivated"), ("#e3a83b", "#f2cd80", "#b57d14")),
    (("vineyard", "orchard"), ("#9b5aa5", "#c394ca")),
    (("shrub", "scrub", "heath", "bush"), ("#9a8f3d", "#c2b867")),
    (("grass", "meadow", "pasture", "rangeland", "lawn", "vegetation"), ("#b8d97a", "#8fbf4d", "#d9ecb2")),
    (("forest", "tree", "wood", "woodland"), ("#1b7837", "#5aae61", "#0b4d22")),
    (("bare", "soil", "sand", "rock", "barren", "beach", "desert"), ("#c2a887", "#8b7355", "#e3d4bd")),
)
"""Word beginnings and the shades they call for; earlier themes win: a flooded meadow is wet before it is green."""

_GENERAL = (
    "#0072b2",
    "#e69f00",
    "#009e73",
    "#d55e00",
    "#56b4e9",
    "#cc79a7",
    "#f0e442",
    "#332288",
    "#882255",
    "#117733",
    "#999933",
    "#aa4499",
    "#88ccee",
    "#661100",
    "#44aa99",
    "#dddddd",
)
"""The palette of Okabe and Ito (2008) without black, then colours of Tol's muted set, which go beside it."""

_WHOLE_WORD_LENGTH = 4
"""Words this short are only recognised whole: 'sea' must not be found at the start of 'season'."""

_SHADE_DISTANCE = 18.0
"""A shade that a name suggests is not given where another class has nearly the same."""

_DISTANCES = (60.0, 35.0, 18.0, 6.0, 0.5)
"""Least distances between two colours of a scheme in 8-bit RGB, tried from apart to merely different."""


def colours_for(names: Sequence[str], taken: Iterable[str] = ()) -> list[str]:
    """A colour for each class: one that its name suggests, else one that none of the others has.

    Args:
        names: of the classes, in any language; common English words are recognised.
        taken: colours, ``#rrggbb``, that others already have.

    Returns:
        As many colours as names, ``#rrggbb``, all different up to a thousand; the same for the same
        arguments.
    """
    used = [_components(colour) for colour in taken]
    colours: dict[int, str] = {}
    for index, name in enumerate(names):
        for shade in _shades(name):
            if all(math.dist(_components(shade), other) >= _SHADE_DISTANCE for other in used):
                colours[index] = shade
                used.append(_components(shade))
                break
    candidates = list(_candidates())
    components = [_components(colour) for colour in candidates]
    nearest = [min((math.dist(own, other) for other in used), default=math.inf) for own in components]
    for index in range(len(names)):
        if index in colours:
            continue
        apart = (place for limit in _DISTANCES for place, value in enumerate(nearest) if value >= limit)
        best = next(apart, index % len(candidates))
        colours[index] = candidates[best]
        nearest = [min(value, math.dist(own, components[best])) for value, own in zip(nearest, components, strict=True)]
    return [colours[index] for index in range(len(names))]


def _shades(name: str) -> tuple[str, ...]:
    words = re.findall(r"[a-z]+", name.lower())
    for stems, shades in _THEMES:
        for stem in stems:
            whole = len(stem) <= _WHOLE_WORD_LENGTH
            if any(word in (stem, stem + "s") if whole else word.startswith(stem) for word in words):
                return shades
    return ()


def _candidates() -> Iterator[str]:
    yield from _GENERAL
    # Steps of the golden angle spread any number of hues evenly; the lightness changes too, because hue alone is what
    # colour-blind readers miss.
    for index in range(1024):
        red, green, blue = colorsys.hls_to_rgb(
            index * 0.618034 % 1.0, (0.35, 0.55, 0.75, 0.25)[index % 4], (0.75, 0.45)[index // 4 % 2]
        )
        yield f"#{round(red * 255):02x}{round(green * 255):02x}{round(blue * 255):02x}"


def _components(colour: str) -> tuple[int, int, int]:
    return int(colour[1:3], 16), int(colour[3:5], 16), int(colour[5:7], 16)
