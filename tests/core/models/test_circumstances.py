"""Day of the year and pixel size as inputs, and what stands in for them."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.models.circumstances import CircumstancesEncoding
from tests.core.models.specifications import combination, inputs, random_model

NAN = torch.nan


def code(encoding: CircumstancesEncoding, *rows: tuple[float, float]) -> Tensor:
    days, metres = torch.tensor(rows, dtype=torch.float64).unbind(dim=1)
    with torch.no_grad():
        found: Tensor = encoding(days, metres)
    return found


@pytest.fixture
def encoding() -> CircumstancesEncoding:
    torch.manual_seed(0)
    return CircumstancesEncoding(8).eval()


def test_learned_vectors_stand_in_for_what_is_unknown(encoding: CircumstancesEncoding) -> None:
    known, undated, unsized, nothing = code(encoding, (180, 10), (NAN, 10), (180, NAN), (NAN, NAN))
    torch.testing.assert_close(nothing, (encoding.no_day + encoding.no_resolution).detach())
    torch.testing.assert_close(known - undated, unsized - nothing, rtol=0, atol=1e-5)
    assert len(torch.stack([known, undated, unsized, nothing]).unique(dim=0)) == 4


def test_the_year_is_a_circle(encoding: CircumstancesEncoding) -> None:
    end, start, later, summer = code(encoding, (365.2, 10), (0, 10), (365.2425 * 3, 10), (180, 10))
    torch.testing.assert_close(end, start, rtol=0, atol=1e-2)
    torch.testing.assert_close(start, later, rtol=0, atol=1e-5)
    assert (start - summer).abs().max() > 0.1


@torch.no_grad()
def test_each_modality_has_its_own_day_and_pixel_size() -> None:
    wanted = combination("statistics", "unet", "intermediate", has_circumstances=True)
    model, values = random_model(wanted, least=24), inputs(wanted, 12, 12, 2)
    names, place = list(model.modalities), torch.tensor([[NAN, NAN, 10.0]] * 2, dtype=torch.float64)
    plain = model(values)
    # Nothing known is what maps and fine-tuning ask with.
    unknown = {name: torch.full((2, 1), NAN) for name in names}
    assert torch.equal(plain, model(values, dates=unknown, geography=torch.full((2, 3), NAN)))
    sized = model(values, geography=place)
    found = [plain, sized]
    for name in names:
        first = torch.tensor([[100.0], [NAN]], dtype=torch.float64)
        found.append(model(values, dates={name: first}, geography=place))
        torch.testing.assert_close(found[-1][1], sized[1], rtol=0, atol=1e-5 * float(sized.abs().max()))
    firsts = torch.stack([each[0] for each in found])
    for one in range(len(firsts)):
        for other in range(one):
            assert not torch.allclose(firsts[one], firsts[other], atol=1e-3)


@torch.no_grad()
def test_a_modality_of_other_pixels_is_told_its_own_size() -> None:
    wanted = combination("statistics", "unet", "intermediate", has_circumstances=True)
    model, values = random_model(wanted), inputs(wanted, 12, 12, 1)
    heard: dict[str, float] = {}
    for name, module in model.circumstances.items():
        module.register_forward_hook(lambda module, given, told, name=name: heard.update({name: float(given[1][0])}))
    model(values, geography=torch.tensor([[52.0, 13.0, 10.0]], dtype=torch.float64))
    assert heard == {"optical": 10.0, "sar": 20.0, "dsm": 5.0}
