"""A client gets what its pool gives, by name; the gateway says the rest; nothing that asks for more goes by unseen."""

from dataclasses import replace
from typing import Any

import pytest

from copilot_operator.gateway.rules.create_tables import CLOSED, CREDENTIALS, HOST, HOST_TOOLS, MCP, NEVER, OPEN
from copilot_operator.gateway.rules.fields import (
    Credential,
    Policy,
    Refused,
    plain,
    resume_params,
    sanitised,
    sanitised_create,
    sanitised_resume,
    sanitised_send,
)
from copilot_operator.gateway.rules.ids import NameSpace
from copilot_operator.gateway.rules.methods import Isolation, Verdict, rule
from copilot_operator.rpc.ephemeral import Ephemeral

SHARED = Policy()
DEDICATED = Policy(isolation=Isolation.DEDICATED)
OPEN_HOST = Policy(isolation=Isolation.DEDICATED, host_tools=True)
OPEN_ALL = Policy(isolation=Isolation.DEDICATED, host_tools=True, mcp_servers=True)
KEY = "sk-of-the-tenant"
PROVIDER = {"type": "openai", "baseUrl": "http://model", "apiKey": KEY}
CREDENTIAL = Credential(provider=PROVIDER)
DEFAULTS = {"workingDirectory": "/w/a"}
WEATHER = {"name": "get_weather", "description": "d", "parameters": {}}

# What the official SDKs send without being asked anything.
UNASKED = {
    "sessionId": "a",
    "toolFilterPrecedence": "excluded",
    "requestPermission": True,
    "requestElicitation": False,
    "requestExitPlanMode": False,
    "requestAutoModeSwitch": False,
    "includeSubAgentStreamingEvents": True,
    "envValueMode": "direct",
    "hooks": False,
}


def create(policy: Policy = SHARED, credential: Credential | None = CREDENTIAL, **fields: Any) -> dict[str, Any]:
    return sanitised_create({"sessionId": "a", **fields}, policy, credential, DEFAULTS)


def resume(policy: Policy = SHARED, known: tuple[str, ...] = (), **fields: Any) -> dict[str, Any]:
    return sanitised_resume({"sessionId": "a", **fields}, policy, CREDENTIAL, DEFAULTS, known)


def refusal(policy: Policy = SHARED, **fields: Any) -> str:
    with pytest.raises(Refused) as caught:
        create(policy, **fields)
    assert caught.value.code == -32602
    return caught.value.message


# create


def test_a_shared_session_is_closed_to_the_host_and_paid_by_the_tenant() -> None:
    assert create(model="m", tools=[WEATHER]) == {
        "sessionId": "a",
        "model": "m",
        "tools": [WEATHER],
        "availableTools": ["custom:get_weather"],
        "enableConfigDiscovery": False,
        "enableFileHooks": False,
        "enableHostGitOperations": False,
        "enableOnDemandInstructionDiscovery": False,
        "enableSessionStore": False,
        "enableSkills": False,
        "skipCustomInstructions": True,
        "workingDirectory": "/w/a",
        "provider": PROVIDER,
    }


@pytest.mark.parametrize("ask", [sanitised_create, sanitised_resume])
@pytest.mark.parametrize(
    ("id", "all", "stored"),
    [("ephemeral-a", False, False), ("a", True, False), (None, True, False), ("a", False, True)],
)
def test_nothing_of_an_ephemeral_session_goes_to_the_session_store_whatever_its_client_asks_for(
    ask: Any, id: str | None, all: bool, stored: bool
) -> None:
    policy = replace(OPEN_HOST, ephemeral=Ephemeral(all))
    assert ask({"sessionId": id, "enableSessionStore": True}, policy, None, {})["enableSessionStore"] is stored
    assert ("enableSessionStore" in ask({"sessionId": id}, policy, None, {})) is not stored


@pytest.mark.parametrize("policy", [SHARED, DEDICATED, OPEN_HOST, OPEN_ALL])
def test_what_sdks_send_unasked_is_no_offence(policy: Policy) -> None:
    sent = sanitised_create(UNASKED, policy, CREDENTIAL, DEFAULTS)
    assert sent["sessionId"] == "a"
    assert sent["requestPermission"] is True


