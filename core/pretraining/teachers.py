"""Teachers: copies of what learns, which give targets and get no gradient."""

from __future__ import annotations

import copy
import math
from typing import Any, Generic, Self, TypeVar

import torch
from torch import Tensor, nn

Module = TypeVar("Module", bound=nn.Module)


class FrozenTeacher(nn.Module, Generic[Module]):
    """A copy that stays as it is: always in evaluation mode, whatever its parent is in, and never trained.

    Its weights and buffers are part of the parent's state, so that a run that goes on does so exactly, and not of what
    is trained.

    Args:
        module: to copy.

    Attributes:
        module: the copy.
    """

    module: Module

    def __init__(self, module: Module) -> None:
        super().__init__()
        self.module = copy.deepcopy(module)
        for parameter in self.module.parameters():
            parameter.requires_grad_(False)
        self.train(False)

    def train(self, mode: bool = True) -> Self:
        """Leaves it in evaluation mode."""
        return super().train(False)

    @torch.no_grad()
    def forward(self, *inputs: Any, **options: Any) -> Any:
        """What the copy says."""
        return self.module(*inputs, **options)


class EmaTeacher(FrozenTeacher[Module]):
    """The exponential moving average of what learns (mean teacher, Tarvainen and Valpola 2017, arXiv:1703.01780).

    The momentum rises along a cosine as in BYOL (Grill et al. 2020, arXiv:2006.07733, appendix) and DINO (Caron et al.
    2021, arXiv:2104.14294):  m = m_1 - (m_1 - m_0) (cos(pi * done) + 1) / 2.  That the buffers of normalisations are
    averaged too is inferred, since teachers are published in training mode, or without such. A copy made at the start
    has statistics of nothing; they are therefore averaged with a momentum of at most (1 + n) / (10 + n) after n updates.

    Args:
        module: to copy and follow.
        momentum: at the start.
        final_momentum: at the end of the run; the same one = constant.
    """

    updates: Tensor

    def __init__(self, module: Module, momentum: float = 0.996, final_momentum: float = 1.0) -> None:
        super().__init__(module)
        self.momentum, self.final_momentum = momentum, final_momentum
        self.register_buffer("updates", torch.zeros((), dtype=torch.int64))

    def momentum_at(self, done: float) -> float:
        """The momentum after a part of the run."""
        return self.final_momentum - (self.final_momentum - self.momentum) * (math.cos(math.pi * done) + 1) / 2

    @torch.no_grad()
    def update(self, module: nn.Module, done: float = 0.0) -> None:
        """Follows the module that was copied, after a step of its optimiser.

        Args:
            module: that learns.
            done: part of the run that is behind, 0 to 1.
        """
        momentum = self.momentum_at(done)
        for own, other in zip(self.module.parameters(), module.parameters(), strict=True):
            own.lerp_(other.to(own.dtype), 1 - momentum)
        count = int(self.updates)
        momentum = min(momentum, (1 + count) / (10 + count))
        for kept, seen in zip(self.module.buffers(), module.buffers(), strict=True):
            if kept.is_floating_point():
                kept.lerp_(seen.to(kept.dtype), 1 - momentum)
            else:
                kept.copy_(seen)
        self.updates += 1
