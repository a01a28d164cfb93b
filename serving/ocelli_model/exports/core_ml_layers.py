"""Writes the layers of a Core ML neural network with the messages alone. It must not know what a network is for."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


class CoreMlLayers:
    """Adds layers to a network. Every layer is named below one prefix; methods return the name of the layer's output.

    The layers exist from specification version 4 on.
    """

    def __init__(self, network: Any, prefix: str = "") -> None:
        self._network = network
        self._prefix = prefix

    def add(self, kind: str, name: str, *inputs: str, output: str = "", **parameters: Any) -> str:
        """`kind` and `parameters` are those of the specification. The output has the layer's name unless `output` is given."""
        layer = self._network.layers.add(name=self._prefix + name, input=inputs, output=[output or self._prefix + name])
        message = getattr(layer, kind)
        # Without parameters the layer would have no kind.
        message.SetInParent()
        message.MergeFrom(type(message)(**parameters))
        return str(layer.output[0])

    def product(
        self, name: str, value: str, weights: NDArray[np.float32], bias: NDArray[np.float32], *, output: str = ""
    ) -> str:
        """`weights @ value + bias`."""
        outputs, inputs = weights.shape
        return self.add(
            "innerProduct",
            name,
            value,
            output=output,
            outputChannels=outputs,
            inputChannels=inputs,
            hasBias=True,
            weights={"floatValue": weights.ravel().tolist()},
            bias={"floatValue": bias.tolist()},
        )

    def unary(self, function: str, name: str, value: str, *, alpha: float = 0.0) -> str:
        """A function of each number."""
        return self.add("unary", name, value, type=function, alpha=alpha, scale=1.0)

    def reduce(self, kind: str, name: str, value: str) -> str:
        """To float32[1, 1]."""
        return self.add(kind, name, value, axes=[-1], keepDims=True)
