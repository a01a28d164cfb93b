"""`python -m ocelli_model.backbones.export_hog_color`: write the exported HogColor that comes with this package.

Run it after a change of `hog_color.py`, with its `VERSION` raised; a test compares the files with the network.
"""

from __future__ import annotations

from pathlib import Path

from ocelli_model.backbone import METADATA_FILE, ONNX_FILE, BackboneMetadata, Precision
from ocelli_model.backbones import hog_color
from ocelli_model.backbones.onnx_export import export_onnx
from ocelli_model.canonical_json import sha256_hex
from ocelli_model.exports.backbone_parts import build_body_files

FOLDER = Path(__file__).parent / "exported" / "hog_color"


def main() -> None:
    """Export, and write the files into the package's own folder."""
    network = hog_color.HogColor().eval()
    onnx, feature_count = export_onnx(network, hog_color.PREPROCESSING)
    files = {ONNX_FILE: onnx, **build_body_files(network, onnx, hog_color.PREPROCESSING)}
    metadata = BackboneMetadata(
        name=hog_color.NAME,
        version=hog_color.VERSION,
        preprocessing=hog_color.PREPROCESSING,
        feature_count=feature_count,
        # With bfloat16 scores would depend on whether a node's processor has it, and nothing would be won.
        precision=Precision.FLOAT32,
        weights=None,
        licence="Apache-2.0",
        files={name: sha256_hex(data) for name, data in files.items()},
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (FOLDER / name).write_bytes(data)
    (FOLDER / METADATA_FILE).write_bytes(metadata.to_bytes())


if __name__ == "__main__":
    main()