def test_the_sdks_mode_for_many_tenants_passes() -> None:
    cautious: dict[str, Any] = dict.fromkeys(CLOSED, False) | {
        "skipCustomInstructions": True,
        "isExperimentalMode": False,
        "customAgentsLocalOnly": True,
        "memory": {"enabled": False},
        "mcpOAuthTokenStorage": "in-memory",
        "embeddingCacheStorage": "in-memory",
        "skipEmbeddingRetrieval": True,
        "systemMessage": {"mode": "customize", "sections": {"environment_context": {"action": "remove"}}},
        "availableTools": ["builtin:ask_user", "custom:*"],
    }
    sent = create(tools=[WEATHER], requestUserInput=True, **cautious)
    assert sent["availableTools"] == ["custom:get_weather", "builtin:ask_user"]
    assert sent["skipEmbeddingRetrieval"] is True
    assert "memory" not in sent


ASKING: dict[str, Any] = {name: ["x"] for name in HOST | MCP | NEVER | CREDENTIALS} | {
    name: True for name in CLOSED if CLOSED[name] is False
}


@pytest.mark.parametrize("name", sorted(ASKING.keys() - {"skipCustomInstructions"}))
def test_what_a_shared_pool_does_not_give_is_refused_by_name_and_nothing_of_it_goes_on(name: str) -> None:
    said = refusal(**{name: ASKING[name]})
    assert said.startswith(name)
    assert said.endswith("leave it out")
    nothings: tuple[Any, ...] = (None, False, [], {}, "")
    for nothing in nothings:
        assert create(SHARED, CREDENTIAL, **{name: nothing}) == create()


def test_custom_instructions_cannot_be_brought_back() -> None:
    assert create(skipCustomInstructions=False)["skipCustomInstructions"] is True


def test_what_the_cli_does_not_know_is_left_out() -> None:
    assert create(noSuchField={"enabled": True}) == create()


@pytest.mark.parametrize("policy", [SHARED, DEDICATED])
@pytest.mark.parametrize("name", sorted(OPEN))
def test_a_field_of_the_wrong_type_is_refused(name: str, policy: Policy) -> None:
    wrong = "text" if OPEN[name] is not str else {"a": 1}
    assert refusal(policy, **{name: wrong}).startswith(f"{name}")


@pytest.mark.parametrize("wrong", ["bash", {"a": 1}, True, 5])
def test_a_tool_filter_that_is_no_list_would_mean_all_tools_and_is_refused(wrong: Any) -> None:
    assert "expected a list" in refusal(availableTools=wrong)
    assert "expected a list" in refusal(tools=wrong)


@pytest.mark.parametrize(
    ("chosen", "available"),
    [
        (None, ["custom:get_weather", "builtin:ask_user"]),
        ([], []),
        (["get_weather"], ["custom:get_weather"]),
        (["custom:get_weather"], ["custom:get_weather"]),
        (["custom:*", "builtin:bash"], ["custom:get_weather"]),
        (["builtin:*"], ["builtin:ask_user"]),
        (["bash", "*", 5], []),
    ],
)
def test_a_clients_filter_takes_away_and_never_adds(chosen: Any, available: list[str]) -> None:
    sent = create(tools=[WEATHER], requestUserInput=True, availableTools=chosen)
    assert sent["availableTools"] == available


@pytest.mark.parametrize("name", ["bash", "ask_user", "task", "extensions_manage", "a b", "custom:*", "", "x" * 129])
def test_a_clients_tool_cannot_stand_for_one_of_the_host(name: str) -> None:
    assert refusal(tools=[{"name": name, "overridesBuiltInTool": True}]).startswith("tools[].name")


@pytest.mark.parametrize("tools", [[5], [{}], [{"name": 5}]])
def test_odd_tools_are_refused(tools: Any) -> None:
    assert refusal(tools=tools).startswith("tools[]")


def test_a_shared_client_does_not_choose_its_directory_and_may_name_the_one_it_has() -> None:
    assert create(workingDirectory="/w/a") == create()
    assert refusal(workingDirectory="/etc") == "workingDirectory '/etc': is the pool's to set; leave it out"
    assert create(DEDICATED, workingDirectory="/etc")["workingDirectory"] == "/etc"
    assert create(DEDICATED)["workingDirectory"] == "/w/a"


