"""`python quantise.py NETWORK.onnx PICTURES.npy TARGET.xml`: a network in INT8, by NNCF, calibrated with decoded pictures.

A program of its own: NNCF wants other versions of libraries than Ocelli's, so it has a virtual environment of its own.
"""

from __future__ import annotations

import sys

import nncf
import numpy as np
import openvino


def main(network: str, pictures: str, target: str) -> None:
    """`pictures` are uint8[N, height, width, 3]."""
    images = np.load(pictures, allow_pickle=False)
    model = openvino.Core().read_model(network)
    model.reshape([1, *images.shape[1:]])
    batches = [images[index : index + 1] for index in range(len(images))]
    quantised = nncf.quantize(model, nncf.Dataset(batches), subset_size=len(batches))
    openvino.save_model(quantised, target, compress_to_fp16=False)


if __name__ == "__main__":
    main(*sys.argv[1:])
