"""What the page says beside its tables."""

__all__ = ["ABOUT", "INTRODUCTION"]

INTRODUCTION = """\
# The study, reproduced

Liu et al., *Rethinking the Value of Network Pruning*, ICLR 2019
([arXiv:1810.05270](https://arxiv.org/abs/1810.05270)): its claims, its numbers, its critics, and what came
of them here.

`grid.toml` lists the cells in order of value; `claims.toml` the claims of the study and of its critics and
questions of our own, with the difference that matters ({margin} percentage points; {margins}), all written
down before the first run of a protocol; `published.json` holds the study's numbers, `results/` and `dense/`
what was measured, one small file a cell. This page and its figures are made of these files alone, and a
test checks that they are.

```sh
python -m benchmarks.reproduce --protocol reduced --data DIR --out DIR               # a CPU, all its cores
python -m benchmarks.reproduce --protocol fast --minutes 25 --data DIR --out DIR     # a GPU
python -m benchmarks.reproduce --protocol paper --minutes 25 --data DIR --out DIR
python -m benchmarks.reproduce plan --data DIR                  # how fast this machine is, and hours of every cell
python -m benchmarks.reproduce collect --data DIR --out DIR     # what is finished, while another process trains
python -m benchmarks.reproduce keep --data DIR --out DIR        # the same, and runs for another machine
python -m benchmarks.reproduce report                           # this page and its figures
```

A run trains what is missing, tells the hours left, and writes a cell's file whenever one of its trainings
has ended. It may be stopped at any moment and continues when it is called again; on another machine too, for
`kept/` holds the finished runs of cells under way, with the networks that runs to come prune, and a cell
whose file has all of it is left alone. Searches, transfers and trainings are those of `prunas search` and
`prunas transfer`; `--executor`, `--workers` and `--executor-set` are theirs too. By default every core has a
training of its own; when a search leaves one idle, it trains what later cells will need. A cell's precision
is part of what its runs are called by, and the same on any machine. On a machine without a package index:
besides torch, torchvision and numpy it imports matplotlib, networkx, platformdirs, pydantic, rich,
safetensors, scipy, typer and what they depend on; neither Optuna nor cmaes nor thop.

Four protocols, never mixed in a table:

{protocols}

{planned}
"""

ABOUT = {
    "reduced": (
        "The verdicts are on the claims *in this setting*: networks of a few hundred thousand weights, "
        "at an accuracy far above chance and below the study's. `slimming.pull` is 1.0 for all, as in "
        "`early`, where it was chosen from two trainings by validation accuracy. n counts searches, "
        "each with a dense network of its own, or trainings, as the table says.\n"
    ),
    "early": (
        "**These are results of the old protocol, and starve**: 1 to 8 epochs of a tenth of the images, "
        "23 to 59 %. They show that the machinery works and decide little; each stays only until "
        "`reduced` has the same cell. Two AMD EPYC virtual cores, busy with other work: times are upper "
        "bounds. `slimming.pull` was chosen from two trainings of the source network, 1.0 and 2.5, by "
        "validation accuracy. Final trainings saw the 5,000 images that the dense network saw and 556 of "
        "validation. `finetune-rewound` into less than the recipe's epochs was trained when it squeezed "
        "the schedule, and is left out until it has been trained again.\n"
    ),
}
"""Of protocols that need a word more."""
