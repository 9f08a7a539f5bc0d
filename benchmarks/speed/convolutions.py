"""`OMP_NUM_THREADS=1 python -m benchmarks.speed.convolutions`: from which size on oneDNN pays on a CPU.

Training steps of small networks with oneDNN and without it, in turns; processor time of the best round.
"""

import time

import torch

from prunas import designs
from prunas.data import load
from prunas.recipe import recipe
from prunas.spaces.load import load_space
from prunas.tasks.classification import Classification
from prunas.training.step import Step
from prunas.works.processor import ONEDNN, convolutions

CASES = [  # space, share of the parameters, batch
    *(("vgg11-digits", keep, 32) for keep in (0.005, 0.02, 0.04, 0.06, 0.1, 1.0)),
    *(("preresnet20-digits", keep, 32) for keep in (0.2, 0.8)),
    ("vgg11-digits", 0.04, 8),
    ("preresnet20-digits", 0.4, 8),
    ("vgg11-digits", 0.01, 128),
    ("resnet20-c10", 0.03, 8),
]
ROUNDS, STEPS = 7, 25


def main() -> None:
    torch.set_num_threads(1)
    print(
        f"| space, batch | MACs of a batch and layer (limit {ONEDNN:,}) | oneDNN, ms | torch's own, ms | ratio |"
    )
    print("|---|--:|--:|--:|--:|")
    task = Classification(load("digits"))  # of whose images nothing is asked
    for name, keep, batch in CASES:
        space = load_space(name)
        arch = space.dense if keep == 1 else designs.uniform(space, space.target(keep=keep))
        layers = sum(layer.kind in ("conv", "linear") for layer in space.survey.layers)
        images, labels = torch.randn(batch, *space.survey.input), torch.randint(10, (batch,))
        best = {True: float("inf"), False: float("inf")}
        step = Step(
            space.build(arch), task, lambda _, b=(images, labels): b, recipe("digits"), torch.device("cpu")
        )
        for _ in range(ROUNDS):
            for onednn in best:
                with convolutions(onednn):
                    step(())
                    start = time.process_time()
                    for _ in range(STEPS):
                        step(())
                best[onednn] = min(best[onednn], 1e3 * (time.process_time() - start) / STEPS)
        macs = space.cost(arch).macs * batch / layers
        ratio = best[False] / best[True]
        print(
            f"| {name} {keep:.1%}, {batch} | {macs:,.0f} | {best[True]:.2f} | {best[False]:.2f} | {ratio:.2f} |"
        )


if __name__ == "__main__":
    main()
