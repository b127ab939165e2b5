"""`dxad record` writes where it may, in a format that it knows; nothing is replaced unasked."""

import pytest
from click.testing import CliRunner

from dxad.cli.record import record


@pytest.fixture
def told(tmp_path):
    """Runs it against a daemon that is not there."""

    def run(name: str, *flags: str):
        words = ["-o", str(tmp_path / name), "--for", "1s", "--socket", str(tmp_path / "none.sock"), *flags]
        return CliRunner().invoke(record, words)

    return run


def test_a_file_that_is_there_is_replaced_only_if_somebody_says_so(told, tmp_path):
    (tmp_path / "rec.csv").write_text("precious\n")
    done = told("rec.csv")
    assert done.exit_code == 2
    assert "is there already; --force replaces it" in done.output
    assert told("rec.csv", "--force").exit_code == 3, "it goes on to ask the daemon, which is not there"
    assert (tmp_path / "rec.csv").read_text() == "precious\n"


def test_a_format_that_nobody_knows_is_refused(told):
    done = told("rec.foo")
    assert done.exit_code == 2
    assert ".csv, .npz or .jsonl" in done.output
