"""Behind a real nginx, with the lines that the how-to gives: who asks, streams, a path prefix."""

from __future__ import annotations

import asyncio
import os
import re
import shutil
import subprocess
import time
from collections.abc import Generator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from diptych.http import trusted_proxy
from tests.house.paths import ROOT
from tests.http.conftest import Serve, placing, quiet_port
from tests.http.reading import following

PAGE = ROOT / "docs" / "how-to" / "serve-over-http.md"

NGINX = shutil.which("nginx", path=f"{os.environ.get('PATH', '')}:/usr/sbin:/usr/local/sbin")

pytestmark = pytest.mark.skipif(NGINX is None, reason="no nginx on the PATH: apt install nginx")

PROXY = "127.0.0.2"
"""Where the proxy's connections come from; everybody else's come from 127.0.0.1."""

who = trusted_proxy("X-Forwarded-User", roles="X-Forwarded-Groups", proxies=[PROXY])

CONFIG = """
daemon off;
pid {folder}/pid;
error_log {folder}/error.log;
{user}
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body;
    proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/fastcgi;
    uwsgi_temp_path {folder}/uwsgi;
    scgi_temp_path {folder}/scgi;
    server {{
        listen 127.0.0.1:{port};
        auth_basic shop;
        auth_basic_user_file {folder}/users;
        proxy_bind {proxy};
        {location}
    }}
}}
"""


@contextmanager
def nginx(url: str, folder: Path) -> Generator[str]:
    """Put nginx before an address; gives its own."""
    assert NGINX is not None
    port = quiet_port()
    (folder / "users").write_text("ann:{PLAIN}secret\n")
    user = "user root;" if os.geteuid() == 0 else ""
    found = re.search(r"```nginx\n(.*?)```", PAGE.read_text(), re.DOTALL)
    assert found is not None
    location = found[1].replace("http://127.0.0.1:8000", url)
    assert url in location
    config = CONFIG.format(folder=folder, port=port, location=location, proxy=PROXY, user=user)
    (folder / "nginx.conf").write_text(config)
    command = [NGINX, "-p", str(folder), "-c", str(folder / "nginx.conf"), "-e", "error.log"]
    process = subprocess.Popen(command, stderr=subprocess.PIPE, text=True)
    try:
        with httpx.Client() as client:
            while process.poll() is None:
                try:
                    client.get(f"http://127.0.0.1:{port}/")
                    break
                except httpx.TransportError:
                    time.sleep(0.02)
        assert process.poll() is None, process.communicate()[1]
        yield f"http://127.0.0.1:{port}/shop"
    finally:
        process.terminate()
        process.communicate(timeout=30)


async def test_nginx_says_who_asks_and_keeps_no_event_back(serve: Serve, tmp_path: Path) -> None:
    words = ("--authenticate", f"{__name__}:who", "--allow-host", "*")
    server = await asyncio.to_thread(serve, *words)
    forged = {"X-Forwarded-User": "bob", "X-Forwarded-Groups": "admin"}
    with nginx(server.url, tmp_path) as url:
        async with (
            httpx.AsyncClient(auth=("ann", "secret"), timeout=20) as through,
            server.client() as direct,
        ):
            # What the client says of himself does not pass.
            done = await through.post(
                f"{url}/commands/Place",
                json=placing("1"),
                headers={**forged, "Origin": url.removesuffix("/shop")},
            )
            assert done.status_code == 200, done.text
            token = {"Last-Event-ID": done.json()["token"]}
            async with following(through, f"{url}/events?types=Placed", **token) as events:
                # It comes while the stream is open: nginx holds nothing back.
                await through.post(f"{url}/commands/Place", json=placing("2"), headers=forged)
                first = await asyncio.wait_for(anext(events), 20)
                assert first.data["data"]["order"] == "2"
                assert first.data["metadata"]["actor"] == "ann"
            # Past the proxy nobody is believed, whoever he says he comes from.
            refused = await direct.post(
                "/commands/Place",
                json=placing("3"),
                headers={**forged, "X-Forwarded-For": PROXY, "X-Real-IP": PROXY},
            )
            assert refused.status_code == 401
            foreign = await through.post(
                f"{url}/commands/Place", json=placing("4"), headers={"Origin": "http://evil.test"}
            )
            assert foreign.json()["code"] == "foreign-origin"
    assert server.stop() == 0
