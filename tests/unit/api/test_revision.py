"""Which changes of a spec make another revision, and which do not."""

from __future__ import annotations

from dataclasses import replace

import pytest

from ocelli_api.classifier import (
    Accelerator,
    Approval,
    Classifier,
    ClassifierSpec,
    Correction,
    Evaluation,
    ExampleClass,
    ModelRecipe,
    PackagedWeightsName,
    Promotion,
    SecretReference,
    Serving,
    Source,
    Strategy,
    Training,
    parse_spec,
)
from ocelli_api.classifier_status import ClassifierStatus, ObservedSources
from ocelli_api.polled_sources import find_polled_urls, hash_addresses, needs_poll, parse_interval
from ocelli_api.revision import current_revision, definition, find_upload_digests, spec_revision, training_hash


def make_spec(*sources: Source, **changes: object) -> ClassifierSpec:
    examples = sources or (Source(url="https://data.example.com/beagle.zip"),)
    classes = (
        ExampleClass(name="beagle", examples=examples),
        ExampleClass(name="husky", examples=(Source(url="https://data.example.com/husky.zip", sha256="b" * 64),)),
    )
    return replace(ClassifierSpec(classes=classes), **changes)  # type: ignore[arg-type]


def make_classifier(seen: ObservedSources | None = None, **changes: object) -> Classifier:
    return Classifier(
        namespace="team-a",
        name="dogs",
        uid="1",
        generation=1,
        resource_version="1",
        created_at="",
        deleted=False,
        labels={},
        annotations={},
        spec=make_spec(**changes),
        status=ClassifierStatus(observed_sources=seen),
    )


def make_seen(digest: str | None, *, addresses: str | None = None) -> ObservedSources:
    urls = find_polled_urls(SPEC)
    return ObservedSources(addresses=hash_addresses(urls) if addresses is None else addresses, digest=digest)


SPEC = make_spec()
PINNED = make_spec(Source(upload="a" * 64))


def test_a_revision_is_ten_hex_digits() -> None:
    assert len(spec_revision(SPEC)) == 10
    assert int(spec_revision(SPEC), 16) >= 0


@pytest.mark.parametrize(
    "changed",
    [
        replace(SPEC, classes=SPEC.classes[::-1]),
        replace(SPEC, classes=(replace(SPEC.classes[0], name="Beagle"), SPEC.classes[1])),
        replace(SPEC, negative_examples=(Source(upload="c" * 64),)),
        replace(SPEC, model=ModelRecipe(backbone="EfficientNetLite0")),
        replace(SPEC, model=ModelRecipe(seed=1)),
        replace(SPEC, evaluation=Evaluation(holdout_fraction=0.3)),
        replace(SPEC, evaluation=Evaluation(classes=SPEC.classes)),
        replace(SPEC, corrections=(Correction(image="d" * 64, class_name=""),)),
        replace(SPEC, retrain_nonce=1),
        make_spec(Source(url="https://data.example.com/other.zip")),
        make_spec(Source(url="https://data.example.com/beagle.zip", round=2)),
    ],
    ids=[
        "order",
        "class name",
        "negatives",
        "backbone",
        "seed",
        "holdout",
        "test set",
        "correction",
        "nonce of unpinned sources",
        "address",
        "round",
    ],
)
def test_a_change_of_the_training_makes_another_revision(changed: ClassifierSpec) -> None:
    assert spec_revision(changed) != spec_revision(SPEC)


@pytest.mark.parametrize(
    "changed",
    [
        replace(PINNED, display_name="Dogs"),
        replace(PINNED, training=Training(backoff_limit=0)),
        replace(PINNED, serving=Serving(replicas=3)),
        replace(PINNED, retrain_nonce=7),
        replace(PINNED, model=ModelRecipe(backbone="Auto", strategy=Strategy.LINEAR_PROBE, seed=0)),
    ],
    ids=["display name", "training", "serving", "nonce of pinned sources", "defaults spelt out"],
)
def test_everything_else_keeps_the_revision(changed: ClassifierSpec) -> None:
    assert spec_revision(changed) == spec_revision(PINNED)


def test_every_field_of_a_recipe_for_fine_tuning_changes_the_revision() -> None:
    recipes = [
        ModelRecipe(),
        ModelRecipe(strategy=Strategy.FINE_TUNE),
        ModelRecipe(strategy=Strategy.FINE_TUNE, epochs=10),
        ModelRecipe(strategy=Strategy.FINE_TUNE, learning_rate=0.0003),
        ModelRecipe(strategy=Strategy.FINE_TUNE, batch_size=16),
    ]
    assert len({spec_revision(replace(PINNED, model=recipe)) for recipe in recipes}) == len(recipes)


def test_a_pinned_source_counts_by_its_digest_at_any_url() -> None:
    by_url = make_spec(Source(url="https://elsewhere.example.com/b.zip", sha256="a" * 64))
    assert spec_revision(by_url) == spec_revision(PINNED)


