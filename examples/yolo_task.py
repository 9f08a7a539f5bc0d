"""Detection by a network like YOLOv8's, whole: a task of its own says how its maps are learnt and read.

Shows: a class derived from `prunas.tasks.detection.Detection`; the network of yolo_like.py without `part`; labels
    from 0; a way to be taught, so that `+distill` is tried too.
Run (needs: pip install 'prunas[detection]'):
    python yolo_task.py  # stands for your own training, writes yolo.pth; --full takes minutes
    prunas shrink yolo.toml --weights yolo.pth --keep 0.4 --metric macs --to small-yolo
Comes out: small-yolo/ with weights, network.py, network.onnx (the three maps), and report.html: COCO's AP before
    and after.
"""

import argparse

import torch
import torch.nn.functional as F
from canvases import canvases
from torch import Tensor
from torchvision.ops import batched_nms, box_iou, complete_box_iou_loss
from yolo_like import REG, STRIDES, yolo_like

from prunas.tasks.detection import ABSENT, Detection, objects
from prunas.tasks.distillation import softened_divergence

CANDIDATES = 10  # positions that an object is assigned to, at most
WEIGHTS = {"box": 7.5, "class": 0.5, "sides": 1.5}  # of the losses, as YOLOv8 has them


def data(images: int = 1200) -> dict[str, tuple]:
    """Images (N, 3, 64, 64) of bytes; boxes (N, 4, 4) in pixels, labels (N, 4), -1 where there is no object."""
    splits = {}
    shares = {"train": (0.0, 0.6), "val": (0.6, 0.8), "test": (0.8, 1.0)}
    for seed, (split, share) in enumerate(shares.items()):
        count = images if split == "train" else max(16, images // 4)
        drawn = canvases(count, channels=3, seed=seed, share=share, zoom=2)
        targets = {"boxes": drawn.boxes, "labels": drawn.labels}
        splits[split] = drawn.images.transpose(0, 3, 1, 2), targets
    return splits


def read(maps: list[Tensor]) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    """What maps (B, 4 * REG + classes, H / s, W / s) say, over all P positions.

    Returns:
        Boxes (B, P, 4) in pixels; class logits (B, P, classes); logits of the bins of sides (B, P, 4, REG);
        centres (P, 2) and strides (P, 1) in pixels.
    """
    centres, strides = [], []
    for grid, stride in zip(maps, STRIDES, strict=True):
        rows, columns = (torch.arange(n, device=grid.device) + 0.5 for n in grid.shape[2:])
        y, x = torch.meshgrid(rows, columns, indexing="ij")
        centres.append(stride * torch.stack((x, y), -1).flatten(0, 1))
        strides.append(torch.full_like(centres[-1][:, :1], stride))
    centre, stride = torch.cat(centres), torch.cat(strides)
    flat = torch.cat([grid.flatten(2) for grid in maps], 2).transpose(1, 2)
    sides = flat[..., : 4 * REG].unflatten(-1, (4, REG))
    distances = stride * (sides.softmax(-1) * torch.arange(REG, device=flat.device)).sum(-1)
    boxes = torch.cat((centre - distances[..., :2], centre + distances[..., 2:]), -1)
    return boxes, flat[..., 4 * REG :], sides, centre, stride


@torch.no_grad()
def assign(
    boxes: Tensor, logits: Tensor, centre: Tensor, targets: dict[str, Tensor]
) -> tuple[Tensor, Tensor]:
    """Which object each position answers for (B, P), and how well, in [0, 1], (B, P): task alignment.

    An object has the positions inside of its box that rank highest by probability^0.5 * IoU^6 (Feng et al. 2021,
    arXiv:2108.07755, as YOLOv8 sets it); of several objects a position takes the one that it overlaps most.
    """
    real = (targets["labels"] != ABSENT)[..., None]  # (B, M, 1); shapes are those of padded targets
    corners = targets["boxes"][:, :, None]
    inside = ((centre > corners[..., :2]) & (centre < corners[..., 2:])).all(-1) & real
    overlap = torch.stack([box_iou(a, b) for a, b in zip(targets["boxes"], boxes, strict=True)]) * inside
    label = targets["labels"].clamp(min=0)[..., None].expand(-1, -1, len(centre))
    likely = logits.sigmoid().transpose(1, 2).gather(1, label)
    alignment = likely.sqrt() * overlap**6
    best = alignment.topk(min(CANDIDATES, len(centre))).indices
    chosen = torch.zeros_like(alignment).scatter_(2, best, 1.0) * inside
    taken, index = (overlap * chosen).max(1)
    scaled = (
        chosen * alignment / alignment.amax(2, keepdim=True).clamp(min=1e-9) * overlap.amax(2, keepdim=True)
    )
    return index, scaled.gather(1, index[:, None])[:, 0] * (taken > 0)


class Yolo(Detection):
    """Boxes as distributions over bins of each side, class probabilities, task-aligned assignment."""

    name = "yolo-detection"
    loss_of_outputs = True  # the network is called with images alone, in training too
    first_label = 0  # no class is background

    def loss(self, net, batch):
        """Of boxes, classes and sides, each over the sum of how well positions answer."""
        images, targets = batch
        boxes, logits, sides, centre, stride = read(net(images))
        index, quality = assign(boxes, logits, centre, targets)
        total = quality.sum().clamp(min=1)
        true = targets["boxes"].gather(1, index[..., None].expand(-1, -1, 4))
        of_box = (complete_box_iou_loss(boxes, true) * quality).sum() / total
        label = targets["labels"].clamp(min=0).gather(1, index)
        wanted = F.one_hot(label, logits.shape[-1]) * quality[..., None]
        of_class = F.binary_cross_entropy_with_logits(logits, wanted, reduction="sum") / total
        sought = torch.cat((centre - true[..., :2], true[..., 2:] - centre), -1) / stride
        sought = sought.clamp(
            0, REG - 1.01
        )  # between two bins, in proportion (Li et al. 2020, arXiv:2006.04388)
        low = sought.long()
        logs = sides.log_softmax(-1)
        near = logs.gather(-1, low[..., None])[..., 0] * (low + 1 - sought)
        far = logs.gather(-1, low[..., None] + 1)[..., 0] * (sought - low)
        of_side = -((near + far).mean(-1) * quality).sum() / total
        return WEIGHTS["box"] * of_box + WEIGHTS["class"] * of_class + WEIGHTS["sides"] * of_side

    def totals(self, net, batch):
        """The surest boxes of each image without those that they cover, and the objects that are there."""
        images, targets = batch
        found = []
        for boxes, logits in zip(*read(net(images))[:2], strict=True):
            scores, labels = logits.sigmoid().max(-1)
            best = batched_nms(boxes, scores, labels, 0.6)[:100]
            found.append({"boxes": boxes[best], "labels": labels[best], "scores": scores[best]})
        return found, objects(targets)

    def distillation_loss(self, student, teacher, temperature):
        """Divergence of class probabilities and of sides, where the teacher is sure of an object."""
        (_, ours, our_sides, *_), (_, theirs, their_sides, *_) = read(student), read(teacher)
        sure = theirs.sigmoid().amax(-1)
        softened = (theirs / temperature).sigmoid()
        of_class = F.binary_cross_entropy_with_logits(ours / temperature, softened, reduction="none").sum(-1)
        of_class = temperature**2 * (of_class * sure).sum() / sure.sum()
        at = sure.flatten().topk(4 * len(ours)).indices  # so many positions, whatever they are
        pairs = (sides.flatten(0, 1)[at].transpose(1, 2) for sides in (our_sides, their_sides))
        return WEIGHTS["class"] * of_class + WEIGHTS["sides"] * softened_divergence(*pairs, temperature)

    def unfit(self, output, images):
        """See `prunas.tasks.base.Task.unfit`."""
        channels = 4 * REG + self.data.classes
        wanted = [(images, channels)] * len(STRIDES)
        if isinstance(output, list) and [tuple(grid.shape[:2]) for grid in output] == wanted:
            return None
        return f"returns other than {len(STRIDES)} maps of {channels} channels"


def train(images: int, epochs: int) -> None:
    """A plain training loop; of prunas it has the loss alone, which could be anybody's. Writes yolo.pth."""
    torch.manual_seed(0)
    net = yolo_like(classes=10)
    learnt = Yolo(None)
    pixels, targets = data(images)["train"]
    pixels, targets = torch.from_numpy(pixels), {key: torch.from_numpy(v) for key, v in targets.items()}
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.002, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(
        optimizer, 0.002, total_steps=epochs * -(-len(pixels) // 16)
    )
    for epoch in range(epochs):
        for batch in torch.randperm(len(pixels)).split(16):
            loss = learnt.loss(net, (pixels[batch] / 255, {key: v[batch] for key, v in targets.items()}))
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}", flush=True)
    torch.save({"model": net.state_dict()}, "yolo.pth")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true", help="1,200 images, 15 epochs; else a first look")
    train(*((1200, 15) if parser.parse_args().full else (48, 1)))
