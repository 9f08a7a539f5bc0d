"""The badges of the README, of what `pyproject.toml` says.

python docs/hooks/badges.py     # draws them anew
"""

import tomllib
from pathlib import Path

__all__ = ["FOLDER", "badges"]

ROOT = Path(__file__).resolve().parent.parent.parent
FOLDER = ROOT / "docs" / "assets"

BADGE = """<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="20" role="img"
 aria-label="{left}: {right}"><title>{left}: {right}</title>
<rect width="{width}" height="20" rx="3" fill="#12304a"/>
<path d="M{middle} 0H{bend}a3 3 0 0 1 3 3v14a3 3 0 0 1-3 3H{middle}z" fill="#0b5fa5"/>
<g fill="#fff" font-family="DejaVu Sans,Verdana,sans-serif" font-size="11" text-anchor="middle">
<text x="{left_x}" y="14">{left}</text><text x="{right_x}" y="14">{right}</text></g></svg>
"""
_LETTER, _MARGIN = 7, 10


def badges() -> dict[str, str]:
    """Every badge by the name of its file."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    said = {
        "python": project["requires-python"].replace(">=", "") + " or newer",
        "license": project["license"],
    }
    if (ROOT / "prunas" / "py.typed").is_file():
        said["typed"] = "mypy strict"
    return {f"{left}.svg": _badge(left, right) for left, right in said.items()}


def _badge(left: str, right: str) -> str:
    middle = _LETTER * len(left) + _MARGIN
    width = middle + _LETTER * len(right) + _MARGIN
    return BADGE.format(
        left=left,
        right=right,
        width=width,
        middle=middle,
        bend=width - 3,
        left_x=middle / 2,
        right_x=(middle + width) / 2,
    )


if __name__ == "__main__":
    for name, text in badges().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
