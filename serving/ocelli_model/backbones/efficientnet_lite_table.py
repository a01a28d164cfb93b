"""The table of EfficientNet-Lite's blocks, from which the ONNX, Core ML and PyTorch networks are built.

Tan and Le, "EfficientNet: Rethinking Model Scaling for Convolutional Neural Networks" (2019). Lite leaves out
squeeze-and-excite, has ReLU6 for swish, and does not scale the stem, the last convolution, and the repeats of the first and the
last stage. This module must not know weights or engines.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache

FEATURE_COUNT = 1280
CLASS_COUNT = 1000
"""Of ImageNet-1k, on which the published weights were trained."""
BATCH_NORM_EPSILON = 1e-3
BATCH_NORM_MOMENTUM = 0.01
CEILING = 6.0
"""Of ReLU6."""

_STEM_CHANNELS = 32
_CHANNELS_DIVISOR = 8


@dataclass(frozen=True, kw_only=True)
class _Stage:
    repeats: int
    kernel: int
    stride: int
    """Of the first block; that of the others is 1."""
    expansion: int
    channels: int


_STAGES = tuple(
    _Stage(repeats=repeats, kernel=kernel, stride=stride, expansion=expansion, channels=channels)
    for repeats, kernel, stride, expansion, channels in (
        (1, 3, 1, 1, 16),
        (2, 3, 2, 6, 24),
        (2, 5, 2, 6, 40),
        (3, 3, 2, 6, 80),
        (3, 5, 1, 6, 112),
        (4, 5, 2, 6, 192),
        (1, 3, 1, 6, 320),
    )
)


@dataclass(frozen=True, kw_only=True)
class Scale:
    """One network of the family."""

    width: float
    depth: float
    side_pixels: int
    """Of the images that the weights were trained on."""
    short_side_pixels: int
    """The size of their shorter side before the centre was cropped."""


SCALES = {
    "EfficientNetLite0": Scale(width=1.0, depth=1.0, side_pixels=224, short_side_pixels=256),
    "EfficientNetLite1": Scale(width=1.0, depth=1.1, side_pixels=240, short_side_pixels=272),
    "EfficientNetLite2": Scale(width=1.1, depth=1.2, side_pixels=260, short_side_pixels=292),
}


@dataclass(frozen=True, kw_only=True)
class Layer:
    """A convolution without bias, its batch norm, and ReLU6 if `clipped`."""

    name: str
    published_convolution: str
    """Name of the convolution in the published weights."""
    published_norm: str
    input_channels: int
    output_channels: int
    kernel: int = 1
    stride: int = 1
    depthwise: bool = False
    """Each channel has its own filter."""
    clipped: bool = True

    @property
    def groups(self) -> int:
        return self.input_channels if self.depthwise else 1

    @property
    def weight_shape(self) -> tuple[int, int, int, int]:
        return self.output_channels, self.input_channels // self.groups, self.kernel, self.kernel

    def borders(self, size: int) -> tuple[int, int]:
        """Rows of zeros before and after `size` rows: TensorFlow's SAME, which adds an odd row at the end."""
        wanted = max((self.output_size(size) - 1) * self.stride + self.kernel - size, 0)
        return wanted // 2, wanted - wanted // 2

    def output_size(self, size: int) -> int:
        return math.ceil(size / self.stride)


@dataclass(frozen=True, kw_only=True)
class Block:
    """A sequence of layers; if it `skips`, its input is added to its output."""

    layers: tuple[Layer, ...]
    skips: bool = False


@cache
def build_blocks(name: str) -> tuple[Block, ...]:
    """The network from the stem to the last convolution, whose output is averaged to the features."""
    scale = SCALES[name]
    stem = Layer(
        name="stem",
        published_convolution="_conv_stem",
        published_norm="_bn0",
        input_channels=3,
        output_channels=_STEM_CHANNELS,
        kernel=3,
        stride=2,
    )
    blocks = [Block(layers=(stem,))]
    channels = _STEM_CHANNELS
    for stage in _STAGES:
        fixed = stage in (_STAGES[0], _STAGES[-1])
        repeats = stage.repeats if fixed else math.ceil(scale.depth * stage.repeats)
        for repeat in range(repeats):
            # The stem is a block here, but not in the published weights.
            block = _build_block(len(blocks) - 1, channels, stage, stage.stride if repeat == 0 else 1, scale)
            blocks.append(block)
            channels = block.layers[-1].output_channels
    last = Layer(
        name="last",
        published_convolution="_conv_head",
        published_norm="_bn1",
        input_channels=channels,
        output_channels=FEATURE_COUNT,
    )
    return (*blocks, Block(layers=(last,)))


def _build_block(index: int, input_channels: int, stage: _Stage, stride: int, scale: Scale) -> Block:
    name, published = f"blocks.{index}", f"_blocks.{index}"
    hidden_channels, output_channels = input_channels * stage.expansion, _scaled_channels(stage.channels, scale.width)
    expand = Layer(
        name=f"{name}.expand",
        published_convolution=f"{published}._expand_conv",
        published_norm=f"{published}._bn0",
        input_channels=input_channels,
        output_channels=hidden_channels,
    )
    filtering = Layer(
        name=f"{name}.filter",
        published_convolution=f"{published}._depthwise_conv",
        published_norm=f"{published}._bn1",
        input_channels=hidden_channels,
        output_channels=hidden_channels,
        kernel=stage.kernel,
        stride=stride,
        depthwise=True,
    )
    project = Layer(
        name=f"{name}.project",
        published_convolution=f"{published}._project_conv",
        published_norm=f"{published}._bn2",
        input_channels=hidden_channels,
        output_channels=output_channels,
        clipped=False,
    )
    layers = (filtering, project) if stage.expansion == 1 else (expand, filtering, project)
    return Block(layers=layers, skips=stride == 1 and input_channels == output_channels)


def _scaled_channels(channels: int, width: float) -> int:
    """A multiple of eight, at most a tenth below the scaled number."""
    wanted = channels * width
    scaled = max(_CHANNELS_DIVISOR, int(wanted + _CHANNELS_DIVISOR / 2) // _CHANNELS_DIVISOR * _CHANNELS_DIVISOR)
    return scaled + _CHANNELS_DIVISOR if scaled < 0.9 * wanted else scaled


def all_layers(name: str) -> Iterator[Layer]:
    """The convolutions in their order."""
    return (layer for block in build_blocks(name) for layer in block.layers)
