"""What a Pod gets from the process node, and its reported status, on a real control plane."""

from __future__ import annotations

import json
import re
import subprocess
from collections.abc import Callable
from typing import Any

import pytest

from ocelli_local import SyncClusterAccess
from ocelli_local.manifest import Manifest
from tests.integration.local.pods import (
    PodHandle,
    build_container,
    condition_status,
    container_status,
    terminated,
)

pytestmark = pytest.mark.cluster

RunPod = Callable[..., PodHandle]


def test_container_environment_has_fields_of_its_pod(run_pod: RunPod) -> None:
    env = [
        {"name": "NAME", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
        {"name": "ADDRESS", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}},
        {"name": "COLOR", "valueFrom": {"fieldRef": {"fieldPath": "metadata.labels['color']"}}},
        {"name": "CPUS", "valueFrom": {"resourceFieldRef": {"resource": "limits.cpu", "divisor": "1"}}},
        {"name": "BYTES", "valueFrom": {"resourceFieldRef": {"resource": "limits.memory"}}},
        {"name": "SENTENCE", "value": "$(NAME) is $(COLOR), $$(NAME)"},
    ]
    pod = run_pod(
        build_container(
            'echo "$NAME|$ADDRESS|$COLOR|$CPUS|$BYTES|$SENTENCE"',
            env=env,
            resources={"limits": {"cpu": "1500m", "memory": "64Mi"}, "requests": {"cpu": "1m", "memory": "1Mi"}},
        ),
        metadata={"labels": {"color": "red"}},
    )
    address = pod.wait_for_phase("Succeeded")["status"]["podIP"]
    assert pod.log() == f"pod|{address}|red|2|67108864|pod is red, $(NAME)\n"


def test_each_pod_has_its_own_loopback_address(run_pod: RunPod) -> None:
    pods = [run_pod(build_container("exec sleep 60"), name=name) for name in ("first", "second")]
    addresses = {pod.wait_for_phase("Running")["status"]["podIP"] for pod in pods}
    assert len(addresses) == 2
    assert all(address.startswith("127.") and address != "127.0.0.1" for address in addresses)


def test_host_network_pod_uses_the_loopback_address_of_the_machine(run_pod: RunPod) -> None:
    pod = run_pod(build_container("exec sleep 60"), hostNetwork=True)
    assert pod.wait_for_phase("Running")["status"]["podIP"] == "127.0.0.1"


@pytest.fixture
def settings(local_cluster: SyncClusterAccess, namespace: str) -> None:
    local_cluster.apply(
        [
            {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "settings"}, "data": {"mode": "fast"}},
            {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "key"}, "stringData": {"token": "s3cret"}},
        ],
        namespace=namespace,
    )


@pytest.mark.usefixtures("settings")
def test_container_environment_has_values_of_secrets_and_config_maps(run_pod: RunPod) -> None:
    pod = run_pod(
        build_container(
            'echo "$MODE $TOKEN $ALL_mode $ABSENT."',
            envFrom=[{"prefix": "ALL_", "configMapRef": {"name": "settings"}}],
            env=[
                {"name": "MODE", "valueFrom": {"configMapKeyRef": {"name": "settings", "key": "mode"}}},
                {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "key", "key": "token"}}},
                {"name": "ABSENT", "valueFrom": {"secretKeyRef": {"name": "no", "key": "no", "optional": True}}},
            ],
        )
    )
    pod.wait_for_phase("Succeeded")
    assert pod.log() == "fast s3cret fast .\n"


@pytest.mark.usefixtures("settings")
def test_volumes_are_folders_at_translated_paths(run_pod: RunPod) -> None:
    pod = run_pod(
        {
            **build_container('cat "$1" "$KEY_FILE" && echo " $POD_VOLUMES" && touch "$2/new"'),
            "args": ["sh", "/etc/settings/mode", "/scratch"],
            "env": [{"name": "KEY_FILE", "value": "/etc/key/token"}],
            "volumeMounts": [
                {"name": "settings", "mountPath": "/etc/settings"},
                {"name": "key", "mountPath": "/etc/key"},
                {"name": "scratch", "mountPath": "/scratch"},
            ],
        },
        volumes=[
            {"name": "settings", "configMap": {"name": "settings"}},
            {"name": "key", "secret": {"secretName": "key"}},
            {"name": "scratch", "emptyDir": {}},
        ],
    )
    pod.wait_for_phase("Succeeded")
    contents, _, volumes = pod.log().partition(" ")
    assert contents == "fasts3cret"
    assert {"settings", "key", "scratch"} <= set(json.loads(volumes))


