"""Which Pods get a GPU: by the spec, by what the installation and its nodes offer, and when nodes change."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from ocelli_api.classifier import Accelerator, parse_spec
from ocelli_api.conditions import ConditionType
from ocelli_api.lifecycle import Lifecycle, lifecycle
from ocelli_api.outcome import OutcomeReason
from ocelli_api.pods import ACCELERATOR_LABEL, Component
from ocelli_operator.actions import StartTraining
from ocelli_operator.manifests.placement import GpuOffer, placement_hash, resolve_accelerator
from ocelli_operator.manifests.pod import build_resources
from ocelli_operator.observed import ChildKind, GpuNode, project_gpu_node
from ocelli_operator.plan import Plan
from tests.unit.operator.factories import World, find_applied, make_job, make_outcome, make_pod, make_settings, make_spec

GPU_IMAGES = {"OCELLI_TRAINER_GPU_IMAGE": "trainer:cuda", "OCELLI_INFERENCE_GPU_IMAGE": "inference:cuda"}
RESERVED = {"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}
SPOT = {"key": "spot", "value": "yes", "effect": "NoExecute"}
TOLERATES_SPOT = {"key": "spot", "operator": "Equal", "value": "yes"}


def make_node(*taints: dict[str, str], **labels: str) -> GpuNode:
    return GpuNode(labels=labels, taints=taints)


NODE = make_node()


def resolve(
    *nodes: GpuNode, image: str = "trainer:cuda", kept: Accelerator | None = None, training: Any = None, **settings: str
) -> str:
    offer = GpuOffer(image=image, gpu=make_settings(**settings).gpu, nodes=nodes)
    return resolve_accelerator(parse_spec(make_spec(training=training or {})).training, offer, kept)


@pytest.mark.parametrize(
    ("nodes", "training", "settings", "expected"),
    [
        ([], {}, {}, "CPU"),
        ([NODE], {}, {}, "GPU"),
        ([NODE], {}, {"image": ""}, "CPU"),
        ([NODE], {"accelerator": "CPU"}, {}, "CPU"),
        ([], {"accelerator": "GPU"}, {}, "GPU"),
        ([], {"resources": {"limits": {"nvidia.com/gpu": 2}}}, {}, "GPU"),
        ([], {"resources": {"limits": {"nvidia.com/gpu": 0}}}, {}, "CPU"),
        ([NODE], {"resources": {"limits": {"nvidia.com/gpu": 0}}}, {}, "CPU"),
        ([NODE], {"resources": {"limits": {"nvidia.com/gpu": "0k"}}}, {}, "CPU"),
        ([NODE], {"accelerator": "GPU", "resources": {"limits": {"nvidia.com/gpu": 0}}}, {}, "CPU"),
        ([], {"resources": {"requests": {"nvidia.com/gpu": 2}}}, {}, "GPU"),
        ([], {"resources": {"limits": {"nvidia.com/mig-1g.10gb": 1}}}, {}, "GPU"),
        ([], {"resources": {"limits": {"amd.com/gpu": 1}}}, {}, "CPU"),
        ([make_node(RESERVED)], {}, {}, "GPU"),
        ([make_node(SPOT)], {}, {}, "CPU"),
        ([make_node(SPOT), NODE], {}, {}, "GPU"),
        ([make_node(SPOT)], {"tolerations": [TOLERATES_SPOT]}, {}, "GPU"),
        ([make_node(SPOT)], {"tolerations": [{**TOLERATES_SPOT, "value": "no"}]}, {}, "CPU"),
        ([make_node(SPOT)], {"tolerations": [{**TOLERATES_SPOT, "effect": "NoSchedule"}]}, {}, "CPU"),
        ([make_node(SPOT)], {"tolerations": [{"operator": "Exists"}]}, {}, "GPU"),
        ([make_node(SPOT)], {}, {"OCELLI_GPU_TOLERATIONS": '[{"key": "spot", "operator": "Exists"}]'}, "GPU"),
        ([NODE], {"nodeSelector": {"zone": "a"}}, {}, "CPU"),
        ([make_node(zone="a")], {"nodeSelector": {"zone": "a"}}, {}, "GPU"),
        ([NODE], {}, {"OCELLI_GPU_NODE_SELECTOR": '{"pool": "gpu"}'}, "CPU"),
        ([], {}, {"kept": Accelerator.GPU}, "GPU"),
        ([NODE], {}, {"kept": Accelerator.CPU}, "CPU"),
        ([NODE], {}, {"kept": Accelerator.GPU, "image": ""}, "CPU"),
        ([NODE], {"accelerator": "GPU"}, {"kept": Accelerator.CPU}, "GPU"),
    ],
)
def test_which_pods_get_a_gpu(nodes: list[GpuNode], training: dict[str, Any], settings: dict[str, Any], expected: str) -> None:
    assert resolve(*nodes, training=training, **settings) == expected


@pytest.mark.parametrize(
    ("resources", "accelerator", "limits"),
    [
        ({}, "GPU", {"nvidia.com/gpu": "1"}),
        ({}, "CPU", {}),
        ({"requests": {"cpu": 1}}, "GPU", {"nvidia.com/gpu": "1"}),
        ({"limits": {"nvidia.com/gpu": 2}}, "GPU", {"nvidia.com/gpu": 2}),
        ({"requests": {"nvidia.com/gpu": 2}}, "GPU", {"nvidia.com/gpu": 2}),
        ({"requests": {"nvidia.com/gpu": 0}}, "CPU", {"nvidia.com/gpu": 0}),
        ({"limits": {"nvidia.com/mig-1g.10gb": 1}}, "GPU", {"nvidia.com/mig-1g.10gb": 1}),
        ({"limits": {"amd.com/gpu": 1}}, "GPU", {"amd.com/gpu": 1, "nvidia.com/gpu": "1"}),
    ],
)
def test_how_many_gpus_a_program_gets(resources: dict[str, Any], accelerator: str, limits: dict[str, Any]) -> None:
    built = build_resources(resources, make_settings().gpu, Accelerator(accelerator))
    assert built.get("limits", {}) == limits


def test_servers_without_a_gpu_keep_the_hash_of_earlier_releases() -> None:
    gpu = make_settings().gpu
    plain = parse_spec(make_spec()).serving
    sent = {"accelerator": "Auto", "nodeSelector": {"zone": "a"}, "resources": {"limits": {"cpu": 2}}}
    assert placement_hash(plain, gpu) == "9be998b544f12fe3"
    assert placement_hash(parse_spec(make_spec(serving=sent)).serving, gpu) == "2f4f9f2c6f03c3c7"


@pytest.mark.parametrize(
    ("allocatable", "spec", "counts"),
    [
        ({"nvidia.com/gpu": "8"}, {}, True),
        ({"nvidia.com/gpu": "0"}, {}, False),
        ({"amd.com/gpu": "8"}, {}, False),
        ({"nvidia.com/gpu": "8"}, {"unschedulable": True}, False),
    ],
)
def test_which_nodes_have_gpus(allocatable: dict[str, str], spec: dict[str, Any], counts: bool) -> None:
    manifest = {"metadata": {"name": "node-1"}, "spec": spec, "status": {"allocatable": allocatable}}
    assert (project_gpu_node(manifest, "nvidia.com/gpu") is not None) is counts


def test_a_taint_with_prefer_no_schedule_does_not_repel_a_pod() -> None:
    manifest = {
        "metadata": {"name": "node-1"},
        "spec": {"taints": [{"key": "a", "effect": "PreferNoSchedule"}, {"key": "b", "effect": "NoSchedule"}]},
        "status": {"allocatable": {"nvidia.com/gpu": "1"}},
    }
    node = project_gpu_node(manifest, "nvidia.com/gpu")
    assert node is not None
    assert [taint["key"] for taint in node.taints] == ["b"]


def make_world(*nodes: GpuNode, offered: bool = True, **spec: Any) -> World:
    world = World(**spec)
    world.settings = make_settings(**GPU_IMAGES if offered else {})
    world.see(gpu_nodes=nodes)
    return world


def pass_check(world: World) -> None:
    """The check before the training has ended, and the data suffices."""
    world.see(check=make_outcome(world.observed.classifier, OutcomeReason.SUCCEEDED, "24 images"))


def serve(world: World) -> World:
    world.step()
    world.learn()
    world.settle()
    return world


def make_first_rollout(accelerator: str) -> World:
    world = make_world(NODE, serving={"accelerator": accelerator})
    world.step()
    world.learn()
    return world


def message_of(plan: Plan, condition_type: ConditionType) -> str:
    condition = plan.status.condition(condition_type)
    assert condition is not None
    return f"{condition.reason}: {condition.message}"


def started_on(plan: Plan) -> str | None:
    """Image and GPUs of the Job that starts."""
    for action in plan.actions:
        if isinstance(action, StartTraining):
            (container,) = action.manifest["spec"]["template"]["spec"]["containers"]
            gpus = container["resources"]["limits"].get("nvidia.com/gpu", "no")
            return f"{container['image']}, {gpus} GPU"
    return None


def accelerators(world: World) -> list[str | None]:
    return [item.accelerator for item in world.observed.deployments]


class TestTraining:
    def test_auto_uses_a_gpu_if_a_node_has_one(self) -> None:
        world = make_world(NODE)
        assert started_on(world.step()) == "ocelli-trainer:latest, no GPU"
        pass_check(world)
        assert started_on(world.plan()) == "trainer:cuda, 1 GPU"
        assert started_on(make_world().plan()) == "ocelli-trainer:latest, no GPU"

    def test_auto_uses_no_gpu_for_a_pretrained_classifier(self) -> None:
        world = make_world(NODE)
        pretrained = parse_spec({"pretrained": {"weights": {"torchvision": "ResNet18_Weights.IMAGENET1K_V1"}}})
        world.see(classifier=replace(world.observed.classifier, spec=pretrained))
        assert started_on(world.plan()) == "ocelli-trainer:latest, no GPU"

    @pytest.mark.parametrize("nodes", [(), (NODE,)])
    def test_an_existing_job_is_kept_when_nodes_change(self, nodes: tuple[GpuNode, ...]) -> None:
        world = make_world(*nodes)
        world.step()
        world.see(jobs=(make_job(world.observed.classifier),), gpu_nodes=() if nodes else (NODE,))
        assert world.plan().actions == ()

    def test_a_missing_gpu_names_the_setting_and_trains_once_it_is_set(self) -> None:
        world = make_world(offered=False, training={"accelerator": "GPU"})
        plan = world.step()
        assert started_on(plan) is None
        message = message_of(plan, ConditionType.STALLED)
        assert message.startswith("GPUNotOffered: Classifier team-a/dogs: spec.training requests a GPU")
        assert "OCELLI_TRAINER_GPU_IMAGE" in message
        assert lifecycle(world.observed.classifier) is Lifecycle.FAILED
        before = world.status
        assert world.step().status == before
        world.settings = make_settings(**GPU_IMAGES)
        plan = world.step()
        assert started_on(plan) == "ocelli-trainer:latest, no GPU"
        pass_check(world)
        assert started_on(world.plan()) == "trainer:cuda, 1 GPU"
        assert (plan.status.condition(ConditionType.STALLED), plan.status.attempt) == (None, 1)

    def test_a_pod_that_waits_for_a_gpu_quotes_the_scheduler_with_a_remedy(self) -> None:
        world = make_world(NODE)
        world.step()
        sentence = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
        waiting = make_pod(Component.TRAINING, world.revision, phase="Pending", unschedulable=sentence, gpu=True)
        world.see(jobs=(make_job(world.observed.classifier),), pods=(waiting,))
        message = message_of(world.plan(), ConditionType.READY)
        assert message.startswith("Unschedulable: ")
        assert "1 Insufficient nvidia.com/gpu; " in message
        assert message.endswith(", or set spec.training.accelerator to CPU")


class TestServing:
    def test_servers_use_no_gpu_by_default(self) -> None:
        assert accelerators(serve(make_world(NODE))) == ["CPU"]

    @pytest.mark.parametrize(("nodes", "chosen"), [((), "CPU"), ((NODE,), "GPU")])
    def test_the_choice_of_auto_stays_when_nodes_change(self, nodes: tuple[GpuNode, ...], chosen: str) -> None:
        world = serve(make_world(*nodes, serving={"accelerator": "Auto"}))
        assert accelerators(world) == [chosen]
        world.see(gpu_nodes=() if nodes else (NODE,))
        assert world.plan().actions == ()

    def test_auto_chooses_again_for_the_next_revision(self) -> None:
        world = serve(make_world(serving={"accelerator": "Auto"}))
        world.see(gpu_nodes=(NODE,))
        world.edit(model={"seed": 1}, serving={"accelerator": "Auto"})
        world.step()
        world.learn()
        plan = world.step(available=False)
        (applied,) = find_applied(plan, ChildKind.DEPLOYMENT)
        assert applied["metadata"]["labels"][ACCELERATOR_LABEL] == "GPU"
        assert sorted(str(item) for item in accelerators(world)) == ["CPU", "GPU"]

    @pytest.mark.parametrize("serving", [{"accelerator": "Auto"}, {"accelerator": "GPU"}])
    def test_requesting_a_gpu_rolls_out_without_a_training(self, serving: dict[str, str]) -> None:
        world = serve(make_world(NODE))
        world.edit(serving=serving)
        world.learn()
        plan = world.step()
        assert started_on(plan) is None
        (applied,) = find_applied(plan, ChildKind.DEPLOYMENT)
        assert applied["spec"]["template"]["spec"]["containers"][0]["image"] == "inference:cuda"
        assert lifecycle(world.observed.classifier) is Lifecycle.READY

    def test_auto_chooses_again_if_the_placement_changes(self) -> None:
        world = serve(make_world(NODE, serving={"accelerator": "Auto"}))
        world.edit(serving={"accelerator": "Auto", "nodeSelector": {"zone": "a"}})
        world.learn()
        world.step()
        assert accelerators(world) == ["CPU"]

    @pytest.mark.parametrize(("named", "nodes", "before", "after"), [(2, (), "GPU", "CPU"), (0, (NODE,), "CPU", "GPU")])
    def test_auto_chooses_again_if_resources_no_longer_name_gpus(
        self, named: int, nodes: tuple[GpuNode, ...], before: str, after: str
    ) -> None:
        resources = {"limits": {"nvidia.com/gpu": named}}
        world = serve(make_world(*nodes, serving={"accelerator": "Auto", "resources": resources}))
        assert accelerators(world) == [before]
        world.edit(serving={"accelerator": "Auto"})
        world.learn()
        world.settle()
        assert accelerators(world) == [after]

    def test_requesting_the_gpu_that_auto_chose_replaces_no_server(self) -> None:
        (before,), (after,) = (
            find_applied(make_first_rollout(accelerator).plan(), ChildKind.DEPLOYMENT) for accelerator in ("Auto", "GPU")
        )
        assert before["metadata"]["labels"][ACCELERATOR_LABEL] == "GPU"
        assert before["spec"] == after["spec"]

    def test_a_missing_gpu_keeps_the_running_servers(self) -> None:
        world = serve(make_world(offered=False))
        world.edit(serving={"accelerator": "GPU", "replicas": 2})
        world.learn()
        plan = world.step()
        assert find_applied(plan, ChildKind.DEPLOYMENT) == []
        assert "OCELLI_INFERENCE_GPU_IMAGE" in message_of(plan, ConditionType.READY)
        assert plan.status.is_true(ConditionType.AVAILABLE)
        assert lifecycle(world.observed.classifier) is Lifecycle.READY

    def test_a_first_rollout_stalls_until_a_gpu_is_offered(self) -> None:
        world = make_world(offered=False, serving={"accelerator": "GPU"})
        world.step()
        world.learn()
        plan = world.step()
        assert message_of(plan, ConditionType.STALLED).startswith(
            f"GPUNotOffered: Deployment dogs-{world.revision}: spec.serving"
        )
        assert find_applied(plan, ChildKind.DEPLOYMENT) == []
        world.settings = make_settings(**GPU_IMAGES)
        world.settle()
        assert accelerators(world) == ["GPU"]

    def test_a_rollout_without_a_free_gpu_is_retried_on_a_cpu_once_no_node_has_gpus(self) -> None:
        world = make_world(NODE, serving={"accelerator": "Auto"})
        world.step()
        world.learn()
        world.step(available=False)
        world.see(deployments=tuple(replace(item, deadline_exceeded=True) for item in world.observed.deployments))
        world.settle()
        assert message_of(world.plan(), ConditionType.STALLED).startswith("RolloutFailed")
        world.see(gpu_nodes=())
        world.settle()
        assert accelerators(world) == ["CPU"]

    def test_a_pod_that_waits_for_a_gpu_quotes_the_scheduler_with_a_remedy(self) -> None:
        world = make_world(NODE, serving={"accelerator": "GPU"})
        world.step()
        world.learn()
        world.step(available=False)
        sentence = "0/1 nodes are available: 1 Insufficient nvidia.com/gpu."
        world.see(pods=(make_pod(Component.INFERENCE, world.revision, ready=False, unschedulable=sentence, gpu=True),))
        message = message_of(world.plan(), ConditionType.READY)
        assert message.startswith("Unschedulable: ")
        assert "1 Insufficient nvidia.com/gpu; " in message
        assert message.endswith(", or set spec.serving.accelerator to CPU")
