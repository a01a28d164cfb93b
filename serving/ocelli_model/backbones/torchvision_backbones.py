"""Torchvision's classification models: without their classifying layer as backbones, and whole as pretrained classifiers.

They always have published weights: a network that is only initialised is never used.
"""

from __future__ import annotations

import pickle
import re
from collections import OrderedDict
from collections.abc import Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
import torchvision
from safetensors import SafetensorError
from torch import Tensor, nn
from torchvision import models
from torchvision.transforms import InterpolationMode

from ocelli_model.backbone import WEIGHTS_FILE, Backbone, BackboneUnavailableError, NetworkKind
from ocelli_model.preprocessing import Interpolation, Preprocessing, ResizeMode

_CLASSES = 1000  # torchvision's models classify ImageNet-1k
# The input of GoogLeNet and Inception has another scale, and their published weights contain auxiliary layers.
_TRANSFORMING = frozenset({"googlenet", "inception_v3"})
_INTERPOLATIONS = {InterpolationMode.BILINEAR: Interpolation.BILINEAR, InterpolationMode.BICUBIC: Interpolation.BICUBIC}
_AUXILIARY = ("aux", "AuxLogits")
# The published weights of DenseNet are older than torchvision's current names for these layers.
_DENSENET_OLD_NAME = re.compile(r"(.*denselayer\d+\.(?:norm|relu|conv))\.([12]\.(?:weight|bias|running_mean|running_var))")


@dataclass(frozen=True, kw_only=True)
class PublishedWeights:
    """Weights that torchvision publishes for a whole classifying network."""

    name: str
    """Torchvision's name, such as `ResNet50_Weights.IMAGENET1K_V2`."""
    architecture: str
    url: str
    categories: tuple[str, ...]
    """Torchvision's name of each output."""

    @property
    def file_name(self) -> str:
        return self.url.rsplit("/", 1)[-1]


