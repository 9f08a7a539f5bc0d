"""The one error a user should ever see."""

import difflib
from collections.abc import Iterable

__all__ = ["InputError", "unknown"]


class InputError(ValueError):
    """Something the user gave cannot be used.

    The message is one line that names the thing and says what to do. The command line prints it without a
    traceback and exits with code 2.
    """


def unknown(kind: str, name: str, known: Iterable[str]) -> InputError:
    """The error for a name that is not in a table, with the nearest names that are.

    Args:
        kind: What the name should have been, for example ``"space"``.
        name: What was given.
        known: The names that exist.
    """
    names = sorted(known)
    near = difflib.get_close_matches(name, names, n=3, cutoff=0.4)
    hint = f"did you mean {', '.join(near)}?" if near else f"there are: {', '.join(names) or 'none'}"
    return InputError(f"unknown {kind} {name!r}; {hint}")
