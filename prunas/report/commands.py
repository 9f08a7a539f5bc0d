"""The commands that repeat every search, print its tables and draw its figures."""

import shlex
from pathlib import Path

from prunas.report.evidence import Evidence

__all__ = ["commands"]


def commands(evidence: Evidence, out: Path) -> list[str]:
    """One command for each stored search, then those that print and draw.

    A search that only Python can ask for, or that was stored without its plan, is a comment.

    Args:
        evidence: Of one setting.
        out: The folder that holds all runs.
    """
    lines = []
    for document in evidence.searches:
        plan = document.get("plan") or {}
        if words := plan.get("command"):
            lines.append(shlex.join(["prunas", *map(str, words), "--out", str(out)]))
        else:
            names = ", ".join(plan.get("proposers", ())) or "an older version"
            told = (
                "was asked for in Python; its document holds the plan"
                if plan
                else "was stored without a plan"
            )
            lines.append(f"# a search by {names} {told}")
    figures = ["efficiency", "pareto", "cost"]
    optional = {"budget": evidence.budgets(), "widths": evidence.spreads(), "kernels": evidence.patterns()}
    figures += [*(figure for figure, values in optional.items() if values), "curves"]
    views = [["compare"], *(["plot", figure] for figure in figures), ["report"]]
    return lines + [shlex.join(["prunas", *view, evidence.record.space, "--out", str(out)]) for view in views]
