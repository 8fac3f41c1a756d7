"""`diptych serve` refuses what would be unsafe or cannot be; tests/http serves in earnest."""

from __future__ import annotations

import pytest

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


@pytest.mark.parametrize("port", ["65536", "99999", "-1"])
def test_a_port_that_is_none_is_refused(cli: Cli, port: str) -> None:
    """The system would take it for another: the number modulo 65,536."""
    answer = cli("serve", "--port", port, "--json")
    assert (answer.status, answer.error["code"]) == (2, "invalid")
    assert answer.error["facts"]["field"] == "port"
    assert answer.error["facts"]["got"] == int(port)


@pytest.mark.parametrize("grace", ["-1", "nan", "inf"])
def test_a_time_to_finish_that_is_none_is_refused(cli: Cli, grace: str) -> None:
    answer = cli("serve", "--port", "0", "--grace", grace, "--json")
    assert (answer.status, answer.error["code"]) == (2, "usage")
    assert answer.error["message"].startswith("--grace")