def test_containers_of_a_pod_share_its_empty_dir(run_pod: RunPod) -> None:
    mounts = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}
    pod = run_pod(
        {**build_container('cat "$0"'), "args": ["/shared/word"], **mounts},
        initContainers=[{**build_container('printf hello > "$0"', name="first"), "args": ["/shared/word"], **mounts}],
        volumes=[{"name": "shared", "emptyDir": {}}],
    )
    pod.wait_for_phase("Succeeded")
    assert pod.log("-c", "main") == "hello"


def test_missing_secret_is_reported_until_it_appears(run_pod: RunPod, local_cluster: SyncClusterAccess, namespace: str) -> None:
    token = {"name": "TOKEN", "valueFrom": {"secretKeyRef": {"name": "later", "key": "token"}}}
    pod = run_pod(build_container('echo "$TOKEN"', env=[token]))
    waiting = pod.wait_until(
        "waits for its Secret",
        lambda pod: container_status(pod)["state"].get("waiting", {}).get("reason") == "CreateContainerConfigError",
    )
    assert 'secret "later" not found' in container_status(waiting)["state"]["waiting"]["message"]
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "later"}, "stringData": {"token": "here"}}
    local_cluster.apply(secret, namespace=namespace)
    pod.wait_for_phase("Succeeded")
    assert pod.log() == "here\n"


def test_kubeconfig_belongs_to_the_service_account(run_pod: RunPod, namespace: str) -> None:
    pod = run_pod(
        {
            "name": "main",
            "image": "unused",
            "command": ["python", "-c", WHO_AM_I],
        }
    )
    pod.wait_for_phase("Succeeded", "Failed")
    assert pod.log().strip() == f"system:serviceaccount:{namespace}:default"


WHO_AM_I = """
from kubernetes import client, config
config.load_kube_config()
review = client.AuthenticationV1Api().create_self_subject_review({})
print(review.status.user_info.username)
"""


def test_init_containers_run_one_by_one_before_the_containers(run_pod: RunPod) -> None:
    mounts = {"volumeMounts": [{"name": "shared", "mountPath": "/shared"}]}

    def append(word: str, name: str) -> Manifest:
        return {**build_container(f'echo {word} >> "$0"', name=name), "args": ["/shared/log"], **mounts}

    pod = run_pod(
        {**build_container('cat "$0"'), "args": ["/shared/log"], **mounts},
        initContainers=[append("one", "first"), append("two", "second")],
        volumes=[{"name": "shared", "emptyDir": {}}],
    )
    pod.wait_for_phase("Succeeded")
    assert pod.log("-c", "main") == "one\ntwo\n"


def test_failed_init_container_fails_a_pod_that_is_never_restarted(run_pod: RunPod) -> None:
    pod = run_pod(build_container("true"), initContainers=[build_container("exit 3", name="setup")])
    failed = pod.wait_for_phase("Failed")
    assert terminated(failed, "setup")["exitCode"] == 3
    assert "waiting" in container_status(failed)["state"]


def test_sidecar_runs_with_the_containers_and_ends_after_them(run_pod: RunPod) -> None:
    sidecar = build_container("echo up; exec sleep 60", name="proxy", restartPolicy="Always")
    pod = run_pod(build_container("sleep 0.2"), initContainers=[sidecar])
    done = pod.wait_for_phase("Succeeded")
    assert terminated(done)["exitCode"] == 0
    assert pod.log("-c", "proxy") == "up\n"


