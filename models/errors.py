"""The error tree: what a person did wrong (exit code 2) and what went wrong while running (exit code 1).

A message is one line: the file or argument, what was wanted, what came, what to do.
"""


class EarthtuneError(Exception):
    """Any error whose message is meant for a person; the command line prints it without a traceback."""

    exit_code = 1


class InputError(EarthtuneError):
    """The input, the recipe or an argument cannot be used as it is; the message says what to change."""

    exit_code = 2


class RunError(EarthtuneError):
    """The work failed on the way (disk full, a file that broke while being read); the command may be tried again."""


def explained(error: BaseException) -> tuple[str, int]:
    """What a person reads of an error, and the exit code."""
    if isinstance(error, EarthtuneError):
        return str(error), error.exit_code
    if isinstance(error, OSError):
        return f"{error}; make space or give another folder, then run the same command", 1
    line = " ".join(str(error).split()) or "no message"
    return f"unexpected {type(error).__name__}: {line}; --debug shows where; please report it", 1


# What a mistake of ours, or a file that nobody thought of, ends in. A person gets a line, not a traceback.
UNEXPECTED = (
    *(ArithmeticError, AssertionError, AttributeError, LookupError, MemoryError),
    *(RuntimeError, SyntaxError, TypeError, ValueError),
)
