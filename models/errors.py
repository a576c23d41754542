"""The error tree: what a person did wrong (exit code 2) and what went wrong while running (exit code 1).

A message is one line: the file or argument, what was wanted, what came, what to do.
"""

import errno
import re


class EarthtuneError(Exception):
    """Any error whose message is meant for a person; the command line prints it without a traceback."""

    exit_code = 1


class InputError(EarthtuneError):
    """The input, the recipe or an argument cannot be used as it is; the message says what to change."""

    exit_code = 2


class RunError(EarthtuneError):
    """The work failed on the way (disk full, a file that broke while being read); the command may be tried again."""


# Libraries that raise errors of their own only over what they are given.
_READERS = frozenset(("fiona", "h5py", "odc", "pyogrio", "pyproj", "rasterio", "shapely", "zarr"))
_LONG = 300  # letters; a coordinate system in full has thousands
_WRONG_PATH = frozenset(
    (errno.ENOENT, errno.EACCES, errno.EPERM, errno.ENOTDIR, errno.EISDIR, errno.ENAMETOOLONG, errno.ELOOP)
)
_ADDRESS = re.compile(
    r"""(?P<scheme>[a-z][a-z0-9+.-]*://)
        (?:[^/\s?#'"]*@)?                   # name and password
        (?P<path>[^\s?#'"<>]*?)
        (?:[?#][^\s'"<>]*?)?                # keys and signatures
        (?=,[a-z][a-z0-9+.-]*://|[:,;.)\]]*(?:[\s'"<>]|$))""",
    re.VERBOSE | re.IGNORECASE,
)
_OPTIONS_OF_VSI = re.compile(r"""(/vsi\w+)\?[^\s'"<>]*?(?=[:,;.)\]]*(?:[\s'"<>]|$))""")
# Escapes move a terminal's cursor and colour its text, marks of direction turn what follows around, and surrogates
# (bytes of names that are not UTF-8) cannot be printed at all.
_UNSEEN = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200b-\u200f\u2028-\u202e\u2066-\u2069\ufeff\ud800-\udfff]")


def shown(text: str) -> str:
    """A text fit to be shown and stored: addresses without passwords and keys, and no control character at work.

    Of an address its user, password, query and fragment are left out. Control characters other than line ends and
    tabs are spelled out: the escape becomes the four letters of backslash, x, 1, b.
    """
    text = _ADDRESS.sub(r"\g<scheme>\g<path>", _OPTIONS_OF_VSI.sub(r"\1", text))
    return _UNSEEN.sub(_spelled, text)


def _spelled(found: re.Match[str]) -> str:
    code = ord(found[0])
    return f"\\x{code:02x}" if code < 256 else f"\\u{code:04x}"


def explained(error: BaseException) -> tuple[str, int]:
    """What a person reads of an error, on one line, and the exit code."""
    line = shown(" ".join(str(error).split()))
    if isinstance(error, EarthtuneError):
        return line, error.exit_code
    if type(error).__module__.partition(".")[0] in _READERS:
        told = f"{line[:_LONG]} ..." if len(line) > _LONG else line or type(error).__name__
        return f"{told}; check the input, --debug shows where it came from", 2
    if isinstance(error, UnicodeError):
        return f"{line}: a name, or text in a file, is not UTF-8; rename it, or write it again", 2
    if isinstance(error, OSError) and error.errno in _WRONG_PATH:
        return f"{line}; check the name and its permissions", 2
    if isinstance(error, OSError):
        return f"{line}; make space or give another folder, then run the same command", 1
    if isinstance(error, MemoryError):
        return f"{line or 'not enough memory'}; cut the input, or take a machine with more", 1
    return f"unexpected {type(error).__name__}: {line or 'no message'}; --debug shows where; please report it", 1
