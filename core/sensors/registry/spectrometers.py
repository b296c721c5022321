"""Imaging spectrometers: EnMAP, and any other whose wavelengths the file tells."""

from __future__ import annotations

import numpy as np

from core.sensors.registry.satellites import reflective_band
from core.sensors.types import Sensor

# fmt: off
_VNIR_CENTERS_NM = (
    418.2, 423.9, 429.3, 434.5, 439.6, 444.5, 449.4, 454.2, 458.9, 463.6, 468.3, 472.9, 477.6, 482.3, 486.9,
    491.6, 496.3, 501.1, 505.9, 510.7, 515.5, 520.4, 525.3, 530.3, 535.3, 540.3, 545.4, 550.5, 555.7, 560.9,
    566.2, 571.6, 577.0, 582.5, 588.0, 593.6, 599.3, 605.0, 610.8, 616.7, 622.7, 628.8, 634.9, 641.1, 647.3,
    653.6, 660.0, 666.4, 672.9, 679.5, 686.1, 692.8, 699.6, 706.4, 713.3, 720.3, 727.3, 734.4, 741.6, 748.8,
    756.1, 763.5, 770.9, 778.3, 785.8, 793.4, 801.0, 808.7, 816.4, 824.1, 831.9, 839.7, 847.6, 855.5, 863.5,
    871.4, 879.4, 887.5, 895.5, 903.6, 911.7, 919.8, 928.0, 936.1, 944.2, 952.4, 960.5, 968.6, 976.8, 984.9,
    993.1,
)
_SWIR_CENTERS_NM = (
    902.3, 911.9, 921.6, 931.5, 941.5, 951.7, 961.9, 972.3, 982.9, 993.5, 1004.2, 1015.0, 1026.0, 1037.0,
    1048.2, 1059.4, 1070.7, 1082.1, 1093.6, 1105.2, 1116.8, 1128.5, 1140.2, 1152.0, 1163.8, 1175.7, 1187.6,
    1199.5, 1211.4, 1223.4, 1235.3, 1247.3, 1259.3, 1271.3, 1283.3, 1295.3, 1307.3, 1319.2, 1331.2, 1343.2,
    1355.1, 1367.1, 1379.0, 1390.8, 1461.5, 1473.1, 1484.7, 1496.2, 1507.8, 1519.2, 1530.6, 1542.0, 1553.4,
    1564.7, 1575.9, 1587.1, 1598.3, 1609.4, 1620.4, 1631.4, 1642.4, 1653.3, 1664.2, 1675.0, 1685.8, 1696.5,
    1707.2, 1717.8, 1728.4, 1738.9, 1749.4, 1759.8, 1939.4, 1949.0, 1958.5, 1968.0, 1977.4, 1986.7, 1996.1,
    2005.4, 2014.6, 2023.8, 2033.0, 2042.1, 2051.2, 2060.2, 2069.2, 2078.2, 2087.1, 2096.0, 2104.9, 2113.7,
    2122.4, 2131.2, 2139.9, 2148.5, 2157.2, 2165.7, 2174.3, 2182.8, 2191.3, 2199.7, 2208.1, 2216.5, 2224.8,
    2233.1, 2241.4, 2249.7, 2257.9, 2266.0, 2274.2, 2282.3, 2290.4, 2298.4, 2306.4, 2314.4, 2322.4, 2330.3,
    2338.2, 2346.1, 2353.9, 2361.7, 2369.4, 2377.2, 2384.9, 2392.6, 2400.2, 2407.8, 2415.4, 2423.0, 2430.6,
    2438.1, 2445.5,
)
# fmt: on
"""Centres of the 224 bands of an EnMAP L2A product. They drift by tenths of a nanometre between calibrations."""

_WidthTable = tuple[tuple[float, ...], tuple[float, ...]]

_VNIR_WIDTHS_NM: _WidthTable = ((418, 496, 577, 673, 786, 912, 993), (7.0, 5.8, 6.6, 7.8, 9.0, 10.3, 10.9))
_SWIR_WIDTHS_NM: _WidthTable = (
    (902, 952, 1037, 1223, 1319, 1565, 1739, 2060, 2266, 2446),
    (9.3, 9.8, 10.7, 11.4, 11.4, 10.7, 10.0, 8.7, 7.8, 7.2),
)
"""Full widths at half maximum at some wavelengths, linear in between."""

ENMAP_GSD_M = 30.0


def _enmap() -> Sensor:
    numbered = [(center, _VNIR_WIDTHS_NM) for center in _VNIR_CENTERS_NM]
    numbered += [(center, _SWIR_WIDTHS_NM) for center in _SWIR_CENTERS_NM]
    bands = tuple(
        reflective_band(f"B{number:03d}", center, round(float(np.interp(center, *widths)), 1), ENMAP_GSD_M)
        for number, (center, widths) in enumerate(numbered, start=1)
    )
    return Sensor("enmap", "EnMAP HSI, L2A", "optical", bands, "reflectance", -32768.0)


SPECTROMETERS = (
    _enmap(),
    Sensor("hyperspectral", "Imaging spectrometer, bands from the file's wavelengths", "optical", (), "reflectance"),
)
"""EnMAP's two detectors overlap from 902 to 993 nm, so its bands are in the product's order and not by wavelength."""