def test_what_a_shared_pool_sets_holds_and_what_a_dedicated_one_sets_is_for_clients_that_say_nothing() -> None:
    defaults = {"workingDirectory": "/w/a", "clientName": "pool"}
    for policy, name in ((SHARED, "pool"), (DEDICATED, "client"), (OPEN_HOST, "client")):
        assert sanitised_create({"clientName": "client"}, policy, None, defaults)["clientName"] == name
        assert sanitised_create({}, policy, None, defaults)["clientName"] == "pool"


# Models, credits, credentials


def test_a_model_outside_the_pools_is_refused_with_the_pools() -> None:
    policy = Policy(models=("small", "large"))
    assert refusal(policy, model="huge") == "model 'huge': this pool has not this model; choose one of small, large"
    assert create(policy, model="large")["model"] == "large"
    assert create(policy)["model"] == "small"
    assert create(policy)["allowedModels"] == ["small", "large"]
    assert create(policy, allowedModels=["large", "huge"])["allowedModels"] == ["large"]
    assert "model" not in resume(policy), "the stored model comes back"
    assert create(allowedModels=["x"])["allowedModels"] == ["x"]


@pytest.mark.parametrize(
    ("pool", "client", "sent"),
    [
        (None, None, None),
        (100, None, {"maxAiCredits": 100}),
        (100, {"maxAiCredits": 40}, {"maxAiCredits": 40}),
        (100, {"maxAiCredits": 400}, {"maxAiCredits": 100}),
        (None, {"maxAiCredits": 40.5}, {"maxAiCredits": 40.5}),
        (100, {}, {"maxAiCredits": 100}),
    ],
)
def test_of_two_limits_the_lower_holds(pool: int | None, client: Any, sent: Any) -> None:
    assert create(Policy(max_ai_credits=pool), sessionLimits=client).get("sessionLimits") == sent


@pytest.mark.parametrize("odd", ["many", True, [1]])
def test_odd_limits_are_refused(odd: Any) -> None:
    assert refusal(sessionLimits={"maxAiCredits": odd}).startswith("sessionLimits.maxAiCredits")
    assert refusal(sessionLimits=[odd]).startswith("sessionLimits")


def test_the_pools_compaction_holds_where_the_client_says_nothing_of_it() -> None:
    pool = Policy(infinite={"enabled": True})
    assert create(pool)["infiniteSessions"] == {"enabled": True}
    assert create(pool, infiniteSessions={"enabled": False})["infiniteSessions"] == {"enabled": False}
    assert "infiniteSessions" not in create()


def test_a_dedicated_client_may_pay_itself_and_else_the_tenant_does() -> None:
    own = create(DEDICATED, gitHubToken="gho_x")
    assert own["gitHubToken"] == "gho_x"
    assert "provider" not in own
    assert create(DEDICATED) == create(DEDICATED, gitHubToken="") == create(DEDICATED, provider=None)
    assert create(DEDICATED)["provider"] == PROVIDER
    assert create(DEDICATED, Credential(git_hub_token="gho_y"))["gitHubToken"] == "gho_y"
    assert "provider" not in create(DEDICATED, None)


def test_no_secret_is_shown() -> None:
    assert KEY not in repr(CREDENTIAL)
    assert "gho_x" not in repr(Credential(git_hub_token="gho_x"))
    for policy, field in (
        (SHARED, {"gitHubToken": "gho_x"}),
        (SHARED, {"provider": {"apiKey": "gho_x"}}),
        (DEDICATED, {"provider": {"apiKeyCommand": "echo gho_x"}}),
    ):
        assert "gho_x" not in refusal(policy, **field)


# Dedicated pools


def test_a_dedicated_pool_without_host_tools_is_closed_like_a_shared_one() -> None:
    sent = create(DEDICATED, tools=[WEATHER])
    assert CLOSED.items() <= sent.items()
    assert sent["availableTools"] == ["custom:get_weather"]
    for name, value in {"hookDirectories": ["/h"], "customAgents": [{}], "mcpServers": {"m": {}}}.items():
        assert refusal(DEDICATED, **{name: value}).startswith(name)


