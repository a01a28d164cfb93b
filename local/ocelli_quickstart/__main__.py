"""`python -m ocelli_quickstart run|demo|clean`, with the settings of `make run` in the environment."""

from __future__ import annotations

import asyncio
import os
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from ocelli_local import ClusterAccessError, ClusterError
from ocelli_local.addresses import AddressesError
from ocelli_local.control_plane import ControlPlaneError
from ocelli_local.versions import BinariesError
from ocelli_model.backbone import BackboneError
from ocelli_quickstart.client import TutorialError
from ocelli_quickstart.demo import play_tutorial
from ocelli_quickstart.run import RunError, RunSettings, run, running_ocelli
from ocelli_quickstart.samples import write_samples
from ocelli_quickstart.state import StateError, StateFolder
from ocelli_storage.object_store import ObjectStoreError

CLUSTER_ERRORS = (AddressesError, BinariesError, ClusterAccessError, ClusterError, ControlPlaneError)


def say(text: str) -> None:
    print(text, flush=True)


async def demo(settings: RunSettings) -> None:
    """The tutorial with the running instance, else with one that ends with the demo."""
    state = StateFolder(settings.state_dir)
    running = state.find_running()
    if running is not None:
        write_samples(state.samples)
        say(f"running the tutorial with {running.address}")
        await play_tutorial(running, state.samples, say)
        return
    say("`make run` is not running: starting a cluster for the demo")
    with tempfile.TemporaryDirectory(prefix="ocelli-demo-") as folder:
        own = replace(settings, state_dir=Path(folder) / "state", port=None)
        async with running_ocelli(own, say) as (_, service, own_state):
            await play_tutorial(service, own_state.samples, say)


def main(arguments: list[str]) -> int:
    """Exit code 0 on success, 1 with the reason on failure, 2 for wrong usage."""
    try:
        settings = RunSettings.from_environment(os.environ)
        match arguments:
            case ["run"]:
                asyncio.run(run(settings, say))
            case ["demo"]:
                asyncio.run(demo(settings))
            case ["clean"]:
                StateFolder(settings.state_dir).delete()
            case _:
                print("usage: python -m ocelli_quickstart run|demo|clean", file=sys.stderr)
                return 2
    except (RunError, StateError, TutorialError, BackboneError, ObjectStoreError, *CLUSTER_ERRORS) as error:
        print(f"ocelli: {error}", file=sys.stderr)
        return 1
    except KeyboardInterrupt:
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