def test_readiness_probe_gates_ready(run_pod: RunPod) -> None:
    probe = {"exec": {"command": ["test", "-e", "/shared/ready"]}, "periodSeconds": 1}
    pod = run_pod(
        {
            **build_container('until test -e "$1/go"; do sleep 0.1; done; touch "$1/ready"; exec sleep 60'),
            "args": ["sh", "/shared"],
            "readinessProbe": probe,
            "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
        },
        {
            **build_container('sleep 1.5; touch "$1/go"; exec sleep 60', name="helper"),
            "args": ["sh", "/shared"],
            "volumeMounts": [{"name": "shared", "mountPath": "/shared"}],
        },
        volumes=[{"name": "shared", "emptyDir": {}}],
    )
    running = pod.wait_until("runs", lambda pod: container_status(pod)["state"].get("running"))
    assert not container_status(running)["ready"]
    assert condition_status(running, "Ready") == "False"
    assert container_status(pod.wait_until_ready())["ready"]


def build_server(**fields: Any) -> Manifest:
    """A container with a web server, half a second after its start."""
    return {
        **build_container('sleep 0.5; exec python -m http.server 8080 --bind "$POD_IP"'),
        "env": [{"name": "POD_IP", "valueFrom": {"fieldRef": {"fieldPath": "status.podIP"}}}],
        "ports": [{"name": "http", "containerPort": 8080}],
        **fields,
    }


def test_http_probe_uses_the_pods_address(run_pod: RunPod) -> None:
    startup = {"httpGet": {"port": "http", "path": "/"}, "periodSeconds": 1, "failureThreshold": 20}
    pod = run_pod(build_server(startupProbe=startup, readinessProbe={"tcpSocket": {"port": 8080}}))
    assert container_status(pod.wait_until_ready())["started"] is True


def test_a_server_is_started_as_soon_as_it_answers(run_pod: RunPod) -> None:
    # The first probe fails, and this test gives up before the second one.
    pod = run_pod(build_server(startupProbe={"tcpSocket": {"port": 8080}, "periodSeconds": 60}))
    assert container_status(pod.wait_until_ready())["started"] is True


def test_failed_liveness_probe_restarts_the_container(run_pod: RunPod) -> None:
    pod = run_pod(
        build_container(
            "exec sleep 60",
            livenessProbe={"exec": {"command": ["false"]}, "periodSeconds": 1, "failureThreshold": 1},
        ),
        restartPolicy="Always",
    )
    restarted = pod.wait_until("was restarted", lambda pod: container_status(pod)["restartCount"] >= 1)
    assert container_status(restarted)["lastState"]["terminated"]["exitCode"] == 143


def test_exit_code_and_termination_message_are_reported(run_pod: RunPod) -> None:
    script = 'printf "%5000s" x > "$TERMINATION_MESSAGE_PATH"; exit 7'
    state = terminated(run_pod(build_container(script)).wait_for_phase("Failed"))
    assert (state["exitCode"], state["reason"]) == (7, "Error")
    assert len(state["message"]) == 4096


def test_termination_message_path_is_translated(run_pod: RunPod) -> None:
    container = {
        **build_container('echo done > "$FILE"'),
        "env": [{"name": "FILE", "value": "/dev/termination-log"}],
    }
    assert terminated(run_pod(container).wait_for_phase("Succeeded"))["message"] == "done\n"


def test_termination_message_falls_back_to_the_log(run_pod: RunPod) -> None:
    container = build_container("echo broken; exit 1", terminationMessagePolicy="FallbackToLogsOnError")
    assert terminated(run_pod(container).wait_for_phase("Failed"))["message"] == "broken\n"


def test_missing_command_is_a_start_error(run_pod: RunPod) -> None:
    container = {"name": "main", "image": "unused", "command": ["no-such-program"]}
    state = terminated(run_pod(container).wait_for_phase("Failed"))
    assert (state["reason"], state["exitCode"]) == ("StartError", 128)
    assert "no-such-program" in state["message"]


def test_container_above_its_memory_limit_is_killed(run_pod: RunPod) -> None:
    container = {
        "name": "main",
        "image": "unused",
        # In a grandchild: all descendants count.
        "command": ["sh", "-c", "python -c 'import time; held = b\"x\" * 200_000_000; time.sleep(60)'; exit 0"],
        "resources": {"limits": {"memory": "100Mi"}, "requests": {"memory": "1Mi"}},
    }
    state = terminated(run_pod(container).wait_for_phase("Failed"))
    assert (state["exitCode"], state["reason"]) == (137, "OOMKilled")