class TorchvisionBackbone(nn.Module):
    """uint8[N, height, width, 3] to float32[N, features], or to the outputs of a whole network; includes normalisation."""

    def __init__(self, body: nn.Module, preprocessing: Preprocessing) -> None:
        super().__init__()
        self.body = body
        self.register_buffer("mean", torch.tensor(preprocessing.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("deviation", torch.tensor(preprocessing.standard_deviation).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        pixels = images.permute(0, 3, 1, 2).float() / 255.0
        answer: Any = self.body((pixels - self.get_buffer("mean")) / self.get_buffer("deviation"))
        # While they are trained, GoogLeNet and Inception also return the outputs of their auxiliary layers.
        features: Tensor = answer[0] if isinstance(answer, tuple) else answer
        return features.flatten(1).float()


def weights_file_names(name: str) -> list[str]:
    """The file names under which torchvision publishes weights for a model, its default first.

    Raises:
        BackboneUnavailableError: torchvision has no classification model of that name.
    """
    return [_file_name(entry) for entry in _published(name)]


def find_published_weights(name: str) -> PublishedWeights:
    """Published weights by torchvision's name.

    Raises:
        BackboneUnavailableError: torchvision has none of this name; the message suggests similar names.
    """
    known: dict[str, PublishedWeights] = {}
    for architecture in models.list_models(module=models):
        for entry in models.get_model_weights(architecture):
            # Weights without a classifier, for other tasks.
            if not entry.meta.get("categories"):
                continue
            known[str(entry)] = PublishedWeights(
                name=str(entry), architecture=architecture, url=str(entry.url), categories=tuple(entry.meta["categories"])
            )
    if name in known:
        return known[name]
    close = get_close_matches(name, known, n=3, cutoff=0.7)
    raise BackboneUnavailableError(
        f"torchvision {torchvision.__version__} has no published weights of a classifying network named {name}; "
        + (f"did you mean {' or '.join(close)}?" if close else "use a name from the page on models of its documentation")
    )


def check_architecture(name: str) -> None:
    """Raises BackboneUnavailableError if torchvision has no classification model of this name; suggests similar names."""
    known = models.list_models(module=models)
    if name in known:
        return
    close = get_close_matches(name, known, n=3)
    raise BackboneUnavailableError(
        f"torchvision {torchvision.__version__} has no classification model named {name}; "
        + (f"did you mean {' or '.join(close)}?" if close else "use a name from torchvision.models.list_models()")
    )


def preprocessing_for(name: str, file_name: str) -> tuple[Preprocessing, str | None]:
    """The preprocessing for a file of weights, and the licence of the weights if torchvision states one.

    A file that torchvision does not publish gets the preprocessing of torchvision's default weights.

    Raises:
        BackboneUnavailableError: torchvision has no such model, or Ocelli does not support its preprocessing.
    """
    published = _published(name)
    entry = next((entry for entry in published if _file_name(entry) == file_name), published[0])
    transforms = entry.transforms()
    try:
        (crop,), (resize,) = transforms.crop_size, transforms.resize_size
        red, green, blue = transforms.mean
        red_deviation, green_deviation, blue_deviation = transforms.std
        interpolation = _INTERPOLATIONS[transforms.interpolation]
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise BackboneUnavailableError(
            f"backbone {name}: Ocelli does not support torchvision's preprocessing for it; choose another model"
        ) from error
    preprocessing = Preprocessing(
        height=crop,
        width=crop,
        resize=ResizeMode.SHORT_SIDE_CROP,
        short_side_pixels=resize,
        interpolation=interpolation,
        mean=(red, green, blue),
        standard_deviation=(red_deviation, green_deviation, blue_deviation),
    )
    return preprocessing, entry.meta.get("license")


def build_network(name: str, weights: Path, preprocessing: Preprocessing) -> nn.Module:
    """A torchvision model with the weights of a file (.safetensors, or a pickle read with `weights_only`), in evaluation mode.

    Raises:
        BackboneUnavailableError: the file cannot be read, or does not contain the weights of this model.
    """
    # Drop the file's classifying layer, which may have any number of classes.
    network, head = _empty_network(name, preprocessing)
    what = f"backbone {name}: {weights.name}"
    state = {key: value for key, value in _read_state(what, weights).items() if not key.startswith(f"{head}.")}
    _fill(network.body, state, what)
    return network.eval()


def build_classifier(architecture: str, weights: Path, preprocessing: Preprocessing, *, what: str) -> nn.Module:
    """A whole torchvision model with the weights of a file, and with their number of outputs, in evaluation mode.

    `what` is the name of the file in messages.

    Raises:
        BackboneUnavailableError: the file cannot be read, or does not contain the weights of this model.
    """
    state = _read_state(what, weights)
    network = _empty_classifier(architecture, preprocessing, state, what)
    _fill(network.body, state, what)
    return network.eval()


def load_installed(backbone: Backbone) -> nn.Module:
    """The network of an installed backbone, a body or a whole network, in evaluation mode. Raises BackboneError."""
    name, preprocessing = backbone.name, backbone.metadata.preprocessing
    what = f"backbone {name} ({backbone.digest}): {WEIGHTS_FILE}"
    state = {key.removeprefix("body."): value for key, value in _read_state(what, backbone.folder / WEIGHTS_FILE).items()}
    if backbone.metadata.kind is NetworkKind.CLASSIFIER:
        network = _empty_classifier(name, preprocessing, state, what)
    else:
        network, _ = _empty_network(name, preprocessing)
    _fill(network.body, state, what)
    return network.eval()


def network_weights(network: nn.Module) -> bytes:
    """The weights as `load_installed` reads them, as safetensors."""
    return safetensors.torch.save({key: value.contiguous() for key, value in network.state_dict().items()})


def _published(name: str) -> list[Any]:
    try:
        if name not in models.list_models(module=models):
            raise ValueError(name)
        entries = models.get_model_weights(name)
        default = entries["DEFAULT"]
    except (KeyError, ValueError) as error:
        raise BackboneUnavailableError(
            f"backbone {name!r}: torchvision {torchvision.__version__} has no classification model with "
            "published weights of this name; choose EfficientNetLite0 or a name from torchvision.models.list_models()"
        ) from error
    return [default, *(entry for entry in entries if entry is not default)]


def _file_name(entry: Any) -> str:
    return str(entry.url).rsplit("/", 1)[-1]


def _empty_network(name: str, preprocessing: Preprocessing) -> tuple[TorchvisionBackbone, str]:
    """The network before its weights are loaded, and the name of the removed layer."""
    body = models.get_model(name, weights=None, **_options(name, preprocessing))
    head = _last_layer(body)
    layer = body.get_submodule(head)
    if getattr(layer, "out_features", getattr(layer, "out_channels", None)) != _CLASSES:
        raise BackboneUnavailableError(f"backbone {name}: its last layer {head} does not classify; choose another model")
    body.set_submodule(head, nn.Identity())
    return TorchvisionBackbone(body, preprocessing), head


def _empty_classifier(name: str, preprocessing: Preprocessing, state: Mapping[str, Tensor], what: str) -> TorchvisionBackbone:
    """The whole network before its weights are loaded, with their number of outputs."""
    options = _options(name, preprocessing)
    if name in _TRANSFORMING:
        # Auxiliary layers for training, which only some files contain.
        options["aux_logits"] = any(key.startswith(_AUXILIARY) for key in state)
    last = f"{_last_layer(models.get_model(name, weights=None, **options))}.weight"
    if last not in state:
        raise BackboneUnavailableError(
            f"{what} does not fit: it has no {last}, the classifying layer; name the network that it belongs to"
        )
    return TorchvisionBackbone(models.get_model(name, weights=None, num_classes=state[last].shape[0], **options), preprocessing)


def _options(name: str, preprocessing: Preprocessing) -> dict[str, Any]:
    if name in _TRANSFORMING:
        return {"transform_input": True, "aux_logits": True, "init_weights": False}
    return {"image_size": preprocessing.height} if name.startswith("vit_") else {}


def _last_layer(body: nn.Module) -> str:
    """The name of the classifying layer."""
    modules: list[tuple[str, nn.Module]] = list(body.named_modules())
    linear = [key for key, module in modules if isinstance(module, nn.Linear)]
    # SqueezeNet's classifying layer is a convolution.
    return linear[-1] if linear else [key for key, module in modules if isinstance(module, nn.Conv2d)][-1]


def _read_state(what: str, path: Path) -> Mapping[str, Tensor]:
    try:
        if _is_safetensors(path):
            state: Any = safetensors.torch.load_file(path)
        else:
            state = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, RuntimeError, ValueError, EOFError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise BackboneUnavailableError(
            f"{what} cannot be read as weights; fetch the file again, or give a file with a state_dict"
        ) from error
    for key in ("state_dict", "model"):
        if isinstance(state, Mapping) and isinstance(state.get(key), Mapping):
            state = state[key]
    if not isinstance(state, Mapping) or not all(isinstance(value, Tensor) for value in state.values()):
        raise BackboneUnavailableError(f"{what} does not contain a state_dict; give the file that torchvision publishes")
    named = OrderedDict((_present_name(key), value) for key, value in state.items())
    # Versions of modules, by which some networks recognise older weights.
    named._metadata = getattr(state, "_metadata", None)  # type: ignore[attr-defined]
    return named


def _is_safetensors(path: Path) -> bool:
    """Decided by its beginning: the length of a JSON header, then the header. Fetched files have no suffix."""
    with path.open("rb") as file:
        head = file.read(9)
    return len(head) == 9 and head[8:] == b"{" and int.from_bytes(head[:8], "little") < path.stat().st_size


def _present_name(key: str) -> str:
    key = key.removeprefix("module.")
    match = _DENSENET_OLD_NAME.fullmatch(key)
    return f"{match[1]}{match[2]}" if match else key


def _fill(network: nn.Module, state: Mapping[str, Tensor], what: str) -> None:
    complete: Any = OrderedDict(state)
    complete._metadata = getattr(state, "_metadata", None) or network.state_dict()._metadata  # type: ignore[attr-defined]
    try:
        missing, unexpected = network.load_state_dict(complete, strict=False)
    except RuntimeError as error:
        raise BackboneUnavailableError(f"{what} has weights with wrong shapes; give the weights of this model") from error
    # Counters that only training uses; old files do not have them.
    missing = [key for key in missing if not key.endswith(".num_batches_tracked")]
    if missing or unexpected:
        example = (missing or unexpected)[0]
        raise BackboneUnavailableError(
            f"{what} does not fit: {len(missing)} weights are missing and {len(unexpected)} are unknown, such as {example}; "
            "give the weights of this model"
        )
    if not all(torch.isfinite(value).all() for value in network.state_dict().values() if value.is_floating_point()):
        raise BackboneUnavailableError(f"{what} has weights that are not finite numbers; fetch the file again")
