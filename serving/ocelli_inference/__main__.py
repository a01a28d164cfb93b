"""`python -m ocelli_inference`: serves the revision that the environment names until a signal stops it.

Exit code 0 after a drain; 1 if it could not start, with the reason in the log and in the termination message.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import uvloop

from ocelli_api.log_lines import configure_logging
from ocelli_api.pod_environment import TerminationMessageSettings
from ocelli_api.settings import SettingsError, load_settings
from ocelli_http.freed_memory import return_large_blocks
from ocelli_inference.settings import InferenceSettings

_log = logging.getLogger("ocelli_inference")

_TALKATIVE = ("uvicorn",)
"""Its start and stop lines repeat ours."""

_LARGE_BLOCK_BYTES = 8 * 1024 * 1024
"""Typical images stay below it, where malloc is faster. Without it, a few images of 100 megapixels would keep hundreds of
MB."""


def main() -> int:
    """Run the server and return the exit code."""
    configure_logging("INFO", talkative=_TALKATIVE)
    try:
        settings = load_settings(InferenceSettings, os.environ)
    except SettingsError as error:
        return _fail(str(error))
    configure_logging(settings.log_level, talkative=_TALKATIVE)
    _limit_numpy_threads()
    return_large_blocks(_LARGE_BLOCK_BYTES)
    from ocelli_http.server import BindError
    from ocelli_inference.loading import LoadError
    from ocelli_inference.server import run_server

    try:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(run_server(settings))
    except (BindError, LoadError) as error:
        return _fail(f"Classifier {settings.classifier}, revision {settings.revision}: {error}")
    except Exception:
        _log.exception("unexpected error")
        fact = "the server failed because of an internal error"
        return _fail(f"Classifier {settings.classifier}, revision {settings.revision}: {fact}; report it with the server's log")
    return 0


def _limit_numpy_threads() -> None:
    """OpenBLAS would start a thread per core of the node for small products with a head. NumPy reads this on import."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _fail(message: str) -> int:
    _log.error("cannot serve", extra={"error": message})
    path = load_settings(TerminationMessageSettings, os.environ).termination_message_path
    try:
        path.write_text(message)
    except OSError as error:
        _log.warning("no termination message", extra={"path": str(path), "error": error.strerror})
    return 1


if __name__ == "__main__":
    sys.exit(main())