def test_the_canonical_form_of_version_one_never_changes() -> None:
    assert (spec_revision(SPEC), spec_revision(PINNED)) == ("0ae0aebd40", "d5ef8682d4")


PRETRAINED = [
    ({"weights": {"torchvision": "ResNet50_Weights.IMAGENET1K_V2"}}, 0, "ff18844a79"),
    ({"weights": {"url": "file:///food/"}, "activation": "Softmax", "otherwise": "non-food", "images": {}}, 0, "5eab8631b2"),
    ({"weights": {"url": "file:///explicit/"}}, 1, "625f83778a"),
    (
        {
            "weights": {"url": "https://data.test/a.onnx", "sha256": "a" * 64},
            "labels": {"url": "https://data.test/l.txt", "sha256": "a" * 64},
            "hierarchy": {"url": "https://data.test/h.txt"},
            "images": {"height": 40},
        },
        0,
        "2d70d3d575",
    ),
    (
        {
            "weights": {"url": "https://data.test/a.pth", "architecture": "resnet18"},
            "labels": {"url": "https://data.test/l.txt"},
            "activation": "Sigmoid",
        },
        2,
        "8e87dcc620",
    ),
]


@pytest.mark.parametrize(("pretrained", "nonce", "revision"), PRETRAINED)
def test_pretrained_definitions_keep_the_revision_from_before_packaged_weights(
    pretrained: dict[str, object], nonce: int, revision: str
) -> None:
    assert spec_revision(parse_spec({"pretrained": pretrained, "retrainNonce": nonce})) == revision


def test_packaged_weights_never_change_their_revision() -> None:
    default = parse_spec({"pretrained": {"weights": {"packaged": "EfficientNetLite0"}}})
    food = parse_spec({"pretrained": {"weights": {"packaged": "EfficientNetLite0"}, "labels": {"packaged": "ImageNetFood"}}})
    explicit = parse_spec({"pretrained": {"weights": {"packaged": "OpenNSFW"}}})
    assert [spec_revision(spec) for spec in (default, food, explicit)] == ["9206af4bb0", "1ad7e2e790", "24567dd04a"]


def test_packaged_weights_with_other_bytes_are_another_revision(monkeypatch: pytest.MonkeyPatch) -> None:
    spec = parse_spec({"pretrained": {"weights": {"packaged": "OpenNSFW"}}})
    before = spec_revision(spec)
    monkeypatch.setattr("ocelli_api.revision.PACKAGED_WEIGHTS_SHA256", {PackagedWeightsName.OPEN_NSFW: "0" * 64})
    assert spec_revision(replace(spec)) != before


def test_a_nonce_does_not_change_the_revision_of_packaged_weights() -> None:
    document = {"pretrained": {"weights": {"packaged": "OpenNSFW"}}}
    assert spec_revision(parse_spec({**document, "retrainNonce": 4})) == spec_revision(parse_spec(document))


def test_a_definition_with_packaged_weights_parses_back_into_what_it_came_from() -> None:
    spec = parse_spec({"pretrained": {"weights": {"packaged": "EfficientNetLite0"}, "labels": {"packaged": "ImageNetFood"}}})
    assert parse_spec(definition(spec)) == spec


def test_a_pin_is_the_current_revision() -> None:
    assert current_revision(make_classifier(pinned_revision="0123456789")) == "0123456789"


def test_a_definition_parses_back_into_what_it_came_from() -> None:
    spec = replace(PINNED, model=ModelRecipe(seed=3), negative_examples=(Source(upload="c" * 64, round=2),))
    assert parse_spec(definition(spec)) == spec


def test_the_training_hash_changes_with_memory() -> None:
    more = Training(resources={"limits": {"memory": "8Gi"}})
    assert training_hash(more) != training_hash(Training())


def test_the_training_hash_changes_with_an_accelerator_and_not_with_an_upgrade() -> None:
    assert training_hash(Training()) == "c0d775eac7"
    hashes = {training_hash(Training(accelerator=accelerator)) for accelerator in Accelerator}
    assert len(hashes | {training_hash(Training(runtime_class_name="nvidia"))}) == 4


def test_uploads_of_a_definition_are_found() -> None:
    document = {
        "classes": [{"name": "a", "examples": [{"upload": "u1"}, {"url": "https://x"}]}],
        "negativeExamples": [{"upload": "u2"}],
    }
    assert find_upload_digests(document) == {"u1", "u2"}


def test_erased_uploads_are_not_found() -> None:
    document = {
        "classes": [{"name": "a", "examples": [{"upload": "u1", "erased": True}, {"upload": "u2"}]}],
        "negativeExamples": [{"upload": "u2", "erased": True}],
    }
    assert find_upload_digests(document) == {"u2"}


def test_the_revision_of_a_spec_is_computed_once(monkeypatch: pytest.MonkeyPatch) -> None:
    spec, computed = make_spec(Source(upload="d" * 64)), []

    def count(document: object) -> str:
        computed.append(document)
        return "0123456789abcdef"

    monkeypatch.setattr("ocelli_api.revision._digest", count)
    assert [spec_revision(spec), spec_revision(spec)] == ["0123456789"] * 2
    assert len(computed) == 1


