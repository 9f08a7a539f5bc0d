"""The pictures of the examples: what each network sees, and how wide its layers are before and after.

    python docs/hooks/gallery.py     # draws examples/pictures/ anew

Widths are those of the design `uniform` at the target of the example's command, of every width that varies: what
the example begins from, not what it finds, which takes a training.
"""

import sys
from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any, NamedTuple

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
import numpy as np
from matplotlib.axes import Axes
from matplotlib.patches import Rectangle

EXAMPLES = Path(__file__).resolve().parent.parent.parent / "examples"
FOLDER = EXAMPLES / "pictures"
KEPT, DENSE, SHOWN = "#0072B2", "#D9D9D9", "#E69F00"


class Example(NamedTuple):
    """One picture.

    Attributes:
        space: A bundled space, or the TOML file of the example.
        metric: What its target counts.
        keep: The share that its command asks for.
    """

    space: str
    metric: str
    keep: float


PICTURES: Mapping[str, Example] = MappingProxyType(
    {
        "resnet18": Example("resnet18.toml", "macs", 0.5),
        "tabular": Example("tabular.toml", "params", 0.3),
        "unet": Example("unet.toml", "macs", 0.4),
        "lraspp": Example("lraspp.toml", "macs", 0.4),
        "detection": Example("detection.toml", "macs", 0.6),
        "yolo": Example("yolo.toml", "macs", 0.4),
        "lightning": Example("vgg11-digits", "params", 0.3),
    }
)


def draw(name: str) -> None:
    """Writes one picture."""
    from prunas.designs import uniform
    from prunas.spaces.load import load_space

    example = PICTURES[name]
    space = load_space(example.space)
    point = uniform(space, space.target(keep=example.keep, metric=example.metric))
    figure, (seen, bars) = plt.subplots(
        1, 2, figsize=(7.2, 2.6), width_ratios=(1, 2.4), layout="constrained", dpi=110
    )
    _see(name, seen)
    places = np.arange(len(space.dimensions))
    bars.bar(places, space.dense_counts, color=DENSE, label="as it is")
    bars.bar(
        places,
        space.counts(point),
        color=KEPT,
        label=f"uniform at {100 * example.keep:g} % of the {example.metric}",
    )
    bars.set(xlabel="widths that vary, in order", ylabel="channels")
    bars.set_xticks([])
    bars.spines[["top", "right"]].set_visible(False)
    bars.legend(frameon=False, fontsize=8, loc="lower left", bbox_to_anchor=(0, 1), ncols=2)
    figure.savefig(FOLDER / f"{name}.png", metadata={"Software": None})
    plt.close(figure)


def _see(name: str, axes: Axes) -> None:
    """Draws a sample with its target."""
    if name == "tabular":
        import tabular

        if not tabular.FILE.exists():
            tabular.write(2000)
        x, y = tabular.data()["train"]
        axes.scatter(x[:200, 3], y[:200, 0], s=6, color=KEPT)
        axes.set(xlabel="sensor3", ylabel="yield")
        return
    image, target = _sample(name)
    axes.imshow(image, cmap="gray")
    if isinstance(target, dict):
        for (left, top, right, bottom), label in zip(target["boxes"], target["labels"], strict=True):
            if label >= 0:
                axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, color=SHOWN))
    elif np.ndim(target) == 2:
        axes.contour(target > 0, levels=[0.5], colors=SHOWN, linewidths=1)
    axes.set_title("a digit" if np.ndim(target) == 0 and not isinstance(target, dict) else "", fontsize=8)
    axes.axis("off")


def _sample(name: str) -> tuple[Any, Any]:
    """One image (H, W) or (H, W, 3) and what is learnt of it."""
    if name == "lightning":
        from sklearn.datasets import load_digits

        return load_digits().images[0], 0
    module = {"unet": "segmentation", "lraspp": "segmentation", "yolo": "yolo_task"}.get(name, name)
    images, targets = __import__(module).data(8)["train"]
    if isinstance(targets, dict):
        return images[0].transpose(1, 2, 0), {key: value[0] for key, value in targets.items()}
    return images[0].transpose(1, 2, 0), targets[0]


if __name__ == "__main__":
    import os

    os.chdir(EXAMPLES)
    sys.path.insert(0, str(EXAMPLES))
    FOLDER.mkdir(exist_ok=True)
    for name in sys.argv[1:] or PICTURES:
        draw(name)
