"""The message types of Core ML and ONNX, without importing the packages that define them.

`import coremltools` takes three seconds because of its converters, and `import onnx` half a second; a training takes less.
Their generated modules need only protobuf, and are the same classes as those of the imported packages.
"""

from __future__ import annotations

import importlib
import importlib.util
import sys
from functools import cache
from types import ModuleType
from typing import Any

_ALIAS = "ocelli_core_ml_messages"


@cache
def core_ml_messages() -> Any:
    """`Model_pb2` of Core ML's specification.

    Raises:
        ImportError: coremltools is not installed.
    """
    package = ModuleType(_ALIAS)
    package.__path__ = [f"{_folder('coremltools')}/proto"]
    # The generated modules import each other relative to their package, which may have any name.
    sys.modules[_ALIAS] = package
    return importlib.import_module(f"{_ALIAS}.Model_pb2")


@cache
def onnx_messages() -> Any:
    """`onnx_ml_pb2`.

    Raises:
        ImportError: onnx is not installed.
    """
    specification = importlib.util.spec_from_file_location("onnx_ml_pb2", f"{_folder('onnx')}/onnx_ml_pb2.py")
    assert specification is not None
    assert specification.loader is not None
    module = importlib.util.module_from_spec(specification)
    specification.loader.exec_module(module)
    return module


def serialized(message: Any) -> bytes:
    """The bytes of a message, always the same for the same content."""
    data: bytes = message.SerializeToString(deterministic=True)
    return data


def _folder(package: str) -> str:
    specification = importlib.util.find_spec(package)
    if specification is None or not specification.submodule_search_locations:
        raise ImportError(f"{package} is not installed")
    return str(specification.submodule_search_locations[0])
