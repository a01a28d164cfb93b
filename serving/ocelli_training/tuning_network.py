"""The network that fine-tuning trains: a body with a linear head behind it, in PyTorch."""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional

from ocelli_model.heads import LEAST_LENGTH
from ocelli_training.tuning_recipe import AVERAGE_DECAY, FIRST_LAYER_SHARE, WEIGHT_DECAY

_LEAST_FEATURE = 1e-4
"""Added to features before their power is taken: its slope at 0 is infinite."""


class TunedNetwork(nn.Module):
    """uint8[N, height, width, 3] to logits float32[N, C]: a body's features, normalised as heads take them, and a linear layer.

    Batch norms keep their statistics: batches are small, and the pretrained statistics are those of many images.
    """

    def __init__(self, body: nn.Module, weights: NDArray[np.float32], bias: NDArray[np.float32], *, power: float) -> None:
        """`weights` float32[C, D] and `bias` float32[C] are where the linear layer begins (LP-FT, Kumar et al., 2022)."""
        super().__init__()
        self.body = body
        self.head = nn.Linear(weights.shape[1], weights.shape[0])
        with torch.no_grad():
            self.head.weight.copy_(torch.from_numpy(weights))
            self.head.bias.copy_(torch.from_numpy(bias))
        self._power = power

    def forward(self, images: Tensor) -> Tensor:
        # The power, of all layers, loses most with 16 bits.
        features = self.body(images).float()
        with torch.autocast(features.device.type, enabled=False):
            raised = features.sign() * (features.abs() + _LEAST_FEATURE) ** self._power
            return self.head(functional.normalize(raised, dim=1, eps=LEAST_LENGTH))  # type: ignore[no-any-return]

    def train(self, mode: bool = True) -> TunedNetwork:
        """As `nn.Module.train`, with batch norms that always evaluate."""
        super().train(mode)
        for module in self.modules():
            if isinstance(module, nn.modules.batchnorm._BatchNorm):
                module.eval()
        return self


def build_optimiser(network: TunedNetwork) -> torch.optim.AdamW:
    """AdamW whose groups have a `share` of the learning rate each: 1 for the last layer, less for earlier ones.

    Scales and biases do not decay.
    """
    layers = [module for module in network.modules() if next(module.parameters(recurse=False), None) is not None]
    groups = []
    for position, layer in enumerate(layers):
        share = FIRST_LAYER_SHARE ** (1.0 - position / max(1, len(layers) - 1))
        for parameter in layer.parameters(recurse=False):
            decay = WEIGHT_DECAY if parameter.dim() > 1 else 0.0
            groups.append({"params": [parameter], "share": share, "weight_decay": decay})
    return torch.optim.AdamW(groups, lr=0.0)


def set_rate(optimiser: torch.optim.Optimizer, rate: float) -> None:
    """Set the learning rate of the last layer, and with it those of all."""
    for group in optimiser.param_groups:
        group["lr"] = rate * group["share"]


class MovingAverage:
    """The exponential moving average of a network's parameters (Polyak and Juditsky, 1992)."""

    def __init__(self, network: nn.Module) -> None:
        self._live = dict(network.named_parameters())
        self.values = {name: value.detach().clone() for name, value in self._live.items()}

    def update(self, update: int) -> None:
        """Take in the parameters after the update of that number, which begins at 0."""
        decay = min(AVERAGE_DECAY, (1 + update) / (10 + update))
        torch._foreach_lerp_(list(self.values.values()), [value.detach() for value in self._live.values()], 1.0 - decay)

    def swap(self) -> None:
        """Exchange the parameters of the network for the average, until the next call."""
        for name, value in self._live.items():
            kept = value.detach().clone()
            value.data.copy_(self.values[name])
            self.values[name].copy_(kept)


def named_moments(optimiser: torch.optim.Optimizer, network: nn.Module) -> Iterator[tuple[str, Tensor]]:
    """The optimiser's moving averages, by name of parameter; nothing before its first step."""
    for name, parameter in network.named_parameters():
        for moment in ("exp_avg", "exp_avg_sq"):
            if moment in optimiser.state[parameter]:
                yield f"{moment}.{name}", optimiser.state[parameter][moment]


def restore_moments(optimiser: torch.optim.Optimizer, network: nn.Module, tensors: dict[str, Tensor], *, updates: int) -> None:
    """Set what `named_moments` gave after that many updates."""
    for name, parameter in network.named_parameters():
        optimiser.state[parameter] = {
            "step": torch.tensor(float(updates)),
            **{moment: tensors[f"{moment}.{name}"].to(parameter.device, copy=True) for moment in ("exp_avg", "exp_avg_sq")},
        }
