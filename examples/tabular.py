"""A CSV of regression targets: a network of linear layers, made smaller with its trained weights.

Shows: columns of a CSV as arrays, two targets a row, scaled with numbers of the training rows; task "regression".
Run:
    python tabular.py  # stands for your own training, writes reactor.csv and tabular.pth; --full takes minutes
    prunas shrink tabular.toml --weights tabular.pth --keep 0.3 --metric params --to small-tabular
Comes out: small-tabular/ with weights, network.py, network.onnx, and report.html: RMSE before and after, in units
    of the targets' deviation. Noise alone has about 0.2, and answering the mean 1.0.
"""

import argparse
from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from sklearn.datasets import make_friedman1
from torch import nn

FILE = Path(__file__).with_name("reactor.csv")
INPUTS = [f"sensor{i}" for i in range(10)]
TARGETS = ["yield", "waste"]


def write(rows: int) -> None:
    """Makes up a CSV: ten sensors, of which two targets depend with noise (Friedman 1991)."""
    x, first = make_friedman1(rows, noise=1.0, random_state=0)
    noise = np.random.default_rng(1).normal(0, 0.5, rows)
    second = 10 * np.abs(x[:, 5] - x[:, 6]) + 5 * x[:, 7] * x[:, 8] + noise
    table = np.column_stack((x, first, second))
    np.savetxt(FILE, table, "%.5f", ",", header=",".join(INPUTS + TARGETS), comments="")


def data() -> dict[str, tuple[np.ndarray, np.ndarray]]:
    """Sensors (rows, 10) and targets (rows, 2): the last fifth tests, the fifth before validates."""
    table = np.genfromtxt(FILE, delimiter=",", names=True, dtype=np.float32)
    x, y = (np.stack([table[name] for name in names], 1) for names in (INPUTS, TARGETS))
    a, b = 3 * len(table) // 5, 4 * len(table) // 5
    x, y = (
        (v - v[:a].mean(0)) / v[:a].std(0) for v in (x, y)
    )  # scaled by what is known of the training rows
    return {"train": (x[:a], y[:a]), "val": (x[a:b], y[a:b]), "test": (x[b:], y[b:])}


def make() -> nn.Module:
    """The network: three hidden layers of 256."""
    layers: list[nn.Module] = []
    for inputs in (len(INPUTS), 256, 256):
        layers += [nn.Linear(inputs, 256), nn.BatchNorm1d(256), nn.ReLU()]
    return nn.Sequential(*layers, nn.Linear(256, len(TARGETS)))


def train(epochs: int) -> None:
    """A plain training loop, which knows nothing of prunas; writes tabular.pth."""
    torch.manual_seed(0)
    net = make()
    x, y = map(torch.from_numpy, data()["train"])
    steps = epochs * -(-len(x) // 64)
    optimizer = torch.optim.AdamW(net.parameters(), lr=0.003, weight_decay=0.01)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.003, total_steps=steps)
    for epoch in range(epochs):
        for batch in torch.randperm(len(x)).split(64):
            loss = F.mse_loss(net(x[batch]), y[batch])
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
            schedule.step()
        print(f"epoch {epoch + 1} of {epochs}: loss {loss.item():.3f}", flush=True)
    torch.save(net.state_dict(), "tabular.pth")


if __name__ == "__main__":
    parser = argparse.ArgumentParser()
    parser.add_argument("--full", action="store_true", help="20,000 rows, 40 epochs; else a first look")
    rows, epochs = (20_000, 40) if parser.parse_args().full else (640, 3)
    write(rows)
    train(epochs)
