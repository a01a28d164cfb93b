"""What one run of a container starts with: its folders, command, environment and path translation."""

from __future__ import annotations

import os
import shutil
import sys
from dataclasses import dataclass
from pathlib import Path

from ocelli_local.kubeconfig import build_kubeconfig, save_kubeconfig
from ocelli_local.manifest import Manifest
from ocelli_local.process_node.environment import (
    ContainerPaths,
    EnvironmentInput,
    PathTranslation,
    ProcessArguments,
    build_process_arguments,
    referenced_objects,
)
from ocelli_local.process_node.services import PodServices

PATH_AFTER_INTERPRETER = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


@dataclass(frozen=True, kw_only=True)
class RunSetup:
    container: Manifest
    arguments: ProcessArguments
    translation: PathTranslation
    working_folder: Path
    termination_file: Path

    def find_problem(self) -> str | None:
        """Why the command can't be started: a sentence, or None."""
        if not self.working_folder.is_dir():
            return f"workingDir {self.working_folder} does not exist on this machine; create it, or remove workingDir"
        program, path = self.arguments.argv[0], self.arguments.env.get("PATH", "")
        if shutil.which(self.working_folder / program if "/" in program else program, path=path) is None:
            return f'exec: "{program}": executable file not found in $PATH of this machine; install it or correct command'
        return None


async def build_run_setup(spec: Manifest, services: PodServices, run_number: int) -> RunSetup:
    """Raises ContainerConfigError or ObjectUnavailableError where something that the container refers to is missing."""
    folder = services.folder / "containers" / spec["name"]
    objects = {}
    for kind, name in referenced_objects(spec):
        content = await services.objects.read(kind, name)
        if content is not None:
            objects[kind, name] = content
    services.volumes.make_sub_paths(spec)
    mounted = {mount["name"] for mount in spec.get("volumeMounts", [])}
    paths = ContainerPaths(
        mounts=services.volumes.mounts(spec),
        volumes={name: path for name, path in services.volumes.paths.items() if name in mounted},
        termination_message=folder / f"termination-log-{run_number}",
    )
    arguments = build_process_arguments(
        EnvironmentInput(
            pod=services.pod,
            container=spec,
            network=services.network,
            objects=objects,
            paths=paths,
            allocatable=services.node.allocatable,
            defaults=build_default_environment(spec, services, folder),
        )
    )
    translation = PathTranslation.for_container(spec, paths)
    return RunSetup(
        container=spec,
        arguments=arguments,
        translation=translation,
        working_folder=Path(translation.translate(spec.get("workingDir") or str(folder / "home"))),
        termination_file=paths.termination_message,
    )


def build_default_environment(spec: Manifest, services: PodServices, folder: Path) -> dict[str, str]:
    options, metadata = services.node.options, services.pod["metadata"]
    home, temporary = folder / "home", folder / "tmp"
    for path in (home, temporary):
        path.mkdir(parents=True, exist_ok=True)
    mounts_tmp = any(mount["mountPath"].rstrip("/") == "/tmp" for mount in spec.get("volumeMounts", []))
    marker_name, marker = options.marker
    env = {
        "PATH": f"{os.path.dirname(sys.executable)}:{PATH_AFTER_INTERPRETER}",
        "HOME": str(home),
        "LANG": "C.UTF-8",
        # It is translated where the Pod mounts a volume there.
        "TMPDIR": "/tmp" if mounts_tmp else str(temporary),
        "HOSTNAME": services.pod["spec"].get("hostname") or metadata["name"],
        **options.container_env,
        marker_name: marker,
    }
    token_file = services.volumes.token_file(spec)
    if token_file is not None:
        kubeconfig = build_kubeconfig(options.api_address, {"tokenFile": str(token_file)}, namespace=metadata["namespace"])
        env["KUBECONFIG"] = str(save_kubeconfig(folder / "kubeconfig", kubeconfig))
    return env