def test_a_changed_copy_of_a_spec_has_another_revision() -> None:
    spec = make_spec(Source(upload="d" * 64))
    before = spec_revision(spec)
    assert spec_revision(replace(spec, model=ModelRecipe(seed=7))) != before
    assert replace(spec) == spec


def test_promotion_and_approval_are_not_part_of_the_revision() -> None:
    promotion = Promotion(min_accuracy="0.9", max_accuracy_drop="0", approval=Approval.MANUAL)
    assert spec_revision(replace(SPEC, promotion=promotion, approved_revision="0123456789")) == spec_revision(SPEC)


def test_a_pinned_test_set_is_known_by_its_digest() -> None:
    def tested(url: str) -> ClassifierSpec:
        source = Source(url=url, sha256="d" * 64)
        return replace(PINNED, evaluation=Evaluation(classes=(ExampleClass(name="husky", examples=(source,)),)))

    assert spec_revision(tested("https://data.example.com/a.zip")) == spec_revision(
        tested("https://elsewhere.example.com/b.zip")
    )


def test_a_test_set_that_is_not_pinned_is_read_again_with_a_higher_nonce() -> None:
    source = Source(url="https://data.example.com/test.zip")
    tested = replace(PINNED, evaluation=Evaluation(classes=(ExampleClass(name="husky", examples=(source,)),)))
    assert spec_revision(replace(PINNED, retrain_nonce=1)) == spec_revision(PINNED)
    assert spec_revision(replace(tested, retrain_nonce=1)) != spec_revision(tested)


def test_uploads_of_a_test_set_are_uploads_of_the_definition() -> None:
    tested = Evaluation(classes=(ExampleClass(name="husky", examples=(Source(upload="e" * 64),)),))
    assert "e" * 64 in find_upload_digests(definition(replace(PINNED, evaluation=tested)))


def test_the_order_of_corrections_has_no_meaning() -> None:
    both = (Correction(image="d" * 64, class_name="husky"), Correction(image="e" * 64, class_name=""))
    assert spec_revision(replace(SPEC, corrections=both)) == spec_revision(replace(SPEC, corrections=both[::-1]))


def test_the_stored_definition_has_the_corrections() -> None:
    spec = replace(SPEC, corrections=(Correction(image="d" * 64, class_name=""),))
    assert definition(spec)["corrections"] == [{"image": "d" * 64, "class": ""}]
    assert parse_spec(definition(spec)).corrections == spec.corrections


def test_what_a_poll_saw_is_part_of_the_revision() -> None:
    revisions = [current_revision(make_classifier(make_seen(digest), poll_interval="1h")) for digest in (None, "a", "b", "a")]
    assert revisions[0] == spec_revision(SPEC)
    assert revisions[1] == revisions[3]
    assert len(set(revisions)) == 3


def test_what_the_last_poll_saw_counts_after_polling_has_stopped() -> None:
    polled = make_classifier(make_seen("a"), poll_interval="1h")
    assert current_revision(make_classifier(make_seen("a"))) == current_revision(polled)


def test_what_a_poll_of_other_addresses_saw_does_not_count() -> None:
    classifier = make_classifier(make_seen("a", addresses="0123456789"), poll_interval="1h")
    assert needs_poll(classifier)
    assert current_revision(classifier) == spec_revision(SPEC)


def test_the_interval_by_itself_is_not_part_of_the_revision() -> None:
    assert spec_revision(replace(SPEC, poll_interval="15m")) == spec_revision(SPEC)


def test_only_addresses_are_polled_whose_bytes_may_change() -> None:
    spec = make_spec(
        Source(url="https://data.example.com/a.zip"),
        Source(url="https://data.example.com/a.zip", round=2),
        Source(url="https://data.example.com/pinned.zip", sha256="a" * 64),
        Source(url="https://data.example.com/private.zip", sha256="a" * 64, secret_ref=SecretReference(name="own")),
        Source(url="https://data.example.com/erased.zip", erased=True),
        Source(url="s3://training/a.zip", sha256="a" * 64),
        Source(upload="b" * 64),
    )
    assert find_polled_urls(spec) == ("https://data.example.com/a.zip",)


def test_a_classifier_whose_sources_are_all_pinned_needs_no_poll() -> None:
    assert not needs_poll(replace(make_classifier(), spec=replace(PINNED, poll_interval="1h")))


@pytest.mark.parametrize(("text", "seconds"), [("5m", 300), ("90m", 5400), ("6h", 21600)])
def test_an_interval_is_in_minutes_or_hours(text: str, seconds: int) -> None:
    assert parse_interval(text) == seconds


def test_a_secret_is_not_part_of_the_revision() -> None:
    url = "https://data.example.com/beagle.zip"
    assert spec_revision(make_spec(Source(url=url, secret_ref=SecretReference(name="own")))) == spec_revision(make_spec())
