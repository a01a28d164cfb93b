"""What an ONNX file contains about where and when it was made. It does not need PyTorch."""

from __future__ import annotations

import onnx


def strip_origins(model: onnx.ModelProto) -> None:
    """Remove stack traces and tool versions, which differ between machines and do not affect the network."""
    model.producer_name, model.producer_version = "ocelli", ""
    model.ClearField("doc_string")
    model.ClearField("metadata_props")
    model.graph.ClearField("metadata_props")
    model.graph.ClearField("doc_string")
    for node in model.graph.node:
        node.ClearField("metadata_props")
        node.ClearField("doc_string")
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info, *model.graph.initializer):
        value.ClearField("metadata_props")
        value.ClearField("doc_string")
