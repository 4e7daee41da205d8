"""Reading what the operator has compiled."""

import json
import os
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from copilot_operator.gateway.config import Config, ConfigError, State, Watch
from copilot_operator.gateway.placement import Strategy
from copilot_operator.gateway.rules.methods import Isolation

SERVER = {"host": "10.0.0.1", "port": 4321, "token": "server-secret", "state": "Serving"}


def digest(token: str) -> str:
    return sha256(token.encode()).hexdigest()


def files(**changes: Any) -> dict[str, Any]:
    """The three files of a small Shared pool; an argument replaces one of them."""
    return {
        "pool": {"isolation": "Shared"},
        "servers": {"s0": SERVER},
        "tenants": {digest("alice-token"): {"name": "alice", "code": "Ab3-"}},
    } | changes


def written(directory: Path, contents: dict[str, Any]) -> Path:
    for name, content in contents.items():
        (directory / f"{name}.json").write_text(content if isinstance(content, str) else json.dumps(content))
    return directory


def test_a_small_configuration_and_its_defaults(tmp_path: Path) -> None:
    config = Config.read(written(tmp_path, files()))
    assert (config.isolation, config.routing) == (Isolation.SHARED, Strategy.STICKY)
    assert (config.limits.connections, config.limits.held_s, config.idle.session_s) == (1000, 50, 1800)
    assert config.servers["s0"].address == ("10.0.0.1", 4321, "server-secret", "")
    assert config.servers["s0"].state is State.SERVING
    alice = config.tenant_of("alice-token")
    assert alice is not None
    assert (alice.name, alice.code, alice.server, alice.credential, alice.homes) == ("alice", "Ab3-", None, None, ())
    assert config == Config.read(tmp_path), "parts are values"


def test_everything_that_can_be_said(tmp_path: Path) -> None:
    pool = {
        "isolation": "Shared",
        "routing": "LeastSessions",
        "policy": {"models": ["m"], "hostTools": True, "mcpServers": True, "maxAiCredits": 100, "infinite": {"a": 1}},
        "limits": {"connections": 5, "requestsPerSecond": 2.5, "burst": 4, "heldRequests": 7, "heldS": 20},
        "idle": {"sessionS": None, "lingerS": 60},
        "defaults": {"workingDirectory": "/w"},
        "credential": {"gitHubToken": "pool-gho"},
    }
    provider = {"type": "openai", "baseUrl": "http://model", "apiKey": "key"}
    tenants = {
        digest("a"): {"name": "alice", "code": "a-", "limits": {"connections": 2}, "homes": ["s0"]},
        digest("b"): {"name": "bob", "code": "b-", "credential": {"provider": provider}},
    }
    config = Config.read(written(tmp_path, files(pool=pool, tenants=tenants)))
    assert config.policy.models == ("m",)
    assert (config.policy.host_tools, config.policy.mcp_servers, config.policy.max_ai_credits) == (True, True, 100)
    assert (config.policy.infinite, config.defaults) == ({"a": 1}, {"workingDirectory": "/w"})
    assert (config.limits.held_requests, config.limits.held_s, config.idle.session_s) == (7, 20, None)
    alice, bob = config.tenant_of("a"), config.tenant_of("b")
    assert alice is not None
    assert bob is not None
    assert (alice.limits.connections, alice.limits.requests_per_second, alice.limits.burst) == (2, 2.5, 4)
    assert alice.homes == ("s0",)
    assert alice.credential is not None
    assert bob.credential is not None
    assert (alice.credential.git_hub_token, bob.credential.provider) == ("pool-gho", provider)


def test_a_dedicated_pool(tmp_path: Path) -> None:
    tenants = {digest("t"): {"name": "alice", "server": "s0"}}
    config = Config.read(written(tmp_path, files(pool={"isolation": "Dedicated"}, tenants=tenants)))
    alice = config.tenant_of("t")
    assert alice is not None
    assert (alice.server, alice.code) == ("s0", "")


@pytest.mark.parametrize(
    "token", ["", "alice-toke", "alice-token ", digest("alice-token"), None, 5, ["alice-token"], "\ud800"]
)
def test_no_other_token_is_a_tenant(tmp_path: Path, token: object) -> None:
    assert Config.read(written(tmp_path, files())).tenant_of(token) is None


def test_an_old_and_a_new_token_of_one_tenant(tmp_path: Path) -> None:
    tenant = {"name": "alice", "code": "a-"}
    config = Config.read(written(tmp_path, files(tenants={digest("old"): tenant, digest("new"): tenant})))
    assert config.tenant_of("old") == config.tenant_of("new") is not None


