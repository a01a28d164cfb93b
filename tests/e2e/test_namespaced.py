"""An installation without a cluster-wide right: for one namespace, over a bucket whose credentials differ, and with GPUs.

The node's GPU exists in name only: kubelet and scheduler accept it, and the trainer finds none.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest

from tests.e2e.cluster import NAMESPACE, OTHER_NAMESPACE, SYSTEM_NAMESPACE, Cluster
from tests.e2e.conftest import NEW_CLUSTER, connect
from tests.e2e.pods import build_server
from tests.e2e.slow_source import SlowSource
from tests.go_programs import GoMissingError
from tests.integration.storage.conftest import ADMINISTRATOR, VERSITYGW, BucketServer
from tests.product.classifiers import create, wait_for_status
from tests.product.instance import Document, Ocelli, wait_for

BUCKET_NAMESPACE = "ocelli-e2e-bucket"
BUCKET_IMAGE = "ocelli-e2e-bucket:test"
BUCKET = "models"
PREFIX = "production"
TENANT = ("tenant", "secret-of-the-tenant")
GPU = "example.com/gpu"


@pytest.fixture(scope="module")
def bucket(new_cluster: Cluster) -> Iterator[BucketServer]:
    """versitygw in a Pod, with a user that may open one tenant's part."""
    try:
        program = VERSITYGW.find_or_build(os.environ)
    except GoMissingError as error:
        pytest.skip(str(error))
    load_image(new_cluster, program)
    new_cluster.create_namespaces(BUCKET_NAMESPACE)
    try:
        manifest = {"apiVersion": "v1", "kind": "List", "items": build_bucket()}
        new_cluster.run("kubectl", "apply", "-f", "-", input_text=json.dumps(manifest))
        new_cluster.run("kubectl", "wait", "--for=condition=Ready", "pod/bucket", f"--namespace={BUCKET_NAMESPACE}")
        server = BucketServer(
            program=program, url=new_cluster.address("bucket", BUCKET_NAMESPACE), folder=Path("/data/buckets")
        )
        wait_for("its Service leads to it", lambda: answers(server.url))
        server.create_user(*TENANT)
        server.put_policy(BUCKET, build_policy())
        yield server
    finally:
        new_cluster.run("kubectl", "delete", "namespace", BUCKET_NAMESPACE)


def answers(url: str) -> bool:
    with contextlib.suppress(httpx.TransportError):
        return httpx.get(url, timeout=5).status_code < 500
    return False


def load_image(cluster: Cluster, program: Path) -> None:
    """An image with the program, based on an existing one: nothing is pulled."""
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / "versitygw").write_bytes(program.read_bytes())
        (Path(folder) / "versitygw").chmod(0o755)
        text = f"FROM {cluster.prefix}store:{cluster.tag}\nCOPY versitygw /usr/local/bin/versitygw\n"
        (Path(folder) / "Dockerfile").write_text(text)
        cluster.run("docker", "build", "--quiet", "-t", BUCKET_IMAGE, folder)
    cluster.run("kind", "load", "docker-image", "--name", NEW_CLUSTER, BUCKET_IMAGE)


def build_bucket() -> list[Document]:
    login = f"--access {ADMINISTRATOR[0]} --secret {ADMINISTRATOR[1]}"
    serve = f"versitygw --port :7070 {login} --iam-dir /data/users posix /data/buckets"
    container = {
        "image": BUCKET_IMAGE,
        "command": ["sh", "-c", f"mkdir -p /data/users /data/buckets/{BUCKET} && exec {serve}"],
    }
    return build_server({"name": "bucket", "namespace": BUCKET_NAMESPACE}, 7070, container, {"emptyDir": {}}, "/data")


def build_policy() -> str:
    objects = f"arn:aws:s3:::{BUCKET}/{PREFIX}"
    statements = [
        {"Action": ["s3:GetObject", "s3:PutObject", "s3:DeleteObject"], "Resource": f"{objects}/tenants/{NAMESPACE}/*"},
        {"Action": ["s3:GetObject"], "Resource": f"{objects}/backbones/*"},
    ]
    allowed = [{"Effect": "Allow", "Principal": {"AWS": [TENANT[0]]}, **statement} for statement in statements]
    return json.dumps({"Version": "2012-10-17", "Statement": allowed})


@pytest.fixture(scope="module")
def namespaced(new_cluster: Cluster, bucket: BucketServer, samples: Path) -> Iterator[Ocelli]:
    """The installation, trained and asked once by `helm test`."""
    inside = f"http://bucket.{BUCKET_NAMESPACE}.svc:7070"
    try:
        new_cluster.create_namespaces(SYSTEM_NAMESPACE, NAMESPACE, OTHER_NAMESPACE)
        for namespace, name, login in ((SYSTEM_NAMESPACE, "bucket", ADMINISTRATOR), (NAMESPACE, "bucket-tenant", TENANT)):
            variables = {**bucket.environment(*login), "AWS_ENDPOINT_URL": inside}
            secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": name, "namespace": namespace}}
            new_cluster.run("kubectl", "apply", "-f", "-", input_text=json.dumps({**secret, "stringData": variables}))
        new_cluster.install_and_test(
            *("gateway.service.type=NodePort", f"namespaces={{{NAMESPACE}}}", "gateway.replicas=1"),
            *("store.mode=bucket", f"store.bucket.url=s3://{BUCKET}/{PREFIX}"),
            *("store.bucket.secretName=bucket", "store.bucket.tenantSecretName=bucket-tenant"),
            *("gpu.enabled=true", f"gpu.resource={GPU}", f"gpu.imageTag={new_cluster.tag}"),
        )
        yield connect(new_cluster.kubeconfig, new_cluster.address(), samples)
    finally:
        new_cluster.remove()


