"""`python -m ocelli_model.backbones.export_hog_color`: write the exported HogColor that comes with this package.

Run it after a change of `hog_color.py`, with its `VERSION` raised; a test compares the files with the network.
"""

from __future__ import annotations

from pathlib import Path

from ocelli_model.backbone import METADATA_FILE, ONNX_FILE, BackboneMetadata, Precision
from ocelli_model.backbones import hog_color
from ocelli_model.backbones.onnx_export import export_onnx
from ocelli_model.canonical_json import sha256_hex

FOLDER = Path(__file__).parent / "exported" / "hog_color"


def main() -> None:
    """Export, and write the files into the package's own folder."""
    onnx, feature_count = export_onnx(hog_color.HogColor().eval(), hog_color.PREPROCESSING)
    metadata = BackboneMetadata(
        name=hog_color.NAME,
        version=hog_color.VERSION,
        preprocessing=hog_color.PREPROCESSING,
        feature_count=feature_count,
        # With bfloat16 scores would depend on whether a node's processor has it, and nothing would be won.
        precision=Precision.FLOAT32,
        weights=None,
        licence="Apache-2.0",
        files={ONNX_FILE: sha256_hex(onnx)},
    )
    FOLDER.mkdir(parents=True, exist_ok=True)
    (FOLDER / ONNX_FILE).write_bytes(onnx)
    (FOLDER / METADATA_FILE).write_bytes(metadata.to_bytes())


if __name__ == "__main__":
    main()
