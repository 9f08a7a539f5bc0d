"""Lightning: a shape that a search found is trained by a Trainer of Lightning.

Shows: a point of a search is a plain module, for any training loop; `space.build` makes it with fresh weights.
Run (needs: pip install lightning):
    python lightning_training.py  # seconds; --full searches and trains for about a minute
Comes out: the table of a search on scikit-learn's digits, and the test accuracy of a found shape after Lightning.
"""

import argparse

import lightning
import torch
import torch.nn.functional as F
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch.utils.data import DataLoader, TensorDataset

import prunas


class Digits(lightning.LightningModule):
    """Any module of yours; here cross entropy and one cycle."""

    def __init__(self, net: torch.nn.Module) -> None:
        super().__init__()
        self.net = net

    def training_step(self, batch, index):
        """Cross entropy of a batch."""
        images, labels = batch
        return F.cross_entropy(self.net(images), labels)

    def test_step(self, batch, index):
        """Accuracy of a batch, in percent."""
        images, labels = batch
        self.log("accuracy", 100 * (self.net(images).argmax(1) == labels).float().mean())

    def configure_optimizers(self):
        """SGD with one cycle."""
        optimizer = torch.optim.SGD(self.parameters(), lr=0.05, momentum=0.9, weight_decay=5e-4)
        steps = self.trainer.estimated_stepping_batches
        schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.05, total_steps=steps)
        return {"optimizer": optimizer, "lr_scheduler": {"scheduler": schedule, "interval": "step"}}


def found_shape(epochs: int) -> torch.nn.Module:
    """A smaller VGG-11 for digits, found by slimming and fitted to 30 % of the parameters, with fresh weights."""
    found = prunas.search("vgg11-digits", "slimming", keep=0.3, seeds=1, recipe={"epochs": epochs})
    print(found.table())
    row = next(row for row in found.rows if row.proposer == "slimming")
    architecture = prunas.load_run(row.folder).architecture
    return found.space.build(architecture)


def train(net: torch.nn.Module, epochs: int) -> float:
    """Test accuracy in percent after a training by Lightning."""
    digits = load_digits()
    images = torch.from_numpy(digits.images).float()[:, None] / 16
    parts = train_test_split(images, torch.from_numpy(digits.target), test_size=0.2, random_state=0)
    train_set, test_set = (TensorDataset(x, y) for x, y in (parts[::2], parts[1::2]))
    lightning.seed_everything(0, verbose=False)
    trainer = lightning.Trainer(
        max_epochs=epochs,
        accelerator="cpu",
        logger=False,
        enable_checkpointing=False,
        enable_progress_bar=False,
    )
    module = Digits(net)
    trainer.fit(module, DataLoader(train_set, 32, shuffle=True))
    return trainer.test(module, DataLoader(test_set, 256), verbose=False)[0]["accuracy"]


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true", help="15 epochs; else 2")
    epochs = 15 if parser.parse_args().full else 2
    print(f"test accuracy after Lightning: {train(found_shape(epochs), epochs):.1f} %")
