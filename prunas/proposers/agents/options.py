"""Settings of agents and of policies, for the table of proposers. Torch-free."""

from prunas.proposers.options import Option, at_least

__all__ = ["LOWER", "POLICY", "REWARD", "before_learning"]

LOWER = Option(
    "lower",
    float,
    None,
    "least share of a dimension that stays; 0.2, or less where a budget needs it",
    lambda share: 0 < share < 1,
    "between 0 and 1",
)
REWARD = Option(
    "reward",
    str,
    "score",
    "what an episode is worth: its score, or its error times the logarithm of its MACs",
    choices=("score", "error-cost"),
)
POLICY = (
    at_least(2, "images", 2048, "images of the training split that the policy learns from, at most"),
    Option("penalty", float, 1.0, "what a wrong answer costs", lambda cost: cost >= 0, "0 or more"),
    Option(
        "alpha",
        float,
        0.8,
        "how close what is drawn keeps to the policy",
        lambda share: 0.5 < share < 1,
        "above 0.5, below 1",
    ),
    Option("beta", float, 0.1, "weight of the entropy", lambda weight: weight >= 0, "0 or more"),
)


def before_learning(default: float) -> Option:
    """The setting that says when an agent begins to learn."""
    return Option(
        "startup",
        float,
        default,
        "share of the trials that come before the agent learns",
        lambda share: 0 < share <= 1,
        "above 0, at most 1",
    )