def build_classifier(source: SlowSource, name: str) -> Document:
    classes = [{"name": digit, "examples": [{"url": source.url(f"{digit}.zip")}]} for digit in ("zero", "one")]
    document = {"apiVersion": "ocelli.dev/v1alpha1", "kind": "Classifier", "metadata": {"name": name}}
    return {**document, "spec": {"classes": classes}}


def test_it_has_no_cluster_wide_rights(namespaced: Ocelli) -> None:
    assert (
        namespaced.kubectl("get", "clusterroles,clusterrolebindings", "-l", "app.kubernetes.io/part-of=ocelli", "-o", "name")
        == ""
    )


def test_classifiers_are_created_and_answer_by_rest(namespaced: Ocelli) -> None:
    with namespaced.client() as client:
        identity = create(client, namespaced)
        wait_for_status(client, identity)
        image = (namespaced.samples / "test-one.png").read_bytes()
        answer = client.post("/v3/classify", data={"classifier_ids": identity}, files={"images_file": image})
        assert client.delete(f"/v3/classifiers/{identity}").status_code == 200
    (classifier,) = answer.json()["images"][0]["classifiers"]
    assert [scored["class"] for scored in classifier["classes"]] == ["one"]


def test_a_classifier_of_another_namespace_is_ignored(namespaced: Ocelli) -> None:
    with SlowSource(namespaced) as source:
        elsewhere = ("classifier/elsewhere", f"--namespace={OTHER_NAMESPACE}")
        document = json.dumps(build_classifier(source, "elsewhere"))
        namespaced.kubectl("apply", f"--namespace={OTHER_NAMESPACE}", "-f", "-", input_text=document)
        namespaced.apply(build_classifier(source, "here"))
        try:
            namespaced.kubectl("wait", "--for=condition=Ready", "classifier/here", "--timeout=100s")
            assert namespaced.kubectl("get", *elsewhere, "-o", "jsonpath={.status.conditions}") == ""
        finally:
            namespaced.kubectl("delete", *elsewhere)
            namespaced.kubectl("delete", "classifier/here")


def test_a_missing_secret_of_a_namespace_is_named_and_awaited(namespaced: Ocelli) -> None:
    secret = namespaced.kubectl("get", "secret/bucket-tenant", "-o", "json")
    namespaced.kubectl("delete", "secret/bucket-tenant")
    with SlowSource(namespaced) as source:
        namespaced.apply(build_classifier(source, "without"))
        try:
            words = 'secret "bucket-tenant" not found'
            wait_for("it is named", lambda: words in read_message(namespaced, "without", "Training"))
        finally:
            namespaced.kubectl("create", "-f", "-", input_text=secret)
        namespaced.kubectl("wait", "--for=condition=Ready", "classifier/without", "--timeout=100s")
        namespaced.kubectl("delete", "classifier/without")


@pytest.fixture(scope="module")
def messages(namespaced: Ocelli) -> Iterator[dict[str, str]]:
    """The condition `Ready` of a training that needs a GPU, before and after a node offers one."""
    with SlowSource(namespaced) as source:
        document = build_classifier(source, "on-gpu")
        document["spec"]["training"] = {"accelerator": "GPU"}
        namespaced.apply(document)
        try:
            before = wait_for("it is unschedulable", lambda: read_message(namespaced, "on-gpu", "Unschedulable"), 60)
            offer_gpu(namespaced)
            after = wait_for("it ran there", lambda: read_message(namespaced, "on-gpu", "TrainingFailed"), 60)
            limits = "{.items[*].spec.containers[*].resources.limits['example\\.com/gpu']}"
            pods = ("get", "pods", "-l", "ocelli.dev/classifier=on-gpu,ocelli.dev/accelerator=GPU")
            yield {"before": before, "after": after, "limits": namespaced.kubectl(*pods, "-o", f"jsonpath={limits}")}
        finally:
            namespaced.kubectl("delete", "classifier/on-gpu")


def read_message(ocelli: Ocelli, name: str, reason: str) -> str:
    conditions = json.loads(ocelli.kubectl("get", f"classifier/{name}", "-o", "json")).get("status", {}).get("conditions", [])
    return next((item["message"] for item in conditions if (item["type"], item["reason"]) == ("Ready", reason)), "")


def offer_gpu(ocelli: Ocelli) -> None:
    """As a device plugin would, by name only."""
    node = ocelli.kubectl("get", "nodes", "-o", "jsonpath={.items[0].metadata.name}")
    patch = {"status": {"capacity": {GPU: "1"}, "allocatable": {GPU: "1"}}}
    ocelli.kubectl("patch", "node", node, "--subresource=status", "--type=merge", "-p", json.dumps(patch))


def test_a_training_that_needs_a_gpu_waits_with_the_schedulers_message(messages: dict[str, str]) -> None:
    assert f"Insufficient {GPU}" in messages["before"]


def test_a_node_that_offers_a_gpu_runs_the_training(messages: dict[str, str]) -> None:
    assert messages["limits"] == "1"


def test_a_trainer_reports_that_an_offered_gpu_is_missing(messages: dict[str, str]) -> None:
    assert "the accelerator is GPU, but PyTorch finds no GPU" in messages["after"]
