"""How unlike the labelled ground a pixel is, on numbers that can be followed by hand."""

import pytest
import torch

from core.models.novelty import Novelty
from core.models.specification import ModelSpecification
from tests.core.models.specifications import modality

OPTICAL, RADAR = modality("aerial_rgb", 2), modality("sentinel1", 1, "sar")
SPECIFICATION = ModelSpecification(architecture="test", modalities=(OPTICAL, RADAR), n_classes=3)


@pytest.fixture
def novelty() -> Novelty:
    """Two classes with labels and one without, and a covariance that joins the optical bands."""
    built = Novelty(SPECIFICATION).eval()
    built.means[0] = torch.tensor([0.0, 0.0, 0.0])
    built.means[2] = torch.tensor([4.0, 0.0, 2.0])
    built.covariance.copy_(torch.tensor([[4.0, 0.0, 0.0], [0.0, 1.0, 0.0], [0.0, 0.0, 0.25]]))
    built.unit.copy_(torch.tensor([2.0, 1.0, 0.5]))
    return built


ALL, OPTICAL_ALONE, RADAR_ALONE = 3, 1, 2


@pytest.mark.parametrize(
    ("row", "present", "expected"),
    [
        ((0.0, 0.0, 0.0), ALL, 0.0),
        ((0.0, 3.0, 0.0), ALL, 3.0 / 2),
        # The second class is two deviations away in the first band, and four in the radar's.
        ((2.0, 0.0, 0.0), ALL, 1.0 / 2),
        ((4.0, 0.0, 3.0), ALL, 2.0 / 2),
        ((4.0, 2.0, 0.0), OPTICAL_ALONE, 2.0 / 1),
        ((9.0, 9.0, 1.5), RADAR_ALONE, 1.0 / 0.5),
    ],
)
def test_distances_by_hand(novelty, row, present, expected):
    found = novelty.distances(torch.tensor([row]), torch.tensor([present]))
    assert found.item() == pytest.approx(expected, abs=1e-6)


def test_covariance_turns_the_distance(novelty):
    novelty.covariance.copy_(torch.tensor([[1.0, 0.8, 0.0], [0.8, 1.0, 0.0], [0.0, 0.0, 1.0]]))
    along, across = novelty.raw_distances(torch.tensor([[-1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]]), ALL)
    # The variance of the bands' common direction is 1.8, that of their difference 0.2.
    assert along.item() == pytest.approx((2 / 1.8) ** 0.5, rel=1e-6)
    assert across.item() == pytest.approx((2 / 0.2) ** 0.5, rel=1e-6)


def test_a_set_that_was_not_measured_takes_its_share_of_the_whole(novelty):
    novelty.unit[2] = torch.nan
    found = novelty.distances(torch.tensor([[0.0, 0.0, 0.5]]), torch.tensor([RADAR_ALONE]))
    assert found.item() == pytest.approx(1.0 / (2.0 * (1 / 3) ** 0.5), rel=1e-6)


def test_maps_pixels_and_leaves_out_what_is_missing(novelty):
    # Normalised by hand: mean 0 and deviation 0.5; 0.1 and 0.6.
    optical = torch.zeros(1, 2, 4, 5)
    optical[:, 1] = 0.1
    optical[0, 1, 0, 0] = 0.1 + 3 * 0.6
    radar = torch.zeros(1, 1, 4, 5)
    radar[..., 1] = torch.nan
    optical[..., 1:3], radar[..., 2] = torch.nan, torch.nan
    found = novelty({"aerial_rgb": optical, "sentinel1": radar})
    assert found.shape == (1, 4, 5)
    assert found[0, 0, 0].item() == pytest.approx(1.5, rel=1e-5)
    assert torch.isnan(found[0, :, 1:3]).all()
    assert (found[0, 1:, 0] == 0).all()
    alone = novelty({"aerial_rgb": optical[..., :1]})
    assert alone[0, 0, 0].item() == pytest.approx(3.0, rel=1e-5)


def test_the_state_is_all_there_is(novelty):
    again = Novelty(SPECIFICATION)
    again.load_state_dict(novelty.state_dict())
    rows, bits = torch.rand(20, 3), torch.full((20,), ALL)
    assert torch.equal(again.distances(rows, bits), novelty.distances(rows, bits))
    assert set(novelty.state_dict()) == {"means", "covariance", "unit"}
