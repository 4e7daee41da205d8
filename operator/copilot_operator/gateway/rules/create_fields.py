"""The fields of ``session.create`` and ``session.resume``: which pass, which the gateway sets. Pure.

A client without host tools gets its own tools by their exact names and nothing of the host: no file hooks, no
instructions out of files, no processes. A cold resume forgets all of that, so each resume says it again.
"""

import re
from collections.abc import Iterable, Mapping
from typing import Any, Final

from copilot_operator.gateway.rules.create_tables import (
    ASKS_NOTHING,
    CLOSED,
    CREDENTIALS,
    HOST,
    HOST_TOOLS,
    MCP,
    NEVER,
    OPEN,
    PAYING,
)
from copilot_operator.gateway.rules.policy import Credential, Policy, check_model, of_type, refused
from copilot_operator.rpc.ephemeral import UNSTORED

ASK_USER: Final = "builtin:ask_user"
_MCP_TOOLS: Final = "mcp:*"
_TOOL_NAME: Final = re.compile(r"[A-Za-z0-9_-]{1,128}")

_LEAVE_OUT: Final = "is the pool's to set; leave it out"
_NO_HOST: Final = "reaches the host of the server, which this pool does not open; leave it out"
_NO_MCP: Final = "this pool allows no MCP servers (spec.sessions.policy); leave it out"
_NO_CREDENTIAL: Final = "sessions of this pool use the tenant's credential; leave it out"
_NOT_SERVED: Final = "is not served through the gateway; leave it out"


def sanitised_create(
    params: Mapping[str, Any], policy: Policy, credential: Credential | None, defaults: Mapping[str, Any]
) -> dict[str, Any]:
    """Parameters of ``session.create`` for the server; ids are left as they are. Raises Refused.

    ``defaults`` are fields that the pool sets, ``workingDirectory`` among them: always in a Shared pool, where the
    client says nothing in a Dedicated one.
    """
    sent = _sanitised(params, policy, credential, defaults, known=())
    if policy.models and "model" not in sent:
        sent["model"] = policy.models[0]
    return {name: value for name, value in sent.items() if name not in _RESUME_ONLY}


def sanitised_resume(
    params: Mapping[str, Any],
    policy: Policy,
    credential: Credential | None,
    defaults: Mapping[str, Any],
    known: Iterable[str] = (),
) -> dict[str, Any]:
    """Parameters of ``session.resume``, as ``sanitised_create``.

    ``known`` is ``availableTools`` as the session has it by its other owners, if it may be loaded: the filter of a
    resume holds for all of them, so theirs goes in as well.
    """
    return _sanitised(params, policy, credential, defaults, known)


def resume_params(create_params: Mapping[str, Any], *, model_switched: bool = False) -> dict[str, Any]:
    """What to resume an unloaded session with, so that it is as its client made it.

    ``create_params`` are those that went to the server. With ``model_switched`` the model is left out, and the one
    chosen last, which is stored, comes back. No event tells of this resume, and pending requests come back with it.
    """
    left_out = {*_CREATE_ONLY, *(("model",) if model_switched else ())}
    kept = {name: value for name, value in create_params.items() if name not in left_out}
    return kept | {"disableResume": True, "continuePendingWork": True}


_RESUME_ONLY: Final = frozenset(("continuePendingWork", "disableResume"))
_CREATE_ONLY: Final = frozenset(("trustWorkingDirectory",))  # an error in session.resume


def _sanitised(
    params: Mapping[str, Any],
    policy: Policy,
    credential: Credential | None,
    defaults: Mapping[str, Any],
    known: Iterable[str],
) -> dict[str, Any]:
    given = {name: value for name, value in params.items() if value is not None}
    _refuse_asking(given, policy, defaults)
    sent = given if policy.opens_host else _passed(given, policy)
    sent = {name: value for name, value in sent.items() if name not in NEVER and (value or name not in CREDENTIALS)}
    if policy.opens_host:
        sent = {**defaults, **sent, **({} if policy.opens_mcp else {"enableConfigDiscovery": False})}
    else:
        tools = _available_tools(given, policy, known)
        sent = {**_working_directory(given, policy), **sent, **CLOSED, "availableTools": tools}
        sent = {**sent, **defaults} if policy.is_shared else {**defaults, **sent}
    if credential is not None and not any(given.get(name) for name in PAYING):
        sent |= credential.fields()
    if given.get("sessionId") in policy.ephemeral:
        sent |= UNSTORED
    return sent | _limits(given, policy)


