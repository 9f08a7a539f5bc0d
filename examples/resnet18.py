"""Your own checkpoint of torchvision's ResNet-18, at half of its MACs.

Shows: the least that `prunas shrink` needs: a function that makes the network, one that gives the data, and
    resnet18.toml that names them; 15 lines at most together.
Run:
    python train_resnet18.py  # stands for your own training, writes resnet18.pth; --full takes minutes
    prunas shrink resnet18.toml --weights resnet18.pth --keep 0.5 --metric macs --to small-resnet18
Comes out: small-resnet18/ with weights, network.py, network.onnx, and report.html: accuracy before and after.
"""

from canvases import canvases
from torchvision.models import resnet18


def make():
    """The network as it was trained, without its weights."""
    return resnet18(num_classes=10)


def data(images=2000):
    """Arrays; map-style Datasets would do as well. Here: a digit somewhere on noise, and which one it is."""
    drawn = {"train": canvases(images, channels=3, filled=0, share=(0.0, 0.6))}
    drawn["test"] = canvases(images // 4, channels=3, filled=0, share=(0.6, 1.0), seed=1)
    return {split: (part.images.transpose(0, 3, 1, 2), part.labels[:, 0]) for split, part in drawn.items()}