def test_an_open_host_takes_what_the_client_says_but_what_the_gateway_cannot_serve() -> None:
    sent = create(OPEN_HOST, hookDirectories=["/h"], enableSkills=True, availableTools=["bash"], configDir="")
    assert sent["hookDirectories"] == ["/h"]
    assert sent["enableSkills"] is True
    assert sent["availableTools"] == ["bash"]
    assert "configDir" not in sent
    assert refusal(OPEN_HOST, configDir="/c") == "configDir '/c': is not served through the gateway; leave it out"


def test_mcp_servers_need_their_own_permission() -> None:
    servers = {"m": {"command": "x"}}
    for policy in (SHARED, DEDICATED, OPEN_HOST, Policy(mcp_servers=True)):
        assert refusal(policy, mcpServers=servers).startswith("mcpServers")
        assert create(policy)["enableConfigDiscovery"] is False
    assert refusal(OPEN_HOST, customAgents=[{"mcpServers": servers}]).startswith("customAgents.mcpServers")
    assert create(OPEN_ALL, mcpServers=servers)["mcpServers"] == servers
    only_mcp = Policy(isolation=Isolation.DEDICATED, mcp_servers=True)
    assert create(only_mcp, mcpServers=servers)["availableTools"] == ["mcp:*"]
    assert create(only_mcp, mcpServers=servers, availableTools=["custom:*"])["availableTools"] == []


def test_host_tools_are_never_open_in_a_shared_pool() -> None:
    wished = Policy(host_tools=True, mcp_servers=True)
    assert create(wished, availableTools=["bash"])["availableTools"] == []
    assert refusal(wished, hookDirectories=["/h"]).startswith("hookDirectories")


# resume


def test_a_resume_says_all_of_it_again() -> None:
    sent = resume(tools=[WEATHER], disableResume=True, continuePendingWork=True)
    assert sent == create(tools=[WEATHER]) | {"disableResume": True, "continuePendingWork": True}


def test_a_resume_keeps_the_tools_that_other_owners_have() -> None:
    assert resume()["availableTools"] == []
    assert resume(known=("custom:theirs", "builtin:ask_user"))["availableTools"] == [
        "custom:theirs",
        "builtin:ask_user",
    ]
    both = resume(tools=[WEATHER], known=("custom:theirs", "custom:get_weather"))
    assert both["availableTools"] == ["custom:get_weather", "custom:theirs"]


def test_create_does_not_carry_what_only_a_resume_knows() -> None:
    assert create(disableResume=True, continuePendingWork=True) == create()


def test_an_unloaded_session_comes_back_as_its_client_made_it() -> None:
    made = create(model="m", tools=[WEATHER], streaming=True)
    again = {"disableResume": True, "continuePendingWork": True}
    assert resume_params(made) == made | again
    switched = resume_params(made, model_switched=True)
    assert switched == {name: value for name, value in made.items() if name != "model"} | again
    assert "trustWorkingDirectory" not in resume_params({"trustWorkingDirectory": "session"})


# Messages


def test_a_message_passes_with_what_stands_in_it_and_bears_the_mark() -> None:
    blob = {"type": "blob", "data": "aGk=", "mimeType": "text/plain"}
    params = {
        "sessionId": "a",
        "prompt": "hi",
        "mode": "immediate",
        "wait": True,
        "attachments": [blob | {"assetId": "x"}],
        "source": "agent-b",
        "billable": False,
        "requiredTool": "bash",
        "requestHeaders": {},
    }
    expected = {"sessionId": "a", "prompt": "hi", "mode": "immediate", "wait": True, "attachments": [blob]}
    assert sanitised_send(params, SHARED) == expected
    assert sanitised_send(params, SHARED, "17") == expected | {"source": "gateway-17"}
    open_host = sanitised_send(params, OPEN_HOST, "17")
    assert (open_host["requiredTool"], open_host["source"]) == ("bash", "gateway-17")