def _refuse_asking(given: Mapping[str, Any], policy: Policy, defaults: Mapping[str, Any]) -> None:
    """Raise Refused for a field that asks for what the pool does not give."""
    for name, value in given.items():
        if not value or ASKS_NOTHING.get(name) == value:
            continue
        if name in NEVER:
            raise refused(name, value, _NOT_SERVED)
        if name in CREDENTIALS and policy.is_shared:
            raise refused(name, value, _NO_CREDENTIAL)
        if name in MCP and not policy.opens_mcp:
            raise refused(name, value, _NO_MCP)
        if name in HOST and not policy.opens_host and not _is_off(value):
            raise refused(name, value, _NO_HOST)
        if name == "workingDirectory" and policy.is_shared and value != defaults.get(name):
            raise refused(name, value, _LEAVE_OUT)
    if not policy.opens_host and _asks_for_a_command(given):
        raise refused("provider.apiKeyCommand", None, "is a command on the server; give provider.apiKey")
    if not policy.opens_mcp and any(isinstance(a, dict) and a.get("mcpServers") for a in _items(given, "customAgents")):
        raise refused("customAgents.mcpServers", None, _NO_MCP)


def _is_off(value: Any) -> bool:
    return isinstance(value, dict) and value.get("enabled") is False


def _asks_for_a_command(given: Mapping[str, Any]) -> bool:
    providers = (given.get("provider"), *_items(given, "providers"))
    return any(isinstance(provider, dict) and provider.get("apiKeyCommand") for provider in providers)


def _items(given: Mapping[str, Any], name: str) -> list[Any]:
    value = given.get(name)
    return value if isinstance(value, list) else []


def _passed(given: Mapping[str, Any], policy: Policy) -> dict[str, Any]:
    passed = {name: of_type(name, value, OPEN[name]) for name, value in given.items() if name in OPEN}
    if policy.opens_mcp:
        passed |= {name: given[name] for name in sorted(MCP) if name in given}
    if not policy.is_shared:
        passed |= {name: given[name] for name in sorted(CREDENTIALS) if name in given}
    return passed


def _working_directory(given: Mapping[str, Any], policy: Policy) -> dict[str, Any]:
    if policy.is_shared or "workingDirectory" not in given:
        return {}
    return {"workingDirectory": of_type("workingDirectory", given["workingDirectory"], str)}


def _available_tools(given: Mapping[str, Any], policy: Policy, known: Iterable[str]) -> list[str]:
    """The exact names of the client's tools, less what its own filter leaves out, and those that are there already.

    Exact, because ``custom:*`` would let in what other sessions bring to the server.
    """
    tools = [f"custom:{name}" for name in tool_names(given)]
    tools += [ASK_USER] if given.get("requestUserInput") is True else []
    tools += [_MCP_TOOLS] if policy.opens_mcp and given.get("mcpServers") else []
    if "availableTools" in given:
        chosen = of_type("availableTools", given["availableTools"], list)
        tools = [tool for tool in tools if _is_chosen(tool, chosen)]
    return [*tools, *(tool for tool in known if tool not in tools)]


def _is_chosen(tool: str, chosen: list[Any]) -> bool:
    kind, _, name = tool.partition(":")
    return (
        any(form in chosen for form in (tool, name, f"{kind}:*"))
        if name != "*"
        else any(isinstance(form, str) and form.startswith(f"{kind}:") for form in chosen)
    )


def tool_names(given: Mapping[str, Any]) -> list[str]:
    """The names of a client's own tools; raises Refused for one that means a tool of the host."""
    names = []
    for tool in of_type("tools", given.get("tools") or [], list):
        name = of_type("tools[].name", of_type("tools[]", tool, dict).get("name"), str)
        if not _TOOL_NAME.fullmatch(name):
            raise refused("tools[].name", name, "expected letters, digits, '_' and '-', at most 128")
        if name in HOST_TOOLS or name.startswith("extensions_"):
            raise refused("tools[].name", name, "is the name of a tool of the CLI itself; choose another")
        names.append(name)
    return names


def _limits(given: Mapping[str, Any], policy: Policy) -> dict[str, Any]:
    """What the policy says of models, credits and compaction, whatever the client said."""
    limits: dict[str, Any] = {}
    if "model" in given:
        check_model("model", given["model"], policy)
    allowed = [of_type("allowedModels[]", model, str) for model in _items(given, "allowedModels")]
    if policy.models is not None:
        limits["allowedModels"] = [model for model in policy.models if not allowed or model in allowed]
    elif allowed:
        limits["allowedModels"] = allowed
    if policy.infinite is not None and "infiniteSessions" not in given:
        limits["infiniteSessions"] = dict(policy.infinite)
    if (session_limits := _session_limits(given, policy)) is not None:
        limits["sessionLimits"] = session_limits
    return limits


def _session_limits(given: Mapping[str, Any], policy: Policy) -> dict[str, Any] | None:
    wanted = of_type("sessionLimits", given["sessionLimits"], dict) if "sessionLimits" in given else {}
    credits = wanted.get("maxAiCredits")
    if credits is not None and (isinstance(credits, bool) or not isinstance(credits, int | float)):
        raise refused("sessionLimits.maxAiCredits", credits, "expected a number")
    bounds = [bound for bound in (credits, policy.max_ai_credits) if bound is not None]
    return {"maxAiCredits": min(bounds)} if bounds else None
