"""Settings of the bundled proposers, each declared once, for `prunas.proposers.table`."""

from prunas.names import DIMENSIONS
from prunas.proposers.options import Option, at_least

__all__ = [
    "FORM",
    "GATES",
    "MORPHNET",
    "MORPHNET_UNWEIGHTED",
    "NETADAPT",
    "PRESET",
    "RESPONSES",
    "SAMPLER",
    "SCOPE",
    "STARTUP",
    "STEP_RULE",
    "TAYLOR",
    "THINET",
    "pull",
    "weight",
]


def weight(name: str, help: str) -> Option:
    """A weight of a loss, 0 by default."""
    return Option(name, float, 0.0, help, lambda weight: weight >= 0, "0 or more")


def pull(default: float | None, help: str) -> Option:
    """The total pull of a penalty."""
    return Option("pull", float, default, help, lambda pull: pull >= 0, "0 or more")


def above_0(name: str, help: str) -> Option:
    """A number that has no default."""
    return Option(name, float, None, help, lambda value: value > 0, "above 0")


PRESET = Option(
    "preset", str, None, "a preset of the space whose widths are used, instead of uniform ones at each target"
)
FORM = Option(
    "form", str, "fitted", "fitted to the target by one number, or as-found", choices=("fitted", "as-found")
)
RESPONSES = at_least(1, "responses", 400, "responses sampled of every reading layer, each in another image")
THINET = (
    at_least(1, "images", 256, "images of the training split that are looked at"),
    at_least(1, "places", 10, "entries sampled of each, per reading layer"),
)
SCOPE = Option(
    "scope",
    str,
    "global",
    "what is compared: all that varies, or only what has the same structure",
    choices=("global", "isomorphic"),
)
STARTUP = at_least(1, "startup", 5, "trials drawn at random before the model is used")
SAMPLER = (
    Option("vary", str, "width", "what the profile scales", choices=DIMENSIONS),
    Option("level", str, "stage", "one parameter per stage or per layer", choices=("stage", "layer")),
    Option(
        "neighbourhood",
        float,
        0.0,
        "if above 0, ratios lie within this share of those of the best found point",
        lambda share: 0 <= share < 1,
        "at least 0 and below 1",
    ),
    at_least(1, "batch", 1, "candidates per target that may be trained at the same time"),
    Option(
        "halving",
        int,
        0,
        "if not 0, trials are stopped early by successive halving at this rate",
        lambda rate: rate == 0 or 2 <= rate <= 10,
        "0 (off) or 2 to 10",
    ),
    Option(
        "shortest",
        float,
        0.1,
        "the shortest schedule of halving, as a share of the whole one",
        lambda share: 0 < share < 1,
        "between 0 and 1",
    ),
)
MORPHNET_PULL = pull(
    None,
    "total pull of the penalty on the scale of a channel of mean cost; 6.6, or 0.66 where there are gates",
)
ROOFLINE = (
    Option(
        "device",
        str,
        "V100",
        "whose peak and bandwidth bound a layer where the cost is latency",
        choices=("V100", "P100", "T4"),
    ),
    above_0("peak", "peak of another device, in 1e9 operations per second"),
    above_0("bandwidth", "bandwidth of another device's memory, in 1e9 bytes per second"),
    at_least(1, "batch", 1, "images at a time where the cost is latency"),
)
MORPHNET = (
    MORPHNET_PULL,
    Option(
        "cost",
        str,
        "macs",
        "what a channel costs: latency by a device's roofline, or all the same (channels)",
        choices=("macs", "params", "latency", "channels"),
    ),
    *ROOFLINE,
)
MORPHNET_UNWEIGHTED = (MORPHNET_PULL, *ROOFLINE)


NETADAPT = (
    Option(
        "step",
        float,
        0.05,
        "cost saved by the first iteration, as a share of the dense network's",
        lambda step: 0 < step <= 0.5,
        "above 0 and at most 0.5",
    ),
    Option(
        "decay",
        float,
        0.96,
        "what the step is multiplied by after every iteration",
        lambda decay: 0 < decay <= 1,
        "above 0 and at most 1",
    ),
    Option(
        "images",
        int,
        1024,
        "training images from which batch norms are estimated before a score; 0 keeps inherited ones",
        lambda images: images >= 0,
        "0 or more",
    ),
)
GATES = (
    Option(
        "score",
        str,
        "scale",
        "mean gate, times the scale in front, or of gate times activity",
        choices=("gate", "scale", "activity"),
    ),
    at_least(1, "reduction", 16, "channels per hidden channel of a gate"),
    weight("binary", "weight of a loss that drives gates to 0 or 1"),
    weight("sparse", "weight of a loss that closes gates"),
    SCOPE,
)
TAYLOR = (
    Option(
        "on",
        str,
        "auto",
        "a channel's parameters: its scale and shift, or its filter; auto: norms where all have one",
        choices=("auto", "norms", "filters"),
    ),
    at_least(1, "images", 1024, "images of the training split that are looked at"),
    SCOPE,
)
STEP_RULE = Option(
    "rule",
    str,
    "ratio",
    "which candidate is taken: least loss per saved cost, best score, or any",
    choices=("ratio", "score", "random"),
)
