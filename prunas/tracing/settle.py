"""Drafts of a survey, each verified at random points, until one passes."""

import random
from collections.abc import Callable, Mapping, Sequence
from functools import partial

import numpy as np

from prunas.errors import InputError
from prunas.surgery.construct import Factory
from prunas.survey import Frozen, Survey
from prunas.tracing.ledger import Ledger
from prunas.tracing.localize import Narrowable, failure_inducing
from prunas.tracing.propagate import LabelPass
from prunas.tracing.trace import OnMeta, Trace
from prunas.tracing.verify import Failure, failure, selections, subset

__all__ = ["settled"]

ATTEMPTS = 30


def settled(
    factory: Factory,
    on_meta: OnMeta,
    ledger: Ledger,
    trace: Trace,
    passes: Mapping[bool, LabelPass],
    describe: Callable[..., Survey],
    seed: int,
) -> Survey:
    """The first draft that passes: at its narrowest point, then at one random point, or at three after a failure.

    Args:
        factory: Of the dense network.
        on_meta: Runs it.
        ledger: Its labels; what a point shows to be fixed is frozen there.
        trace: How it is traced.
        passes: Over it, by mode.
        describe: Writes a draft, given `grouping`, `standing` (blocks that cannot be removed, and why) and
            `closed` (gates that cannot select, and why).
        seed: Chooses the points.

    Raises:
        InputError: No draft passes.
    """
    return _Settling(factory, on_meta, ledger, trace, passes, describe, random.Random(seed)).settled()


class _Settling:
    """Drafts of a survey and the random points that they must pass; what fails is held in the next draft.

    Attributes:
        grouping: What the labels condense to now.
        standing: Blocks that cannot be removed, and why.
        closed: Gates that cannot select, and why.
        stood: Blocks in whose absence the narrowest network of this grouping does the same around them.
        passed: Whether the narrowest network of this grouping passes where no gate selects.
    """

    def __init__(
        self,
        factory: Factory,
        on_meta: OnMeta,
        ledger: Ledger,
        trace: Trace,
        passes: Mapping[bool, LabelPass],
        describe: Callable[..., Survey],
        generator: random.Random,
    ) -> None:
        self.factory, self.on_meta, self.ledger = factory, on_meta, ledger
        self.trace, self.passes = trace, passes
        self.describe, self.generator = describe, generator
        self.grouping = ledger.group()
        self.standing: dict[str, str] = {}
        self.closed: dict[str, Frozen] = {}
        self.stood: frozenset[str] = frozenset()
        self.passed = False

    def settled(self) -> Survey:
        """See the function of this name."""
        narrowest, remaining = True, 1  # Python may branch on a width
        draft: Survey | None = None
        for _ in range(ATTEMPTS):
            draft = draft or self.describe(grouping=self.grouping, standing=self.standing, closed=self.closed)
            widths = [
                1 if narrowest else self.generator.randint(max(1, group.units // 3), group.units - 1)
                for group in draft.groups
            ]
            selected = selections(draft, widths, self.generator)
            fails = partial(
                failure,
                self.factory,
                self.on_meta,
                draft,
                self.grouping,
                self.passes,
                self.trace,
                narrowest,
                modes=self.passes.keys() if narrowest or remaining == 1 else {False},
            )
            names = frozenset(block.name for block in draft.blocks)
            failed = fails(widths, selected, blocks=not names <= self.stood)
            if failed is not None and selected and not failed.blocks:
                unselected = None
                if not (narrowest and self.passed and names <= self.stood):
                    unselected = fails(widths, {}, blocks=not names <= self.stood)
                if unselected is None:
                    if narrowest:
                        self.stood, self.passed = self.stood | names, True
                    self._close_gates(partial(fails, widths, blocks=False), selected, failed)
                    draft = None
                    continue
                failed = unselected
            if failed is None:
                if narrowest:
                    self.stood |= names
                else:
                    remaining -= 1
                narrowest = False
                if not remaining:
                    return draft
            elif failed.blocks:
                self.standing |= dict.fromkeys(failed.blocks, failed.why)
                draft = None
            else:
                adopted = self._hold(failed, fails, draft, widths)
                self.stood, self.passed = frozenset(), False
                draft, remaining = None, 2 if adopted else 3  # one point can pass by luck
        raise InputError(f"the survey did not settle after {ATTEMPTS} random points; exclude more layers")

    def _close_gates(
        self,
        fails: Callable[[Mapping[str, Sequence[int]]], Failure | None],
        selected: Mapping[str, list[int]],
        failed: Failure,
    ) -> None:
        """Closes the gates whose selections make a point fail; all where the factory runs what it makes."""
        few = [*selected][:2]
        if len(selected) > 2 and all((f := fails(subset(selected, [g]))) and not f.made for g in few):
            why = "its inputs cannot be selected: the factory runs its layers while it makes the network"
            self.closed |= {gate: Frozen(gate, why, failed.place or gate) for gate in selected}
            return
        failing = failure_inducing(
            lambda names: fails(subset(selected, [str(name) for name in names])),
            [*selected],
            {gate: gate for gate in selected},
            failed,
        )
        for gate, alone in failing.items():
            why = f"its inputs cannot be selected: {alone.why}"
            self.closed[str(gate)] = Frozen(str(gate), why, alone.place or str(gate))

    def _hold(
        self,
        failed: Failure,
        fails: Callable[..., Failure | None],
        draft: Survey,
        widths: Sequence[int],
    ) -> bool:
        """Pairs the channels that were supposed to be where a point failed, or else freezes them.

        If none are known there, the groups that make it fail are frozen.

        Returns:
            Whether it pairs.

        Raises:
            InputError: Nothing is left to freeze.
        """
        line = failed.place.rpartition("(")[2]
        if failed.made and self.ledger.adopt(line):
            self.grouping = self.ledger.group()
            return True
        self.ledger.retract(line)
        if failed.layer:
            self.ledger.forbid(failed.layer, failed.why, failed.layer)
        if failed.node is not None:
            for labelled in self.passes.values():
                labelled.freeze(failed.node, failed.why)
        before, self.grouping = self.grouping, self.ledger.group()
        if len(self.grouping.groups) == len(before.groups):
            # What enters the node is held already, or it is unknown.
            def narrowed(groups: Sequence[Narrowable]) -> Failure | None:
                narrow = [w if i in groups else draft.groups[i].units for i, w in enumerate(widths)]
                return fails(narrow, {}, blocks=False)

            names: dict[Narrowable, str] = {i: group.name for i, group in enumerate(draft.groups)}
            whys: dict[str, str] = {}  # one reason a place: its numbers are chance
            for i, alone in failure_inducing(narrowed, [*names], names, failed).items():
                why = whys.setdefault(alone.place, alone.why)
                labels = [self.ledger.axes[axis][group == i] for axis, (group, _) in before.axes.items()]
                self.ledger.freeze(np.concatenate(labels), why, alone.place)
            self.grouping = self.ledger.group()
        if len(self.grouping.groups) == len(before.groups):
            raise InputError(f"the network cannot be narrowed: {failed.why} at every width [{failed.place}]")
        return False
