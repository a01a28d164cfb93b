"""The processes of an instance that `make run` started, and the memory that they have."""

from __future__ import annotations

from pathlib import Path


def find_processes(state_dir: Path, module: str) -> list[int]:
    """The ids of those that run a module, such as `ocelli_inference`, for the instance with this state."""
    store = f"OCELLI_STORE_URL=file://{state_dir}/".encode()
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        try:
            command, environment = (folder / "cmdline").read_bytes(), (folder / "environ").read_bytes()
        except OSError:
            continue
        arguments = command.split(b"\0")
        if arguments[1:] == [b"-m", module.encode(), b""] and store in environment:
            found.append(int(folder.name))
    return found


def memory_megabytes(process_id: int, field: str) -> float:
    """A figure of /proc/PID/status: `VmRSS`, the resident memory, or `VmHWM`, its peak."""
    status = Path(f"/proc/{process_id}/status").read_text()
    line = next(line for line in status.splitlines() if line.startswith(f"{field}:"))
    return int(line.split()[1]) / 1024
