"""The day an image was taken, from what files and names say."""

from __future__ import annotations

from datetime import date

import pytest

from core.sensors import RasterDescription, acquisition_date


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("S2A_MSIL2A_20210702T103031_N0301_R108_T32UQD_20210703T120000.SAFE/MTD.xml", date(2021, 7, 2)),
        ("T32UQD_20210702T103031_B02_10m.jp2", date(2021, 7, 2)),
        ("LC08_L2SP_193024_20200604_20200825_02_T1_SR_B4.TIF", date(2020, 6, 4)),
        ("m_4709963_se_14_1_20100629.tif", date(2010, 6, 29)),
        ("2019-04-30/red.tif", date(2019, 4, 30)),
        ("field_2019.04.30.tif", date(2019, 4, 30)),
        ("20190230_20190301.tif", date(2019, 3, 1)),
        ("archive_20180101/s1_20210703.tif", date(2021, 7, 3)),
        ("1985.tif", None),
        ("m_4709963.tif", None),
        ("id_120210702.tif", None),
        ("20211302.tif", None),
        ("2021-0702.tif", None),
    ],
)
def test_dates_in_names(path: str, expected: date | None) -> None:
    assert acquisition_date(RasterDescription(path, 1, "uint16")) == expected


@pytest.mark.parametrize(
    ("tags", "expected"),
    [
        ({"ACQUISITION_DATE": "2021-07-02"}, date(2021, 7, 2)),
        ({"ACQUISITIONDATETIME": "2013-06-07 10:12:00"}, date(2013, 6, 7)),
        ({"PRODUCT_START_TIME": "2017-05-27T10:10:21.026Z"}, date(2017, 5, 27)),
        ({"TIFFTAG_DATETIME": "2022:01:01 00:00:00"}, date(2020, 6, 4)),
        ({"ACQUISITION_DATE": "unknown"}, date(2020, 6, 4)),
    ],
)
def test_metadata_come_before_names_and_the_making_of_a_file_does_not_count(tags: dict[str, str], expected: date) -> None:
    assert acquisition_date(RasterDescription("a_20200604.tif", 1, "uint16", tags=tags)) == expected
