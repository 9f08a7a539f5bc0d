"""Commands run in the test's own process."""

import pytest

from prunas.cli import main


def command(*words: str) -> int | str | None:
    """The exit code of `prunas` with these words."""
    with pytest.raises(SystemExit) as ended:
        main(list(words))
    return ended.value.code
