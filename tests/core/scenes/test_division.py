"""A scene in two parts."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from core.scenes.division import divided
from core.scenes.reading import SceneReader
from core.scenes.scene import SceneRequest, build_scene
from tests.core.finetuning.scenes import write_raster


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    values = np.random.default_rng(1).uniform(0.05, 0.6, (4, 47, 61))
    path = write_raster(tmp_path_factory.mktemp("division") / "optical.tif", values, 10)
    return build_scene(SceneRequest({"optical": [path]}, {"optical": "spot6_7"}))


@pytest.mark.parametrize("is_wide", [False, True])
def test_the_parts_lie_beside_each_other_and_make_the_whole(scene, is_wide):
    grid = scene.grid
    if is_wide:
        grid = replace(grid, width=grid.width, height=grid.height // 2)
    else:
        grid = replace(grid, width=grid.width // 2, height=grid.height)
    parts = divided(replace(scene, grid=grid), 0.25, 8)
    assert parts is not None
    first, second = (part.grid for part in parts)
    if is_wide:
        assert (first.height, second.height) == (grid.height, grid.height)
        assert first.width + second.width == grid.width
        assert second.width == -(-grid.width // 4)
    else:
        assert (first.width, second.width) == (grid.width, grid.width)
        assert first.height + second.height == grid.height
    with SceneReader(replace(scene, grid=grid)) as reader:
        whole = reader.read(grid.window)[scene.main.name]
    read = []
    for part in parts:
        with SceneReader(part) as reader:
            read.append(reader.read(part.grid.window)[scene.main.name])
    np.testing.assert_array_equal(np.concatenate(read, axis=2 if is_wide else 1), whole)


def test_what_is_too_small_is_not_divided(scene):
    side = max(scene.grid.width, scene.grid.height)
    assert divided(scene, 0.2, side // 2 + 1) is None
    assert divided(scene, 0.2, side // 2) is not None