@pytest.mark.parametrize(
    ("field", "value", "name"),
    [
        ("attachments", [{"type": "file", "path": "/etc/passwd"}], "attachments[].type 'file'"),
        ("attachments", [{"type": "directory", "path": "/"}], "attachments[].type 'directory'"),
        ("attachments", [{}], "attachments[].type"),
        ("attachments", ["/etc/passwd"], "attachments[] '/etc/passwd'"),
        ("attachments", {"type": "file"}, "attachments"),
        ("requestHeaders", {"x": "y"}, "requestHeaders"),
        ("agentMode", "shell", "agentMode 'shell'"),
        ("agentMode", "autopilot", "agentMode 'autopilot'"),
        ("prompt", 5, "prompt 5"),
        ("wait", "yes", "wait 'yes'"),
    ],
)
def test_a_message_that_reaches_further_is_refused(field: str, value: Any, name: str) -> None:
    with pytest.raises(Refused) as caught:
        sanitised("session.send", {"sessionId": "a", "prompt": "p", field: value}, SHARED)
    assert caught.value.message.startswith(f"{name}: ")


def test_of_several_messages_the_first_bears_the_mark() -> None:
    messages = [{"prompt": "a", "source": "x"}, {"prompt": "b"}]
    assert sanitised("session.sendMessages", {"sessionId": "s", "messages": messages}, SHARED, mark="17") == {
        "sessionId": "s",
        "messages": [{"prompt": "a", "source": "gateway-17"}, {"prompt": "b"}],
    }
    with pytest.raises(Refused, match="attachments"):
        sanitised("session.sendMessages", {"messages": [{"attachments": [{"type": "file"}]}]}, SHARED)
    with pytest.raises(Refused, match="messages"):
        sanitised("session.sendMessages", {"sessionId": "s"}, SHARED)


# Other methods


@pytest.mark.parametrize(
    ("method", "params", "sent"),
    [
        ("session.abort", {"sessionId": "a", "reason": "r", "x": 1}, {"sessionId": "a", "reason": "r"}),
        ("session.metadata.activity", {"sessionId": "a", "policySessionId": "b"}, {"sessionId": "a"}),
        ("session.detach", ["odd"], {}),
        ("sessions.list", {"source": "all", "bogus": 1}, {"source": "local"}),
        ("session.list", {"filter": {"cwd": "/a"}, "all": True}, {"filter": {"cwd": "/a"}}),
        ("session.eventLog.read", {"sessionId": "a", "waitMs": 600_000}, {"sessionId": "a", "waitMs": 30_000}),
        ("session.eventLog.read", {"sessionId": "a"}, {"sessionId": "a"}),
        ("models.list", {"selectionId": "s"}, {}),
        ("session.mode.set", {"sessionId": "a", "mode": "plan", "planModel": "m"}, {"sessionId": "a", "mode": "plan"}),
        (
            "session.model.switchTo",
            {"sessionId": "a", "modelId": "m", "pickerPersistence": {"x": 1}, "repoScope": "/r"},
            {"sessionId": "a", "modelId": "m"},
        ),
        (
            "session.options.update",
            {"sessionId": "a", "skipCustomInstructions": True, "installedPlugins": [], "coauthorEnabled": False},
            {"sessionId": "a", "skipCustomInstructions": True, "installedPlugins": [], "coauthorEnabled": False},
        ),
    ],
)
def test_of_other_methods_the_known_parameters_pass(method: str, params: Any, sent: object) -> None:
    assert sanitised(method, params, SHARED) == sent


