"""The networks of the support table: torchvision's classification models, the bundled ones, small families."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial

from torch import nn
from torchvision import models

from benchmarks.support.families import FAMILIES
from benchmarks.support.libraries import TASKS, TIMM, VOCABULARY, of_task, of_timm, transformer_names
from prunas import networks
from prunas.networks import imagenet

__all__ = ["NETWORKS", "Network"]

FIXED_SIZE = (
    "coat",
    "maxvit",
    "nest",
    "volo",
    "xcit",
    "swin",
    "mvit",
    "hiera",
    "csatv2",
    "eva",
    "sequencer",
    "gcvit",
    "eca_halonext",
    "bat_resnext",
)
"""Families of timm made for one size, though their entry there does not say so."""

LARGE = 150_000_000
"""Parameters above which float64 copies of a network do not fit everywhere."""


@dataclass(frozen=True, slots=True)
class Network:
    """One line of the table.

    Attributes:
        name: What it is called there.
        kind: `torchvision`, `bundled`, `family`, `task`, `timm` or `transformers`.
        factory: Makes it.
        inputs: Shapes it is surveyed with, without the batch.
        probe: Smaller shapes of the same network, on which its function is compared.
        batch: How many of them at once; batch statistics of a single pixel want four.
        below: Bound of the integers that it reads; 0 where it reads numbers.
    """

    name: str
    kind: str
    factory: Callable[[], nn.Module]
    inputs: tuple[tuple[int, ...], ...]
    probe: tuple[tuple[int, ...], ...]
    batch: int = 4
    below: int = 0


def _image(size: int) -> tuple[tuple[int, ...], ...]:
    return ((3, size, size),)


def _torchvision(name: str) -> Network:
    options = {"init_weights": False} if name in ("googlenet", "inception_v3") else {}
    size, probe = 224, 64
    if name == "inception_v3":  # its auxiliary head wants the full map
        size = probe = 299
    elif name.startswith(("vit", "maxvit")):  # made for one size
        probe = size
    elif name.startswith("swin_v2"):
        size, probe = 256, 128
    elif name.startswith("swin"):
        probe = 112
    batch = 2 if name.startswith(("vit", "swin", "convnext")) else 4
    factory = partial(models.get_model, name, weights=None, **options)
    return Network(name, "torchvision", factory, _image(size), _image(probe), batch)


def _of_timm(name: str) -> Iterator[Network]:
    """One of timm, if that is there."""
    if importlib.util.find_spec("timm") is None:
        return
    about = importlib.import_module("timm.models").get_pretrained_cfg(name)
    size = about.input_size if about else (3, 224, 224)
    least = 160 if name.startswith("inception") else 96  # a statistic of two numbers magnifies rounding
    fixed = about is None or about.fixed_input_size or name.startswith(FIXED_SIZE)
    yield Network(
        f"timm/{name}", "timm", partial(of_timm, name), (size,), (size if fixed else (3, least, least),), 2
    )


def _of_transformers() -> Iterator[Network]:
    """Those of transformers, if that is there."""
    if importlib.util.find_spec("transformers") is None:
        return
    for name, text, factory in transformer_names():
        sizes = ((64,) if text else (3, 256, 256) if name.startswith("MobileViT") else (3, 224, 224),)
        probe = ((16,),) if text else sizes
        yield Network(
            f"transformers/{name}", "transformers", factory, sizes, probe, 2, VOCABULARY if text else 0
        )


def _of_task(name: str) -> Network:
    if name in ("fcn_resnet50", "deeplabv3_resnet50") or name.startswith(("deeplab", "lraspp")):
        return Network(name, "task", partial(of_task, name), ((3, 128, 128),), ((3, 64, 64),), 2)
    if name.startswith(("mvit", "s3d")):  # made for one size, or a least one
        size = probe = (3, 16, 224, 224)
    else:
        size, probe = (3, 16, 112, 112), (3, 8, 56, 56)
    return Network(name, "task", partial(of_task, name), (size,), (probe,), 2)


BUNDLED: Mapping[str, Callable[[], nn.Module]] = {
    "vgg16 (CIFAR)": networks.vgg16,
    "vgg16-l1 (CIFAR)": partial(networks.vgg16, head="hidden"),
    "vgg19 (CIFAR)": networks.vgg19,
    "resnet56 (CIFAR)": networks.resnet56,
    "resnet110 (CIFAR)": networks.resnet110,
    "preresnet110 (CIFAR)": networks.preresnet110,
    "preresnet164 (CIFAR)": networks.preresnet164,
    "densenet40 (CIFAR)": networks.densenet40,
    "densenetbc100 (CIFAR)": networks.densenetbc100,
}

NETWORKS: Mapping[str, Network] = {
    network.name: network
    for network in (
        *map(_torchvision, models.list_models(module=models)),
        *(Network(name, "bundled", factory, _image(32), _image(16)) for name, factory in BUNDLED.items()),
        Network("preresnet50 (ImageNet)", "bundled", imagenet.preresnet50, _image(224), _image(64)),
        Network("vgg11 (ImageNet)", "bundled", imagenet.vgg11, _image(224), _image(64)),
        *(Network(name, "family", factory, inputs, inputs) for name, (factory, inputs) in FAMILIES.items()),
        *map(_of_task, TASKS),
        *(network for name in TIMM for network in _of_timm(name)),
        *_of_transformers(),
    )
}
"""By name, in the order of the table."""