def test_second_restart_waits_in_back_off(run_pod: RunPod) -> None:
    pod = run_pod(build_container("echo run; exit 1"), restartPolicy="Always")
    waiting = pod.wait_until(
        "is in CrashLoopBackOff",
        lambda pod: container_status(pod)["state"].get("waiting", {}).get("reason") == "CrashLoopBackOff",
    )
    status = container_status(waiting)
    # The first restart was immediate.
    assert status["restartCount"] == 1
    assert status["lastState"]["terminated"]["exitCode"] == 1
    assert waiting["status"]["phase"] == "Running"
    assert pod.log("--previous") == "run\n"


def test_deleted_pod_gets_its_hook_and_sigterm_within_its_grace_period(
    run_pod: RunPod, local_cluster: SyncClusterAccess, namespace: str
) -> None:
    script = "trap 'echo term; sleep 0.3; echo bye; exit 0' TERM; echo up; while true; do sleep 0.1; done"
    hook = {"preStop": {"exec": {"command": ["sh", "-c", "sleep 0.3"]}}}
    pod = run_pod(build_container(script, lifecycle=hook))
    pod.wait_for_log("up")
    follower = follow_log(local_cluster, namespace)
    pod.delete()
    pod.wait_until_gone()
    assert follower.communicate(timeout=10)[0] == "up\nterm\nbye\n"


def test_process_that_ignores_sigterm_is_killed_after_its_grace_period(run_pod: RunPod) -> None:
    pod = run_pod(build_container("trap '' TERM; echo up; while true; do sleep 0.1; done"))
    pod.wait_for_log("up")
    pod.delete("--grace-period=1")
    pod.wait_until_gone(timeout_seconds=5)


def test_processes_that_left_the_session_end_with_the_container(run_pod: RunPod) -> None:
    pod = run_pod(build_container("setsid sleep 4321.5 & sleep 0.3; exit 0"))
    pod.wait_for_phase("Succeeded")
    assert subprocess.run(["pgrep", "-f", "sleep 4321.5"], capture_output=True, check=False).returncode == 1


def test_active_deadline_ends_the_pod(run_pod: RunPod) -> None:
    pod = run_pod(build_container("exec sleep 60"), activeDeadlineSeconds=1)
    assert pod.wait_for_phase("Failed")["status"]["reason"] == "DeadlineExceeded"


def test_logs_can_be_followed(run_pod: RunPod, local_cluster: SyncClusterAccess, namespace: str) -> None:
    pod = run_pod(build_container("for i in 1 2 3; do echo line $i; sleep 0.3; done"))
    pod.wait_for_log("line 1")
    assert follow_log(local_cluster, namespace).communicate(timeout=10)[0] == "line 1\nline 2\nline 3\n"


def test_logs_can_be_limited_and_have_timestamps(run_pod: RunPod) -> None:
    pod = run_pod(build_container("for i in 1 2 3; do echo line $i; done"))
    pod.wait_for_phase("Succeeded")
    assert pod.log("--tail=1") == "line 3\n"
    assert re.fullmatch(r"\d{4}-\d\d-\d\dT[\d:.]+Z line 3\n", pod.log("--tail=1", "--timestamps"))


@pytest.mark.parametrize(
    ("spec", "container", "fact"),
    [
        ({"volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}]}, {}, "persistentVolumeClaim"),
        ({"volumes": [{"name": "data", "hostPath": {"path": "/data"}}]}, {}, "hostPath"),
        ({}, {"securityContext": {"privileged": True}}, "privileged"),
        ({}, {"command": None}, "no command"),
    ],
    ids=["claim", "host path", "privileged", "no command"],
)
def test_pod_with_unsupported_settings_is_refused_by_name(
    run_pod: RunPod, namespace: str, spec: Manifest, container: Manifest, fact: str
) -> None:
    pod = run_pod({**build_container("true"), **container}, **spec)
    message: Any = pod.wait_for_phase("Failed")["status"]["message"]
    assert message.startswith(f"Pod {namespace}/pod: ")
    assert fact in message
    assert pod.wait_for_event("RefusedByProcessNode")["message"] == message


def follow_log(cluster: SyncClusterAccess, namespace: str) -> subprocess.Popen[str]:
    return cluster.start_kubectl("logs", "-n", namespace, "-f", "pod")