@pytest.mark.parametrize(
    ("method", "params", "said"),
    [
        ("session.mode.set", {"mode": "autopilot"}, "mode 'autopilot': choose one of interactive, plan"),
        ("session.mode.set", {}, "mode: choose one of interactive, plan"),
        ("session.history.rewind", {"mode": "conversation", "eventId": "e"}, "eventId 'e': cannot be rewound to"),
        ("session.metadata.updateClientMetadata", {"clear": True}, "clear true: would take the pool's own labels"),
        ("session.options.update", {"skipCustomInstructions": False}, "skipCustomInstructions false: is the pool's"),
        ("session.options.update", {"installedPlugins": ["p"]}, "installedPlugins: is the pool's"),
        ("session.options.update", {"provider": PROVIDER}, "provider: is the pool's to set"),
        ("session.options.update", {"workingDirectory": "/etc"}, "workingDirectory '/etc': is the pool's to set"),
        ("session.model.switchTo", {"modelId": "huge"}, "modelId 'huge': this pool has not this model"),
        ("session.model.switchAutoTier", {"autoTier": "x"}, "modelId 'auto': this pool has not this model"),
        ("session.eventLog.read", {"waitMs": "x"}, "waitMs 'x': expected an integer"),
        ("session.eventLog.read", {"waitMs": True}, "waitMs true: expected an integer"),
        ("account.getQuota", {}, "gitHubToken: the pool's quota is not shown"),
        (
            "session.permissions.handlePendingPermissionRequest",
            {"result": {"kind": "approve-permanently"}},
            "result.kind 'approve-permanently': outlives the session",
        ),
        ("session.permissions.handlePendingPermissionRequest", {}, "result: expected an object, found null"),
    ],
)
def test_methods_that_reach_beyond_their_session_are_judged(method: str, params: Any, said: str) -> None:
    with pytest.raises(Refused) as caught:
        sanitised(method, {"sessionId": "a", **params}, Policy(models=("small",)))
    assert caught.value.message.startswith(said)


def test_an_open_host_may_choose_more_options_but_not_all() -> None:
    choice = {"sessionId": "a", "skipCustomInstructions": False, "installedPlugins": ["p"]}
    assert sanitised("session.options.update", choice, OPEN_HOST) == choice
    with pytest.raises(Refused, match="provider: is the pool's to set"):
        sanitised("session.options.update", {"provider": PROVIDER}, OPEN_HOST)


def test_models_are_listed_for_the_tenants_own_identity() -> None:
    tenant = Credential(git_hub_token="gho_t")
    assert sanitised("models.list", {}, SHARED, tenant) == {"gitHubToken": "gho_t"}
    assert sanitised("models.list", {"gitHubToken": "gho_own"}, SHARED, tenant) == {"gitHubToken": "gho_own"}


@pytest.mark.parametrize(
    ("method", "policy", "opened"),
    [
        ("session.shell.exec", DEDICATED, OPEN_HOST),
        ("session.mcp.startServer", OPEN_HOST, OPEN_ALL),
        ("session.workspaces.diff", DEDICATED, OPEN_HOST),
    ],
)
def test_a_method_that_needs_an_opening_is_refused_without_it(method: str, policy: Policy, opened: Policy) -> None:
    with pytest.raises(Refused, match=r"spec\.sessions\.policy") as caught:
        sanitised(method, {"sessionId": "a"}, policy)
    assert caught.value.code == -32601
    assert sanitised(method, {"sessionId": "a"}, opened) == {"sessionId": "a"}


@pytest.mark.parametrize("method", ["no.such", "runtime.shutdown", "ping"])
def test_a_method_that_does_not_go_on_has_no_parameters(method: str) -> None:
    with pytest.raises(Refused, match=f"Unhandled method {method}"):
        sanitised(method, {}, SHARED)


def test_names_of_host_tools_are_such() -> None:
    assert {"bash", "view", "ask_user", "task"} <= HOST_TOOLS


# Methods of which nothing is judged


@pytest.mark.parametrize("policy", [SHARED, DEDICATED, OPEN_ALL])
def test_what_is_plain_is_what_passes_as_it_is(policy: Policy) -> None:
    known = plain(policy.isolation)
    assert len(known) > 50
    for method, names in known.items():
        for value in (None, True, {"x": ["y"]}, "autopilot", 10**9):
            params = dict.fromkeys(names, value) | {"sessionId": "a"}
            assert sanitised(method, params, policy, CREDENTIAL, mark="m") == params
            assert NameSpace("").to_server(method, params) == params


@pytest.mark.parametrize("isolation", Isolation)
def test_what_is_judged_is_not_plain(isolation: Isolation) -> None:
    known = plain(isolation)
    for method in ("session.create", "session.resume", "session.send", "session.sendMessages", "session.mode.set"):
        assert method not in known
    for method, names in known.items():
        its = rule(method, isolation)
        assert (its.needs, its.verdict, frozenset(its.fields or ())) == (None, Verdict.FORWARD, names)
