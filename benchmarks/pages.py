"""Pages of benchmarks: prose by hand, tables made of results between two marks."""

__all__ = ["between_marks"]

BEGIN, END = "<!-- table -->\n", "<!-- end -->\n"


def between_marks(text: str, tables: str) -> str:
    """A page with what stands between its marks made anew.

    Args:
        text: The page as it is.
        tables: Markdown that ends with a line break.
    """
    head, _, rest = text.partition(BEGIN)
    return f"{head}{BEGIN}\n{tables}{END}{rest.partition(END)[2]}"
