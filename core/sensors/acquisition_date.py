"""When an image was taken, as its metadata or its name says."""

from __future__ import annotations

import re
from datetime import date

from core.sensors.description import RasterDescription
from core.sensors.evidence import place_text

_KEYS = (
    "acquisition_date",
    "acquisitiondatetime",
    "acquisition_time",
    "acquisition time",
    "acquisition_start_time",
    "date_acquired",
    "datatake_1_datatake_sensing_start",
    "product_start_time",
    "sensing_time",
    "start_time",
)
"""Metadata of products as GDAL names it. When a file was made (``TIFFTAG_DATETIME``) is not when its image was taken."""

_DATE = re.compile(r"(?<!\d)(19[5-9]\d|20\d\d)([-_.]?)(0[1-9]|1[0-2])\2(0[1-9]|[12]\d|3[01])(?!\d)")
"""Year, month and day in this order, with one separator or none; a time may follow after a ``T``."""


def acquisition_date(description: RasterDescription) -> date | None:
    """The day on which an image was taken; None where nobody says it.

    Products name the time of sensing before that of processing: of several dates in a name the first counts.

    Args:
        description: of the raster.
    """
    tags = description.file_tags()
    for text in (*(tags[key] for key in _KEYS if key in tags), *reversed(place_text(description.path).split("/"))):
        found = _first_date(text)
        if found is not None:
            return found
    return None


def _first_date(text: str) -> date | None:
    for match in _DATE.finditer(text):
        try:
            return date(int(match[1]), int(match[3]), int(match[4]))
        except ValueError:
            continue  # the 31st of February
    return None
