"""The study of a space: what is trained in it, how, and at which budgets, unless told otherwise. Torch-free."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from prunas.recipe import FineTuning, Recipe, recipe

__all__ = ["Study"]


@dataclass(frozen=True, slots=True)
class Study:
    """The other half of a space's file: defaults of its searches. The bounds of its points do not depend on it.

    Attributes:
        data: Name of the data set, or "" if there is none; or the function that makes it,
            "package.module:function" or "file.py:function" with the file beside the space's own.
        data_options: Settings of the data set, for example {"size": 64}.
        task: Name of the task; or the function that makes it, "package.module:function" or "file.py:function" with
            the file beside the space's own.
        loss: Function that replaces the task's loss, named likewise; "" for none.
        score: What replaces or describes the task's score: its `function`, named likewise, and what the function
            returns; see `prunas.tasks.load.find_task`.
        recipe: Name of the default recipe.
        recipe_changes: Settings in which the default recipe differs from the one of that name.
        metric: What default targets are fractions of.
        keep: Default targets, each in (0, 1].
        cap: Largest factor of Scratch-B epochs, or None.
        finetune: Epochs and rate of fine-tuning with the default recipe, in proportion with another; None: a
            quarter of the recipe's epochs at a hundredth of its rate.
        weights: Of the dense network of pruning methods, which is then not trained: see
            `prunas.surgery.given.Weights.of`; a file lies beside the space's own. "" has it trained.
        options: Settings of proposers by name, for example {"slimming": {"pull": 0.66}}.
    """

    data: str = ""
    data_options: Mapping[str, Any] = field(default_factory=dict, hash=False)
    task: str = "classification"
    loss: str = ""
    score: Mapping[str, Any] = field(default_factory=dict, hash=False)
    recipe: str = "paper"
    recipe_changes: Mapping[str, Any] = field(default_factory=dict, hash=False)
    metric: str = "params"
    keep: tuple[float, ...] = (0.5, 0.3, 0.1)
    cap: float | None = None
    finetune: FineTuning | None = None
    weights: str = ""
    options: Mapping[str, Mapping[str, Any]] = field(default_factory=dict, hash=False)

    def default_recipe(self) -> Recipe:
        """The recipe of that name with those changes.

        Raises:
            InputError: There is no such recipe or setting, or a value cannot be used.
        """
        return recipe(self.recipe).replace(**self.recipe_changes)