SHARED_TENANT = {"name": "alice", "code": "a-"}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"pool": "{"}, "pool.json: not JSON"),
        ({"pool": {}}, "pool.json: Object missing required field `isolation`"),
        ({"pool": {"isolation": "shared"}}, "pool.json: isolation: Invalid enum value 'shared'"),
        (
            {"pool": {"isolation": "Shared", "limits": {"connections": 0}}},
            "pool.json: limits.connections: Expected `int` >= 1",
        ),
        ({"pool": {"isolation": "Shared", "limits": {"heldS": 60}}}, "pool.json: limits.heldS: Expected `float` <= 55"),
        (
            {"pool": {"isolation": "Shared", "idle": {"session": 5}}},
            "pool.json: idle: Object contains unknown field `session`",
        ),
        (
            {"pool": {"isolation": "Shared", "credential": {}}},
            "pool.json: credential: expected exactly one of gitHubToken",
        ),
        ({"servers": {"s0": SERVER | {"port": 0}}}, "servers.json: [...].port: Expected `int` >= 1"),
        ({"servers": {"s0": SERVER | {"state": "Up"}}}, "servers.json: [...].state: Invalid enum value 'Up'"),
        ({"servers": []}, "servers.json: Expected `object`, got `array`"),
        ({"tenants": {"abc": SHARED_TENANT}}, "tenants.json: tenant alice: its key is not the sha256"),
        ({"tenants": {digest("t").upper(): SHARED_TENANT}}, "tenants.json: tenant alice: its key is not the sha256"),
        ({"tenants": {digest("t"): {"name": "alice"}}}, "tenant alice: in a Shared pool it has a code and no server"),
        ({"tenants": {digest("t"): {"name": "a", "code": "a/b"}}}, "tenants.json: [...].code: Expected `str` matching"),
        (
            {"tenants": {digest("t"): {"name": "a", "code": "x1"}, digest("u"): {"name": "b", "code": "x1"}}},
            "tenants.json: tenant b: its code is also that of tenant a",
        ),
        (
            {"tenants": {digest("t"): {"name": "a", "code": "x1"}, digest("u"): {"name": "b", "code": "x12"}}},
            "tenants.json: tenants a and b: the code of the one begins with the code of the other",
        ),
        (
            {"pool": {"isolation": "Dedicated"}},
            "tenants.json: tenant alice: in a Dedicated pool it has a server and no code",
        ),
    ],
)
def test_a_wrong_configuration_names_file_and_field(tmp_path: Path, changes: dict[str, Any], said: str) -> None:
    with pytest.raises(ConfigError) as raised:
        Config.read(written(tmp_path, files(**changes)))
    assert str(raised.value).startswith(said) or said in str(raised.value)


def test_a_missing_file_is_named(tmp_path: Path) -> None:
    written(tmp_path, files())
    (tmp_path / "servers.json").unlink()
    with pytest.raises(ConfigError, match=r"^servers.json: No such file or directory$"):
        Config.read(tmp_path)


def test_no_secret_is_shown(tmp_path: Path) -> None:
    provider = {"type": "openai", "apiKey": "tenant-key"}
    pool = {"isolation": "Shared", "credential": {"gitHubToken": "pool-gho"}}
    tenants = {digest("alice-token"): {"name": "alice", "code": "a-", "credential": {"provider": provider}}}
    config = Config.read(written(tmp_path, files(pool=pool, tenants=tenants)))
    shown = repr(config) + repr(config.tenants) + repr(config.servers)
    for secret in ("server-secret", "pool-gho", "tenant-key"):
        assert secret not in shown


def test_a_wrong_credential_is_not_in_the_error(tmp_path: Path) -> None:
    pool = {"isolation": "Shared", "credential": {"gitHubToken": "gho-secret", "provider": {"apiKey": "key-secret"}}}
    with pytest.raises(ConfigError) as raised:
        Config.read(written(tmp_path, files(pool=pool)))
    assert "secret" not in str(raised.value)
    assert raised.value.__cause__ is None


def test_the_watch_sees_how_kubelet_replaces_files(tmp_path: Path) -> None:
    for generation in ("one", "two"):
        (tmp_path / generation).mkdir()
        written(tmp_path / generation, files())
    (tmp_path / "..data").symlink_to("one")
    for name in ("pool.json", "servers.json", "tenants.json"):
        (tmp_path / name).symlink_to(f"..data/{name}")
    watch = Watch(tmp_path)
    assert not watch.changed()
    (tmp_path / "..next").symlink_to("two")
    os.replace(tmp_path / "..next", tmp_path / "..data")
    assert watch.changed()
    assert not watch.changed(), "told once"


def test_the_watch_sees_plain_files_change_and_survives_missing_ones(tmp_path: Path) -> None:
    watch = Watch(tmp_path)
    assert not watch.changed()
    written(tmp_path, files())
    assert watch.changed()
    (tmp_path / "servers.json").write_text("{}")
    assert watch.changed()
    (tmp_path / "servers.json").unlink()
    assert watch.changed()
    assert not watch.changed()
