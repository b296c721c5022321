"""Super-pixels: connected pieces of an image whose pixels look alike, as samples for contrast or as units for labels."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray

SuperpixelMethod = Literal["felzenszwalb", "slic"]

FELZENSZWALB_SCALE = 200.0
FELZENSZWALB_SIGMA = 0.5
FELZENSZWALB_LEAST = 30
"""As Chen and Bruzzone (2022, TGRS 60:5406011) computed theirs, by their code."""

SLIC_PIXELS = 64
"""Of a super-pixel on average, inferred: about twice the least that the published form allows."""

SLIC_COMPACTNESS = 0.3
"""Of images in 0 to 1 without conversion to the Lab space, inferred: with 0.1, noise of a fifth of the contrast between
fields left a single super-pixel of a whole window, and with 1 borders follow the lattice more than the image."""

VISIBLE_NM = (665.0, 560.0, 492.0)
"""Centres of red, green and blue; of these the published super-pixels are made."""


def superpixels(
    image: NDArray[np.floating[Any]],
    method: SuperpixelMethod = "felzenszwalb",
    *,
    scale: float = FELZENSZWALB_SCALE,
    sigma: float = FELZENSZWALB_SIGMA,
    least: int = FELZENSZWALB_LEAST,
    pixels: int = SLIC_PIXELS,
    compactness: float = SLIC_COMPACTNESS,
) -> NDArray[np.int32]:
    """Cuts an image into super-pixels.

    Bands are brought to 0 to 1 by their own least and greatest value first, as published. Missing pixels count as their
    band's median while the image is cut, so that a gap is no edge, and belong to no super-pixel afterwards.

    Args:
        image: (C, h, w), NaN = missing; a pixel that lacks one band is missing.
        method: the graph of Felzenszwalb and Huttenlocher (2004, DOI 10.1023/B:VISI.0000022288.19776.77), or SLIC
            (Achanta et al. 2012, DOI 10.1109/TPAMI.2012.120).
        scale: of Felzenszwalb, the k of the paper: larger values leave larger super-pixels. It is meant for values of 0
            to 255, as in the authors' program: scikit-image divides it by 255 for images in 0 to 1, so that 200 is a
            threshold of 0.78 divided by a piece's number of pixels.
        sigma: of the Gaussian before it, in pixels.
        least: pixels of the smallest super-pixel of Felzenszwalb; a gap can leave less of one.
        pixels, compactness: of SLIC: size on average, and how much nearness counts against likeness.

    Returns:
        (h, w) ids from 1 without gaps; 0 = missing.
    """
    known = np.isfinite(image).all(axis=0)
    if not known.any():
        return np.zeros(known.shape, np.int32)
    scaled = _scaled(image, known)
    if method == "felzenszwalb":
        from skimage.segmentation import felzenszwalb

        with warnings.catch_warnings():
            # More bands than three are meant.
            warnings.filterwarnings("ignore", message="Got image with third dimension")
            cut = felzenszwalb(scaled, scale=scale, sigma=sigma, min_size=least, channel_axis=-1)
    else:
        from skimage.segmentation import slic

        count = max(1, round(int(known.sum()) / pixels))
        mask = None if known.all() else known
        cut = slic(
            scaled, count, compactness, mask=mask, start_label=1, convert2lab=False, enforce_connectivity=True, channel_axis=-1
        )
    ids = np.zeros(known.shape, np.int32)
    ids[known] = np.unique(cut[known], return_inverse=True)[1] + 1
    return ids


def visible_bands(centers_nm: Sequence[float | None]) -> list[int]:
    """Which bands super-pixels are made of: those nearest to red, green and blue; the first three without wavelengths.

    Args:
        centers_nm: wavelength of each band; None = it has none.
    """
    known = {number: center for number, center in enumerate(centers_nm) if center is not None}
    if not known:
        return list(range(min(3, len(centers_nm))))
    nearest = [min(known, key=lambda number: abs(known[number] - wanted)) for wanted in VISIBLE_NM]
    return sorted(set(nearest))


def _scaled(image: NDArray[np.floating[Any]], known: NDArray[np.bool_]) -> NDArray[np.float64]:
    """(h, w, C) in 0 to 1, missing pixels filled."""
    bands = []
    for band in image.astype(np.float64):
        values = band[known]
        low, high = values.min(), values.max()
        filled = np.where(known, band, np.median(values))
        bands.append((filled - low) / (high - low) if high > low else np.zeros_like(filled))
    return np.stack(bands, axis=-1)
