"""What all that writes vector files has in common: the date inside them, and what is said when it fails."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import pyogrio
import pyogrio.errors

from core.errors import OutputError


@contextmanager
def dated(moment: str) -> Iterator[None]:
    """A GeoPackage holds the time of its last change: here it is a given one, so that the same job gives the same bytes.

    Args:
        moment: ISO 8601 with its offset from UTC.
    """
    text = datetime.fromisoformat(moment).astimezone(UTC).strftime("%Y-%m-%dT%H:%M:%S.000Z")
    before = pyogrio.get_gdal_config_option("OGR_CURRENT_DATE")
    pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": text})
    try:
        yield
    finally:
        pyogrio.set_gdal_config_options({"OGR_CURRENT_DATE": before})


@contextmanager
def writing_vectors(path: Path, moment: str) -> Iterator[None]:
    """As ``dated``, with an error that users understand.

    Raises:
        OutputError: the file cannot be written.
    """
    with dated(moment):
        try:
            yield
        except (OSError, pyogrio.errors.DataSourceError, pyogrio.errors.DataLayerError, pyogrio.errors.FeatureError) as error:
            raise OutputError(
                f"'{path}' cannot be written: {str(error).rstrip('.')}.", "Check the free space and the rights of its folder."
            ) from None
