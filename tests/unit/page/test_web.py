"""The page's port: on the loopback alone, for reading alone, and with a policy that lets nothing in."""

import gzip
import json
import re
from collections.abc import AsyncIterator
from typing import Final

import httpx
import pytest

from copilot_operator.page import web
from tests.support.status_page import World, served

HTML: Final = web.FILE.read_text()


@pytest.fixture
async def client() -> AsyncIterator[httpx.AsyncClient]:
    world = World()
    world.tenant()
    async with served(world) as url, httpx.AsyncClient(base_url=url, timeout=30) as made:
        yield made


async def test_the_page_is_served_on_the_loopback_alone() -> None:
    runner = await web.serve(0, World().snapshots())
    try:
        assert [address[0] for address in runner.addresses] == ["127.0.0.1"]
    finally:
        await runner.cleanup()


@pytest.mark.parametrize(
    "host", ["evil.example", "evil.example:8081", "127.0.0.1.evil.example", "localhost.evil.example", ""]
)
@pytest.mark.parametrize("path", ["/", "/status.json"])
async def test_who_comes_by_another_name_is_refused(client: httpx.AsyncClient, host: str, path: str) -> None:
    """A site whose name leads to 127.0.0.1 (DNS rebinding) is of the same origin, as the browser sees it."""
    answer = await client.get(path, headers={"Host": host})
    assert answer.status_code in ((400, 403) if not host else (403,))
    assert "alice" not in answer.text


@pytest.mark.parametrize("host", ["localhost:4000", "127.0.0.1", "[::1]:8081", "LOCALHOST:1"])
async def test_names_of_the_loopback_are_served(client: httpx.AsyncClient, host: str) -> None:
    assert (await client.get("/status.json", headers={"Host": host})).status_code == 200


@pytest.mark.parametrize("path", ["/", "/status.json", "/nothing"])
async def test_every_answer_has_the_policy_and_lets_no_other_origin_read(client: httpx.AsyncClient, path: str) -> None:
    headers = (await client.get(path)).headers
    assert "default-src 'none'" in headers["Content-Security-Policy"]
    assert "unsafe" not in headers["Content-Security-Policy"]
    assert headers["X-Content-Type-Options"] == "nosniff"
    assert headers["Cross-Origin-Resource-Policy"] == "same-origin"
    assert "Access-Control-Allow-Origin" not in headers


@pytest.mark.parametrize("method", ["POST", "PUT", "PATCH", "DELETE"])
@pytest.mark.parametrize("path", ["/", "/status.json"])
async def test_nothing_can_be_changed_by_it(client: httpx.AsyncClient, method: str, path: str) -> None:
    assert (await client.request(method, path)).status_code == 405


async def test_what_has_not_changed_is_not_sent_again(client: httpx.AsyncClient) -> None:
    first = await client.get("/status.json")
    assert first.json()["tenants"][0]["name"] == "alice"
    again = await client.get("/status.json", headers={"If-None-Match": first.headers["ETag"]})
    assert (again.status_code, again.content) == (304, b"")


async def test_who_takes_no_gzip_gets_the_same_in_full(client: httpx.AsyncClient) -> None:
    plain = await client.get("/status.json", headers={"Accept-Encoding": "identity"})
    assert "Content-Encoding" not in plain.headers
    async with client.stream("GET", "/status.json", headers={"Accept-Encoding": "gzip"}) as packed:
        raw = b"".join([part async for part in packed.aiter_raw()])
    assert json.loads(gzip.decompress(raw))["tenants"] == plain.json()["tenants"]


def test_the_file_has_nothing_from_elsewhere_and_makes_no_html_of_text() -> None:
    assert not re.search(r"""(?:src|href)=["']?(?:https?:|//)""", HTML)
    for way in ("innerHTML", "outerHTML", "insertAdjacentHTML", "document.write", "eval(", " style=", "onclick"):
        assert way not in HTML, way
    assert max(map(len, HTML.splitlines())) <= 120
