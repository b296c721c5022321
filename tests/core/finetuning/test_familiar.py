"""What is measured on labels: where most of them lie, with all inputs and with some."""

import numpy as np
import pytest
import torch

from core.finetuning.familiar import fit_novelty
from core.finetuning.training_data import TrainingData
from core.models.novelty import FAMILIAR
from core.models.specify import specify_model
from core.scenes.reading import SceneReader
from core.scenes.scene import SceneRequest, build_scene
from tests.core.finetuning.scenes import labels_at, write_raster

MEANS = {0: (0.1, 0.2, 0.3, 0.4), 1: (0.3, 0.2, 0.1, 0.1)}


@pytest.fixture(scope="module")
def fitted(tmp_path_factory):
    """Two kinds of ground in stripes with noise, a radar with a gap, and eight polygons of which four are held out."""
    folder = tmp_path_factory.mktemp("familiar")
    generator = np.random.default_rng(3)
    ground = (np.arange(96) // 12 % 2)[None, :].repeat(96, axis=0)
    optical = np.stack([np.choose(ground, [MEANS[0][band], MEANS[1][band]]) for band in range(4)])
    optical = optical + generator.normal(0, 0.02, optical.shape)
    radar = np.stack([np.choose(ground, [-8.0, -15.0]), np.choose(ground, [-14.0, -22.0])])
    radar = radar + generator.normal(0, 1.0, radar.shape)
    radar[:, 80:] = np.nan
    paths = {
        "optical": [write_raster(folder / "optical.tif", optical, 10)],
        "sar": [write_raster(folder / "sar.tif", radar, 10)],
    }
    sensors = {"optical": "spot6_7", "sar": "sentinel1"}
    scene = build_scene(SceneRequest(paths, sensors))
    boxes = [(12 * stripe + 2, row, 12 * stripe + 10, row + 8) for row in (4, 44) for stripe in range(4)]
    labels = labels_at(scene.grid, boxes, [stripe % 2 for _ in (4, 44) for stripe in range(4)])
    specification = specify_model(scene, "unet_intermediate", 2)
    held_out = np.arange(8) >= 4
    data = TrainingData(scene, labels, 64, allows_missing=True)
    with SceneReader(scene) as reader:
        values = reader.read(scene.grid.window)
    return fit_novelty(specification, data, held_out), data, values["spot6_7"], values["sentinel1"]


def asked(novelty, optical, radar, rows):
    values = {"spot6_7": optical[:, rows]}
    if radar is not None:
        values["sentinel1"] = radar[:, rows]
    with torch.no_grad():
        return novelty({name: torch.from_numpy(part[None].astype(np.float32)) for name, part in values.items()})[0].numpy()


def test_most_ground_like_the_labels_lies_below_one(fitted):
    novelty, _, optical, radar = fitted
    for shown in (radar, None):
        found = asked(novelty, optical, shown, slice(0, 80))
        assert abs((found < 1).mean() - FAMILIAR) < 0.04


def test_strange_ground_lies_far_above_one(fitted):
    novelty, _, optical, radar = fitted
    # Values that one of the classes has, in a combination that neither has.
    mixed = [optical[band, 10, 4 if band % 2 else 16] for band in range(4)]
    strange = np.broadcast_to(np.array(mixed)[:, None, None], optical.shape)
    assert asked(novelty, strange, radar, slice(0, 80)).min() > 1.5
    assert asked(novelty, strange, None, slice(0, 80)).min() > 2


def test_the_same_labels_give_the_same_measure(fitted):
    novelty, data, _, _ = fitted
    again = fit_novelty(specify_model(data.scene, "unet_intermediate", 2), data, np.arange(8) >= 4)
    for name, tensor in novelty.state_dict().items():
        assert torch.equal(tensor, again.state_dict()[name]), name
    assert torch.isfinite(novelty.unit).all()
