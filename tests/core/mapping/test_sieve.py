"""Small patches: by hand on tiny maps, and against a plain sieve that takes one patch after another."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import ndimage

from core.mapping.majority import majority, majority_reader
from core.mapping.patches import area_sizes, find_patches
from core.mapping.sieve import find_borders, merge_small, smallest_size
from core.scenes.grid import Grid, Window

SIDES = ndimage.generate_binary_structure(2, 1)
CORNERS = ndimage.generate_binary_structure(2, 2)


def grid_of(codes, crs="EPSG:32633", left=500_000.0, top=5_600_000.0, size=10.0):
    return Grid(crs, left, top, size, size, codes.shape[1], codes.shape[0])


def reader(codes):
    return lambda window: codes[window.row : window.stop_row, window.column : window.stop_column]


def nothing(fraction, phase):
    """Progress that nobody looks at."""


def sieved(codes, minimum, connectedness=4, keep=(), strip_pixels=2**21, grid=None, hectares=False):
    codes = np.asarray(codes, np.uint8)
    grid = grid or grid_of(codes)
    sizes = np.ones(grid.height, np.int64)
    if hectares:
        sizes, unit = area_sizes(grid)
        minimum = smallest_size(minimum, unit)
    patches = find_patches(reader(codes), grid, connectedness, sizes, nothing, strip_pixels)
    is_small = (patches.sizes < minimum) & ~np.isin(patches.codes, [0, *keep])
    borders = find_borders(patches, reader(codes), grid, is_small, nothing)
    final = merge_small(patches, borders, minimum, keep, nothing)
    rows = [final[patches.numbers(codes[window.row : window.stop_row], index)] for index, window in enumerate(patches.windows)]
    return np.concatenate(rows)


def plain_sieve(codes, minimum, connectedness, keep):
    """One patch after another, looked for anew each time."""
    codes = codes.copy()
    while True:
        found = []
        for code in np.unique(codes[codes > 0]):
            labels, count = ndimage.label(codes == code, SIDES if connectedness == 4 else CORNERS)
            for number in range(1, count + 1):
                mask = labels == number
                size = int(mask.sum())
                if size < minimum and code not in keep:
                    found.append((size, int(np.flatnonzero(mask.ravel())[0]), mask))
        for _, _, mask in sorted(found, key=lambda entry: entry[:2]):
            new = best_class(codes, mask)
            if new is not None:
                codes[mask] = new
                break
        else:
            return codes


def best_class(codes, mask):
    around = np.pad(codes, 1)
    sides, corners = np.zeros(256, int), np.zeros(256, int)
    own = codes[mask][0]
    for row, column in np.argwhere(mask) + 1:
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                code = around[row + down, column + right]
                if code and code != own:
                    (corners if down and right else sides)[code] += 1
    candidates = [(-sides[code], -corners[code], code) for code in np.flatnonzero(sides)]
    return min(candidates)[2] if candidates else None


@pytest.mark.parametrize("connectedness", [4, 8])
@pytest.mark.parametrize("seed", range(12))
def test_the_result_is_that_of_one_patch_after_another(seed, connectedness):
    generator = np.random.default_rng(seed)
    codes = generator.integers(0 if seed % 3 else 1, 5, (17, 23)).astype(np.uint8)
    if seed % 2:
        codes = ndimage.median_filter(codes, 3)
    keep = (3,) if seed % 4 == 0 else ()
    expected = plain_sieve(codes, 5, connectedness, keep)
    for strip_pixels in (1, 23 * 4, 10_000):
        np.testing.assert_array_equal(sieved(codes, 5, connectedness, keep, strip_pixels), expected)


def test_nodata_is_neither_filled_nor_eaten():
    codes = [
        [1, 1, 1, 1, 1],
        [1, 0, 2, 0, 1],
        [1, 0, 0, 0, 1],
        [0, 0, 0, 0, 0],
        [0, 2, 0, 3, 3],
    ]
    result = sieved(codes, 4)
    np.testing.assert_array_equal(result == 0, np.array(codes) == 0)
    assert result[1, 2] == 1  # touches class 1 by one side, nodata by three
    assert result[4, 1] == 2  # borders on nodata alone
    assert result[4, 3] == 3


def test_the_longest_border_wins_and_not_the_largest_neighbour():
    codes = np.full((6, 8), 1)
    codes[1:5, 2:6] = 2
    codes[2:4, 3:5] = 3
    codes[1, 3:5] = 1  # class 1 now shares two sides with the patch of 3, class 2 six
    assert (sieved(codes, 5)[2:4, 3:5] == 2).all()


def test_ties_go_to_the_class_at_more_corners_then_to_the_lower_code():
    tied = np.array([[4, 2, 2], [4, 9, 2], [4, 4, 2]])
    tied[0, 0] = 2
    assert sieved(tied, 2)[1, 1] == 2  # two sides each, class 2 at three corners
    tied = np.array([[4, 2, 2], [4, 9, 2], [4, 4, 2]])
    assert sieved(tied, 2)[1, 1] == 2  # two sides each, two corners each
    tied[2, 2] = 4
    assert sieved(tied, 2)[1, 1] == 4


def test_protected_classes_stay_and_may_grow():
    codes = np.full((5, 5), 1)
    codes[2, 2] = 7
    codes[0, 0] = 8
    result = sieved(codes, 3, keep=(7,))
    assert result[2, 2] == 7
    assert result[0, 0] == 1
    ring = np.full((5, 5), 7)
    ring[2, 2] = 1
    assert (sieved(ring, 3, keep=(7,)) == 7).all()


def test_a_diagonal_line_is_one_patch_with_corners_only():
    codes = np.full((6, 6), 1)
    np.fill_diagonal(codes, 2)
    assert (sieved(codes, 4, connectedness=4) == 1).all()
    np.testing.assert_array_equal(sieved(codes, 4, connectedness=8), codes)


def test_specks_that_touch_only_specks_join_into_patches():
    codes = np.tile([[1, 2], [2, 1]], (4, 4))
    result = sieved(codes, 10)
    _, n_patches = ndimage.label(result == result[0, 0])
    assert len(np.unique(result)) == 1
    assert n_patches == 1


def test_areas_count_on_a_geographic_grid():
    """Patches of as many pixels: at 60 degrees north each is half as large as on the equator."""
    codes = np.ones((8, 6), np.uint8)
    codes[1, 1:3], codes[6, 1:3] = 2, 3
    wide = Grid("EPSG:4326", 10.0, 70.0, 10.0, 10.0, 6, 8)
    areas = wide.row_pixel_areas_m2() / 10_000
    limit = (2 * areas[1] + 2 * areas[6]) / 2
    result = sieved(codes, limit, grid=wide, hectares=True)
    assert areas[1] < areas[6] / 1.5
    assert (result[1] == 1).all()
    assert (result[6, 1:3] == 3).all()


def test_on_a_geographic_grid_north_and_south_sides_are_shorter():
    """At 75 degrees a pixel is a quarter as wide as it is high: one side to the east outweighs two to the north and south."""
    codes = np.array([[2, 2, 2], [2, 9, 3], [2, 2, 2]])
    codes[1, 0] = 0
    polar = Grid("EPSG:4326", 10.0, 75.0, 0.001, 0.001, 3, 3)
    assert sieved(codes, 2, grid=polar)[1, 1] == 3
    assert sieved(codes, 2)[1, 1] == 2


def test_fifty_pixels_of_ten_metres_are_half_a_hectare():
    codes = np.ones((20, 20), np.uint8)
    codes[2:7, 2:12] = 2  # 50 pixels
    codes[10:17, 3:10] = 3  # 49
    for left in (200_000.0, 500_000.0, 830_000.0):
        result = sieved(codes, 0.5, grid=grid_of(codes, left=left, top=100_000.0), hectares=True)
        assert (result[2:7, 2:12] == 2).all()
        assert (result != 3).all()


def test_far_from_a_crops_edge_nothing_depends_on_the_crop():
    generator = np.random.default_rng(5)
    codes = np.ones((60, 60), np.uint8)
    codes[15:45, 15:45] = ndimage.median_filter(generator.integers(1, 5, (30, 30)), 3)
    whole = sieved(codes, 6)
    np.testing.assert_array_equal(sieved(codes[7:53, 11:50], 6), whole[7:53, 11:50])


def test_majority_gives_no_vote_to_nodata():
    codes = np.array([[0, 0, 0], [2, 2, 0], [3, 0, 2]], np.uint8)
    np.testing.assert_array_equal(majority(codes, 3), [[0, 0, 0], [2, 2, 0], [2, 0, 2]])
    np.testing.assert_array_equal(majority(codes, 3, protected=(3,)), codes)


def test_majority_keeps_the_own_class_in_a_tie_else_takes_the_lower_code():
    np.testing.assert_array_equal(majority(np.array([[4, 2, 2, 4]], np.uint8), 3)[0], [4, 2, 2, 4])
    np.testing.assert_array_equal(majority(np.array([[5, 9, 3]], np.uint8), 3)[0], [5, 9, 3])
    square = np.array([[5, 5, 0], [0, 9, 0], [0, 3, 3]], np.uint8)
    assert majority(square, 3)[1, 1] == 3


def test_majority_is_that_of_a_plain_count():
    generator = np.random.default_rng(0)
    codes = generator.integers(0, 4, (20, 31)).astype(np.uint8)

    def vote(values):
        own, counts = int(values[12]), np.bincount(values.astype(int), minlength=4)
        counts[0] = 0
        return 0 if own == 0 else own if counts[own] == counts.max() else counts.argmax()

    expected = ndimage.generic_filter(codes, vote, size=5, mode="constant", cval=0)
    np.testing.assert_array_equal(majority(codes, 5), expected)


def test_a_window_of_filtered_codes_is_the_crop_of_the_whole():
    codes = np.random.default_rng(1).integers(0, 4, (25, 30)).astype(np.uint8)
    read = majority_reader(reader(codes), grid_of(codes), 7)
    whole = read(Window(0, 0, 30, 25))
    np.testing.assert_array_equal(read(Window(3, 8, 20, 5)), whole[8:13, 3:23])
