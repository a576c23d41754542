"""What the tests of publishing share."""

from __future__ import annotations

import pytest

from pipelines.cli.main import main


@pytest.fixture
def told(capsys):
    """A function that runs a command, wants an exit code of it, and gives what it printed."""

    def run(*words, code=0):
        ended = main([str(word) for word in words])
        out, err = capsys.readouterr()
        assert ended == code, out + err
        return out + err

    return run


@pytest.fixture(scope="session")
def package(run, made_once):
    """The folder of a run as it goes out; not to be changed."""
    words = ["publish", run, "org/landuse", "--dry_run", "--licence", "Apache-2.0", "--data", "Chips (CC BY 4.0)"]
    return made_once("package", lambda out: main([*map(str, words), "--out", str(out), "--quiet"]))


@pytest.fixture
def files(package):
    """The same, as bytes by name."""
    return {path.name: path.read_bytes() for path in package.iterdir()}
