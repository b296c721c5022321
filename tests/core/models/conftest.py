"""Encoders so small that every combination of parts can be tried."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import torch

from core.models import registry
from core.models.costs import _bytes_per_pixel, forward_cost
from core.models.decoders import upernet
from core.models.encoders.resnet import RESNETS
from core.models.encoders.resunet import RESUNETS
from core.models.encoders.vit import VITS


@pytest.fixture(autouse=True, scope="module")
def _one_thread() -> Iterator[None]:
    """Layers of four channels are done before a second thread has woken up."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@contextmanager
def small_networks() -> Iterator[None]:
    """The smallest size of every encoder, made smaller still; the others stay what they are."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(RESNETS, "tiny", ((1, 1, 1, 1), False, 4))
        patch.setitem(RESUNETS, "small", 4)
        patch.setitem(VITS, "tiny", (16, 4, 2))
        patch.setitem(upernet.WIDTHS, 16, 8)
        _forget()
        yield
    _forget()


@pytest.fixture(autouse=True, scope="module")
def _small_networks() -> Iterator[None]:
    with small_networks():
        yield


def _forget() -> None:
    registry._window_needs.cache_clear()
    forward_cost.cache_clear()
    _bytes_per_pixel.cache_clear()
