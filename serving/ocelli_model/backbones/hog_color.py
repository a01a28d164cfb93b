"""HogColor: features that need no published weights, written with PyTorch operators so that they export like any network.

Three kinds of features, weighed against each other (docs/decisions/0003-hogcolor.md has the measurements):

* oriented gradients (Dalal and Triggs, 2005): 9 orientations in cells of 16 pixels, blocks of 3x3 cells, L2-Hys
  norm, at each pixel the gradient of the channel where it is steepest;
* energies of quadrature pairs of Gabor filters, 6 orientations at 2 wavelengths, averaged over a 4x4 grid;
* colour: histograms over red, green and blue (4x4x4, trilinear) of the quarters and of the whole, and a hue histogram weighed
  by saturation beside one of brightness; square roots of shares (Hellinger).

Gradients and Gabor filters see square roots, which makes contrast in shadows count like that in light.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional

from ocelli_model.preprocessing import Preprocessing

NAME = "HogColor"
VERSION = "1"
"""Raise it with any change that alters features: published backbones and artifacts of the old version then stay told apart."""
PREPROCESSING = Preprocessing(height=128, width=128)

ORIENTATIONS = 9
CELL_PIXELS = 16
BLOCK_CELLS = 3
GABOR_ORIENTATIONS = 6
GABOR_WAVELENGTHS_PIXELS = (4, 8)
GABOR_GRID = 4
COLOUR_LEVELS = 4
COLOUR_GRID = 2
HUES = 8
BRIGHTNESS_LEVELS = 6

# The gradients' weight is 1. Times each group's spread over photographs the others come to about 0.3, 0.2 and 0.2 of it.
GABOR_WEIGHT = 0.25
COLOUR_WEIGHT = 0.75
HUE_WEIGHT = 1.35

_OCTAVE = 0.56
"""Deviation of the envelope by wavelength: a bandwidth of one octave."""
_BRIGHTNESS = (0.299, 0.587, 0.114)  # ITU-R BT.601


class HogColor(nn.Module):
    """uint8[N, 128, 128, 3] to float32[N, 3442]."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("brightness", torch.tensor(_BRIGHTNESS).view(1, 3, 1, 1))
        self.register_buffer("bins", (torch.arange(ORIENTATIONS) + 0.5).view(1, -1, 1, 1))
        self.register_buffer("colour_levels", torch.linspace(0, 1, COLOUR_LEVELS).view(1, 1, -1, 1, 1))
        self.register_buffer("hues", torch.arange(HUES, dtype=torch.float32).view(1, -1, 1, 1))
        self.register_buffer("brightness_levels", torch.linspace(0, 1, BRIGHTNESS_LEVELS).view(1, -1, 1, 1))
        for wavelength in GABOR_WAVELENGTHS_PIXELS:
            self.register_buffer(f"gabor_{wavelength}", _gabor_filters(wavelength))

    def forward(self, images: Tensor) -> Tensor:
        colours = images.permute(0, 3, 1, 2).float() / 255.0
        brightness = (colours * self.get_buffer("brightness")).sum(1, keepdim=True)
        return torch.cat(
            [
                self._gradients(torch.sqrt(colours)),
                GABOR_WEIGHT * self._gabor_energies(torch.sqrt(brightness)),
                self._colours(colours),
            ],
            dim=1,
        )

    def _gradients(self, channels: Tensor) -> Tensor:
        along_x = functional.pad(channels[..., 2:] - channels[..., :-2], (1, 1, 0, 0))
        along_y = functional.pad(channels[..., 2:, :] - channels[..., :-2, :], (0, 0, 1, 1))
        squares = along_x * along_x + along_y * along_y
        steepest = squares.argmax(1, keepdim=True)
        along_x, along_y = along_x.gather(1, steepest), along_y.gather(1, steepest)
        magnitude = torch.sqrt(squares.gather(1, steepest))
        # Only the axis of the edge counts, hence atan instead of atan2: the sign of a tiny divisor does not matter either.
        divisor = torch.where(torch.abs(along_x) < 1e-6, torch.full_like(along_x, 1e-6), along_x)
        angle = torch.atan(along_y / divisor)
        angle = torch.where(angle < 0, angle + math.pi, angle) * (ORIENTATIONS / math.pi)
        distance = torch.abs(angle - self.get_buffer("bins"))
        distance = torch.minimum(distance, ORIENTATIONS - distance)
        cells = functional.avg_pool2d(magnitude * torch.clamp(1 - distance, min=0), CELL_PIXELS)
        # By number and not by `cells.shape`, here and below: exporters trace what is asked of tensors.
        rows = PREPROCESSING.height // CELL_PIXELS - BLOCK_CELLS + 1
        columns = PREPROCESSING.width // CELL_PIXELS - BLOCK_CELLS + 1
        blocks = torch.cat(
            [
                cells[:, :, row : rows + row, column : columns + column]
                for row in range(BLOCK_CELLS)
                for column in range(BLOCK_CELLS)
            ],
            dim=1,
        )
        clipped = torch.clamp(_normalised(blocks), max=0.2)
        return _normalised(clipped).flatten(1)

    def _gabor_energies(self, grey: Tensor) -> Tensor:
        energies = []
        for wavelength in GABOR_WAVELENGTHS_PIXELS:
            filters = self.get_buffer(f"gabor_{wavelength}")
            margin = _gabor_radius(wavelength)
            answers = functional.conv2d(functional.pad(grey, (margin,) * 4, mode="reflect"), filters)
            even, odd = answers[:, :GABOR_ORIENTATIONS], answers[:, GABOR_ORIENTATIONS:]
            energies.append(functional.avg_pool2d(torch.sqrt(even * even + odd * odd), PREPROCESSING.height // GABOR_GRID))
        stacked = torch.cat(energies, dim=1)
        return (stacked / torch.sqrt((stacked * stacked).mean((1, 2, 3), keepdim=True) + 1e-4)).flatten(1)

    def _colours(self, colours: Tensor) -> Tensor:
        shares = torch.clamp(
            1 - torch.abs(colours.unsqueeze(2) - self.get_buffer("colour_levels")) * (COLOUR_LEVELS - 1), min=0
        )
        red, green, blue = shares[:, 0], shares[:, 1], shares[:, 2]
        # In two steps: Core ML has tensors of five dimensions at most.
        red_green = (red[:, :, None] * green[:, None]).flatten(1, 2)
        joint = (red_green[:, :, None] * blue[:, None]).flatten(1, 2)
        quarters = functional.avg_pool2d(joint, PREPROCESSING.height // COLOUR_GRID)
        whole = quarters.mean((2, 3))
        highest, lowest = colours.amax(1, keepdim=True), colours.amin(1, keepdim=True)
        saturation = highest - lowest
        levels = torch.abs(highest - self.get_buffer("brightness_levels")) * (BRIGHTNESS_LEVELS - 1)
        hue_shares = self._hue_shares(colours, highest, saturation) * saturation
        brightness_shares = torch.clamp(1 - levels, min=0) * (1 - saturation)
        hues = torch.cat([hue_shares, brightness_shares], dim=1).mean((2, 3))
        return torch.cat(
            [
                COLOUR_WEIGHT * _hellinger(quarters).flatten(1),
                HUE_WEIGHT * _hellinger(torch.cat([whole, hues], dim=1)),
            ],
            dim=1,
        )

    def _hue_shares(self, colours: Tensor, highest: Tensor, saturation: Tensor) -> Tensor:
        """Linear shares of the hue (hexagon of HSV) in `HUES` circular bins; a grey pixel's hue is red, with saturation 0."""
        red, green, blue = colours[:, 0:1], colours[:, 1:2], colours[:, 2:3]
        span = torch.clamp(saturation, min=1e-6)
        sixth = torch.where(
            red >= highest,
            (green - blue) / span,
            torch.where(green >= highest, 2 + (blue - red) / span, 4 + (red - green) / span),
        )
        hue = torch.where(sixth < 0, sixth + 6, sixth) * (HUES / 6)
        distance = torch.abs(hue - self.get_buffer("hues"))
        return torch.clamp(1 - torch.minimum(distance, HUES - distance), min=0)


def _gabor_radius(wavelength: int) -> int:
    return math.ceil(2.5 * _OCTAVE * wavelength)


def _gabor_filters(wavelength: int) -> Tensor:
    """float32[2 x orientations, 1, side, side]: even filters, then odd ones; without response to constant brightness."""
    deviation = _OCTAVE * wavelength
    radius = _gabor_radius(wavelength)
    rows, columns = torch.meshgrid(
        torch.arange(-radius, radius + 1, dtype=torch.float64),
        torch.arange(-radius, radius + 1, dtype=torch.float64),
        indexing="ij",
    )
    envelope = torch.exp(-(rows**2 + columns**2) / (2 * deviation**2))
    envelope = envelope / envelope.sum()
    even, odd = [], []
    for index in range(GABOR_ORIENTATIONS):
        angle = math.pi * index / GABOR_ORIENTATIONS
        wave = 2 * math.pi * (columns * math.cos(angle) + rows * math.sin(angle)) / wavelength
        cosine = envelope * torch.cos(wave)
        even.append(cosine - envelope * cosine.sum())
        odd.append(envelope * torch.sin(wave))
    return torch.stack(even + odd).unsqueeze(1).float()


def _normalised(blocks: Tensor) -> Tensor:
    return blocks / torch.sqrt((blocks * blocks).sum(1, keepdim=True) + 1e-4)


def _hellinger(shares: Tensor) -> Tensor:
    return torch.sqrt(shares + 1e-6)
