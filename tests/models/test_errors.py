"""What is shown of errors, addresses and names from files."""

import errno

import pytest

from models.errors import InputError, RunError, explained, shown


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("https://me:pw@h.org/a/x.tif?sig=abc&se=1", "https://h.org/a/x.tif"),
        ("https://h.org:8080/x.tif?sig=a: not a raster; fetch it", "https://h.org:8080/x.tif: not a raster; fetch it"),
        ("https://h.org/a.tif?k=1,https://u@h.org/b.tif?k=2", "https://h.org/a.tif,https://h.org/b.tif"),
        ("'https://me@h/x.tif?sig=a' (s3://b/k#part)", "'https://h/x.tif' (s3://b/k)"),
        ("/vsicurl/https://me:p@ss@h/x.tif?a=b", "/vsicurl/https://h/x.tif"),
        ("/vsicurl?header.Authorization=Bearer%20x&url=https%3A%2F%2Fh: no", "/vsicurl: no"),
        ("HTTPS://Me:PW@h/X.tif?SIG=1", "HTTPS://h/X.tif"),
        ("https://h/x.tif", "https://h/x.tif"),
        ("netcdf:/a/b.nc:x, what? a@b", "netcdf:/a/b.nc:x, what? a@b"),
        ("a\x1b[31mred\x07\r\x9b", "a\\x1b[31mred\\x07\\x0d\\x9b"),
        ("gpj.\u202efit \ud800\udce9", "gpj.\\u202efit \\ud800\\udce9"),
        ("line\nand\ttab, Zürich 東京", "line\nand\ttab, Zürich 東京"),
    ],
)
def test_what_is_shown(text, wanted):
    assert shown(text) == wanted
    assert shown(wanted) == wanted


class GEOSException(Exception):
    __module__ = "shapely.errors"


@pytest.mark.parametrize(
    ("error", "words", "code"),
    [
        (InputError("a\nb https://u:p@h/x?k"), "a b https://h/x", 2),
        (RunError("a"), "a", 1),
        (GEOSException("two\npoints"), "two points; check the input", 2),
        (FileNotFoundError(errno.ENOENT, "No such file", "a"), "check the name", 2),
        (OSError(errno.ENAMETOOLONG, "File name too long", "a"), "check the name", 2),
        (OSError(errno.ENOSPC, "No space left"), "make space", 1),
        (UnicodeDecodeError("utf-8", b"\xe9", 0, 1, "no"), "is not UTF-8", 2),
        (GEOSException("long " * 999), "...; check the input", 2),
        (MemoryError(), "not enough memory", 1),
        (ValueError("what"), "unexpected ValueError: what; --debug shows where; please report it", 1),
        (ImportError("x"), "please report it", 1),
    ],
)
def test_errors_are_one_line_and_only_ours_are_to_be_reported(error, words, code):
    line, exit_code = explained(error)
    assert words in line and exit_code == code and "\n" not in line
    assert ("please report it" in line) == ("please report it" in words)
