"""Any number of dates, some missing, some unknown."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from core.models.dates import YEAR_DAYS, DatePooling
from core.models.fusion_model import FusionModel
from core.models.specification import FusionName, ModelSpecification
from tests.core.models.specifications import FUSIONS, combination, inputs, random_model

SIDE = 12


def dated(fusion: FusionName = "intermediate") -> tuple[ModelSpecification, FusionModel]:
    wanted = combination("statistics", "unet", fusion, has_dates=True)
    return wanted, random_model(wanted, least=24)


@torch.no_grad()
def said(model: FusionModel, values: dict[str, Tensor], **options: dict[str, Tensor]) -> Tensor:
    return model(values, **options)


def days(*numbers: float) -> dict[str, Tensor]:
    return {name: torch.tensor([numbers]) for name in ("optical", "sar", "dsm")}


@pytest.mark.parametrize("fusion", FUSIONS)
def test_one_date_of_unknown_day_is_the_same_as_no_axis_of_dates(fusion: FusionName) -> None:
    wanted, model = dated(fusion)
    values = inputs(wanted, SIDE, SIDE, 2)
    plain, one = said(model, values), {name: each[:, None] for name, each in values.items()}
    assert torch.equal(plain, said(model, one))
    assert torch.equal(plain, said(model, one, dates={name: torch.full((2, 1), torch.nan) for name in values}))
    # Nor does the pooling cost weights that one date would use.
    without = random_model(wanted.model_copy(update={"has_dates": False}), least=24)
    weights = {name: each for name, each in model.state_dict().items() if not name.startswith("date_poolings.")}
    without.load_state_dict(weights)
    assert torch.equal(plain, said(without, values))
    assert torch.equal(plain, said(without, one))


@pytest.mark.parametrize("count", [1, 2, 3, 7])
def test_any_number_of_dates_runs(count: int) -> None:
    wanted, model = dated()
    scores = said(model, inputs(wanted, SIDE, SIDE, 2, dates=count))
    assert scores.shape == (2, 5, SIDE, SIDE)
    assert torch.isfinite(scores).all()


def test_a_modality_may_have_other_dates_than_the_next() -> None:
    wanted, model = dated()
    values = inputs(wanted, SIDE, SIDE, dates=3)
    values["dsm"], values["sar"] = values["dsm"][:, 0], values["sar"][:, :2]
    assert torch.isfinite(said(model, values, dates={"optical": torch.tensor([[5.0, 90.0, 300.0]])})).all()


def test_a_missing_date_has_no_influence() -> None:
    wanted, model = dated()
    values = inputs(wanted, SIDE, SIDE, dates=3)
    values["optical"][:, 1, 2] = torch.nan
    changed = {name: each.clone() for name, each in values.items()}
    changed["optical"][:, 1, :2] = 70.0
    plain = said(model, values, dates=days(10, 100, 300))
    assert torch.equal(plain, said(model, changed, dates=days(10, 100, 300)))
    other = days(10, 100, 300) | {"optical": torch.tensor([[10.0, 222.0, 300.0]])}
    assert torch.equal(plain, said(model, changed, dates=other))
    left = values | {"optical": values["optical"][:, (0, 2)]}
    shorter = days(10, 100, 300) | {"optical": torch.tensor([[10.0, 300.0]])}
    torch.testing.assert_close(plain, said(model, left, dates=shorter), rtol=0, atol=1e-5 * float(plain.abs().max()))


def test_no_date_at_all_is_the_same_as_no_modality() -> None:
    wanted, model = dated()
    values = inputs(wanted, SIDE, SIDE, dates=2)
    empty = values | {"sar": torch.full_like(values["sar"], torch.nan)}
    left = {name: each for name, each in values.items() if name != "sar"}
    assert torch.equal(said(model, empty), said(model, left))


def test_the_order_of_dates_does_not_matter_and_the_day_does() -> None:
    wanted, model = dated()
    values = inputs(wanted, SIDE, SIDE, dates=3)
    plain = said(model, values, dates=days(10, 100, 300))
    turned = said(model, {name: each[:, [2, 0, 1]] for name, each in values.items()}, dates=days(300, 10, 100))
    torch.testing.assert_close(plain, turned, rtol=0, atol=1e-5 * float(plain.abs().max()))
    assert not torch.allclose(plain, said(model, values, dates=days(10, 190, 300)), atol=1e-3)
    later = said(model, values, dates=days(*(day + 2 * YEAR_DAYS for day in (10, 100, 300))))
    torch.testing.assert_close(plain, later, rtol=0, atol=1e-3 * float(plain.abs().max()))


def test_pooling_is_a_mean_that_weighs_only_what_is_known() -> None:
    torch.manual_seed(0)
    pooling = DatePooling(4)
    known = (torch.rand(2, 5, 1, 3, 3) > 0.4).float()
    known[0, :, :, 0, 0] = 0
    values = torch.ones(2, 5, 4, 3, 3) * known
    pooled, is_known = pooling(values, known, None)
    assert torch.equal(is_known, known.amax(dim=1))
    torch.testing.assert_close(pooled, is_known.expand(-1, 4, -1, -1), rtol=0, atol=1e-6)
