"""Heads: shapes, batches of one, and unit lengths."""

from __future__ import annotations

import torch

from core.pretraining.projections import AlignmentHead, DenseProjection, DinoHead, RowNorm, VectorHead, unit


def test_a_vector_head_takes_any_number_of_rows() -> None:
    head = VectorHead(6, 4).train()
    for rows in (0, 1, 2, 9):
        values = torch.randn(rows, 6, requires_grad=True)
        said = head(values)
        assert said.shape == (rows, 4)
        assert torch.isfinite(said).all()
        said.sum().backward()
    assert all(torch.isfinite(parameter.grad).all() for parameter in head.parameters() if parameter.grad is not None)


def test_rows_are_normalised_by_the_batch_and_few_by_what_was_seen() -> None:
    norm = RowNorm(3).train()
    norm.momentum = None
    seen = 5 + 2 * torch.randn(400, 3, generator=torch.Generator().manual_seed(0))
    said = norm(seen)
    torch.testing.assert_close(said.std(dim=0), torch.ones(3), rtol=0.01, atol=0)
    for rows in (1, 2, 3):
        torch.testing.assert_close(norm(seen[:rows]), said[:rows], rtol=0.01, atol=0.01)
    assert int(norm.get_buffer("num_batches_tracked")) == 1


def test_one_window_in_two_views_has_a_gradient() -> None:
    """By its own two rows, batch normalisation would leave signs, which nothing moves."""
    torch.manual_seed(0)
    head, values = VectorHead(6, 4, normalises_output=True).train(), torch.randn(2, 6, requires_grad=True)
    head(values)[0].square().sum().backward()
    assert values.grad is not None
    assert float(values.grad.abs().max()) > 1e-3


def test_a_dino_head_says_cosines_of_directions_alone() -> None:
    torch.manual_seed(0)
    head = DinoHead(6, 32, hidden=16, bottleneck=8)
    values = 50 * torch.randn(20, 6)
    said = head(values)
    assert said.shape == (20, 32)
    assert float(said.detach().abs().max()) <= 1 + 1e-6
    with torch.no_grad():
        head.prototypes.mul_(3)
    torch.testing.assert_close(head(values), said)


def test_an_alignment_head_keeps_leading_dimensions_and_normalises() -> None:
    torch.manual_seed(0)
    said = AlignmentHead(6, 10, dropout=0.0)(torch.randn(2, 5, 6))
    assert said.shape == (2, 5, 10)
    torch.testing.assert_close(said.mean(dim=-1), torch.zeros(2, 5), rtol=0, atol=1e-5)


def test_a_dense_projection_sees_each_place_alone() -> None:
    torch.manual_seed(0)
    projection, values = DenseProjection(6, 3), torch.randn(2, 6, 5, 5)
    changed = values.clone()
    changed[:, :, 2, 3] += 1
    differs = (projection(values) != projection(changed)).any(dim=1)
    assert differs.nonzero()[:, 1:].tolist() == [[2, 3], [2, 3]]


def test_unit_vectors_have_length_one_or_none() -> None:
    vectors = torch.randn(4, 7).to(torch.bfloat16)
    vectors[2] = 0
    lengths = unit(vectors).norm(dim=1)
    assert unit(vectors).dtype == torch.float32
    torch.testing.assert_close(lengths, torch.tensor([1.0, 1.0, 0.0, 1.0]))
