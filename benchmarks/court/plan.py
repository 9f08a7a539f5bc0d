"""How long the court sits: images per second of this machine, and hours of every shape."""

from collections.abc import Callable, Sequence

from benchmarks.court.cases import Case
from benchmarks.reproduce.plan import images_per_second
from prunas.recipe import recipe

__all__ = ["foresee"]


def foresee(cases: Sequence[Case], say: Callable[[str], None] = print) -> bool:
    """Measures the dense network of every space, and tells the core hours of every shape at that pace.

    Pruned networks have fewer MACs and nearly as many layers, so that these are upper bounds.

    Args:
        cases: The cases.
        say: Told what comes out.
    """
    rates: dict[str, float] = {}
    total = 0.0
    for case in cases:
        how = case.protocol
        assert how.recipe is not None
        settled = recipe(how.recipe).replace(**how.changes)
        if case.space.name not in rates:
            rates[case.space.name] = images_per_second(case.space, settled)
        distinct = {shape.architecture.digest for shape in case.shapes().values()}
        images = len(distinct) * how.seeds * settled.epochs * 50_000
        hours = images / rates[case.space.name] / 3600
        total += hours
        say(
            f"{case.name_in_full}: {rates[case.space.name]:.0f} images per second, {hours:.1f} hours of a core"
        )
    say(f"all of them: {total:.1f} hours of a core")
    return True
