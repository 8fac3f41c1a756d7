"""`diptych serve` refuses what would be unsafe or cannot be; tests/http serves in earnest."""

from __future__ import annotations

from tests.cli.conftest import Cli


def test_the_command_line_refuses_other_addresses_without_authentication(cli: Cli) -> None:
    for host in ("0.0.0.0", "::", "192.0.2.7", "example.com"):
        answer = cli("serve", "--host", host, "--json")
        assert (answer.status, answer.error["code"]) == (2, "insecure")
        assert "--authenticate" in answer.error["hint"]


def test_the_command_line_says_what_is_no_authentication(cli: Cli) -> None:
    for where in ("nope:x", "json:nope", "json", "json:__doc__"):
        answer = cli("serve", "--authenticate", where, "--json")
        assert answer.status == 2


def test_an_address_that_cannot_be_had_is_told(cli: Cli) -> None:
    answer = cli("serve", "--host", "192.0.2.7", "--insecure", "--json")
    assert (answer.status, answer.error["code"]) == (2, "invalid")
    assert answer.error["facts"]["got"] == "192.0.2.7:8000"
