"""Low-rank adapters (Hu et al. 2022, LoRA, arXiv:2106.09685, section 4.1): small changes of large weights.

A frozen weight W becomes W + (alpha / r) B A with B of r columns and A of r rows; B starts at zero, so that training starts
from the base model to the bit. A convolution's kernels count as one row a channel put out: A is then a k x k convolution to
r channels and B a 1 x 1 convolution from them. The paper adapts the queries and values of a transformer; that all linear
layers and convolutions of encoders and fusion are adapted is ours.

The sum is taken of weights and not of what two layers say, which is the same, and for the few wide maps of a segmentation
network less work. What is delivered holds the sums, and is an ordinary model.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn.utils import parametrize

from core.models.fusion_model import FusionModel


class LowRankChange(nn.Module):
    """What is added to a weight.

    Args:
        weight: (rows, ...), frozen.
        rank: r.
        alpha: see above.
        generator: of the first A.
    """

    def __init__(self, weight: Tensor, rank: int, alpha: float, generator: torch.Generator) -> None:
        super().__init__()
        rows, columns = len(weight), weight[0].numel()
        self.scale = alpha / rank
        down = torch.randn(rank, columns, generator=generator) / math.sqrt(columns)
        self.down = nn.Parameter(down.to(weight))
        self.up = nn.Parameter(torch.zeros(rows, rank).to(weight))

    def forward(self, weight: Tensor) -> Tensor:
        """The weight that is used."""
        return weight + self.scale * (self.up @ self.down).view_as(weight)


def add_adapters(model: nn.Module, rank: int, alpha: float, seed: int) -> None:
    """Gives every linear layer and convolution of encoders and fusion an adapter.

    Weights of which an adapter would be no smaller are left as they are: the one row of a map of attention.

    Args:
        model: changed in place; ``freezing`` has frozen what adapters stand beside.
        rank, alpha: see ``LowRankChange``.
        seed: of the first values, the same on every device.

    Raises:
        TypeError: a model that has no parts.
    """
    if not isinstance(model, FusionModel):
        raise TypeError("only a model of parts can be given adapters")
    generator = torch.Generator().manual_seed(seed)
    for module in list(model.fusion.modules()):
        if isinstance(module, nn.Linear | nn.Conv2d) and _is_worth_it(module.weight, rank):
            parametrize.register_parametrization(module, "weight", LowRankChange(module.weight, rank, alpha, generator))


def _is_worth_it(weight: Tensor, rank: int) -> bool:
    rows = len(weight)
    return rank * (rows + weight[0].numel()) < weight.numel()


@torch.no_grad()
def merged_state(model: nn.Module) -> dict[str, Tensor]:
    """The values of a model by name, adapters added to the weights that they change; without adapters its own."""
    state = dict(model.state_dict())
    for name, module in model.named_modules():
        if isinstance(module, nn.Linear | nn.Conv2d) and parametrize.is_parametrized(module):
            prefix = f"{name}.parametrizations."
            state = {key: value for key, value in state.items() if not key.startswith(prefix)}
            state[f"{name}.weight"] = module.weight
    return state
