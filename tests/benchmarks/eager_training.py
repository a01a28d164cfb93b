"""What people write instead of Ocelli: the same network in eager PyTorch, and scikit-learn's logistic regression.

`python -m tests.benchmarks.eager_training STORE DIGEST LEARNED JUDGED CORES` learns from a folder of `CLASS.zip`, prints a line
when it has learned, and another one with its accuracy on a second folder.
"""

from __future__ import annotations

import asyncio
import io
import sys
import tempfile
import warnings
import zipfile
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image

BATCH_IMAGES = 32
STRENGTHS = (0.01, 0.1, 1.0)
LEARNED = "learned"


def read_zips(folder: Path) -> Iterator[tuple[bytes, int]]:
    """Every image with the number of its class."""
    for label, path in enumerate(sorted(folder.glob("*.zip"))):
        with zipfile.ZipFile(path) as archive:
            for name in archive.namelist():
                yield archive.read(name), label


def main() -> None:
    store_url, digest, learned, judged, cores = sys.argv[1:]
    import torch

    # Of defaults that a later scikit-learn will have.
    warnings.simplefilter("ignore", FutureWarning)
    from sklearn.linear_model import LogisticRegressionCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import StandardScaler
    from torchvision import transforms

    from ocelli_model.backbone import WEIGHTS_FILE, load_backbone
    from ocelli_model.backbones.families import load_network
    from ocelli_storage.store_url import open_store

    torch.set_num_threads(int(cores))
    with tempfile.TemporaryDirectory() as cache:
        loading = load_backbone(open_store(store_url), digest, cache=Path(cache), files=(WEIGHTS_FILE,))
        network = load_network(asyncio.run(loading))
    network.eval()
    # The preprocessing of the network, which scales the pixels itself.
    steps = [transforms.Resize(256, transforms.InterpolationMode.BICUBIC), transforms.CenterCrop(224), transforms.PILToTensor()]
    transform = transforms.Compose(steps)

    def decode(data: bytes) -> torch.Tensor:
        with Image.open(io.BytesIO(data)) as image:
            pixels: torch.Tensor = transform(image.convert("RGB"))
            return pixels

    def extract(folder: str) -> tuple[NDArray[np.float32], list[int]]:
        rows, labels, batch = [], [], []
        files = list(read_zips(Path(folder)))
        with ThreadPoolExecutor(int(cores)) as pool, torch.inference_mode():
            for pixels, (_, label) in zip(pool.map(decode, (data for data, _ in files)), files, strict=True):
                batch.append(pixels)
                labels.append(label)
                if len(batch) == BATCH_IMAGES or len(labels) == len(files):
                    # The network's first axes are those of an image file; in memory the channels stay first.
                    rows.append(network(torch.stack(batch).permute(0, 2, 3, 1)).numpy())
                    batch = []
        return np.concatenate(rows), labels

    features, labels = extract(learned)
    # As Ocelli does: the strength of the regularisation by cross-validation with five folds.
    model = make_pipeline(StandardScaler(), LogisticRegressionCV(Cs=STRENGTHS, cv=5, max_iter=300, n_jobs=int(cores)))
    model.fit(features, labels)
    print(LEARNED, flush=True)
    features, labels = extract(judged)
    print(float((model.predict(features) == np.array(labels)).mean()), flush=True)


if __name__ == "__main__":
    main()
