"""`python -m ocelli_inference`: serve the revision that the environment names until a signal ends it.

Exit code 0 after a drain. 1 where it could not begin: the log and the termination message then say why.
"""

from __future__ import annotations

import asyncio
import logging
import os
import sys

import uvloop

from ocelli_api.log_lines import configure_logging
from ocelli_api.pod_environment import SettingsError, count_usable_cores, termination_message_path
from ocelli_http.freed_memory import return_large_blocks
from ocelli_inference.settings import parse_settings

_log = logging.getLogger("ocelli_inference")

_TALKATIVE = ("uvicorn",)
"""Its start and stop lines say nothing that ours do not."""

_LARGE_BLOCK_BYTES = 8 * 1024 * 1024
"""Typical images stay below it, where malloc is faster; after a few of 100 megapixels hundreds of megabytes would stay."""


def main() -> int:
    """Run the server and return the exit code."""
    configure_logging("INFO", talkative=_TALKATIVE)
    try:
        settings = parse_settings(os.environ, usable_cores=count_usable_cores())
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
        fact = "the server failed through a fault of its own"
        return _fail(f"Classifier {settings.classifier}, revision {settings.revision}: {fact}; report it with its log")
    return 0


def _limit_numpy_threads() -> None:
    """Products with a head are small, and OpenBLAS would start a thread for every core of the node. Read at NumPy's import."""
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")


def _fail(message: str) -> int:
    _log.error("cannot serve", extra={"error": message})
    path = termination_message_path(os.environ)
    try:
        path.write_text(message)
    except OSError as error:
        _log.warning("no termination message", extra={"path": str(path), "error": error.strerror})
    return 1


if __name__ == "__main__":
    sys.exit(main())
