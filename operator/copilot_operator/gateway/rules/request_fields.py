"""The fields of requests other than create and resume. Pure.

A message passes with its text and what stands in it; what the server would read from its disk does not, and neither
does what only the gateway may say. For the rest the pinned table names the parameters, and the few methods that
can reach beyond their session have a judge here.
"""

from collections.abc import Callable, Mapping
from typing import Any, Final

from copilot_operator.gateway.rules.methods import Need, Rule, Verdict, rule
from copilot_operator.gateway.rules.places import MARK
from copilot_operator.gateway.rules.policy import (
    METHOD_NOT_FOUND,
    Credential,
    Policy,
    Refused,
    check_model,
    of_type,
    refused,
)

MAX_WAIT_MS: Final = 30_000  # of a long-poll: a request of a client is held below the SDK's own 60 s

_MESSAGE: Final[Mapping[str, type]] = {"prompt": str, "displayPrompt": str, "attachments": list}
_SEND: Final[Mapping[str, type]] = {
    "sessionId": str,
    "mode": str,
    "agentMode": str,
    "prepend": bool,
    "responseFormat": dict,
    "wait": bool,
    "traceparent": str,
    "tracestate": str,
}
_INLINE: Final[Mapping[str, tuple[str, ...]]] = {  # attachments that carry what they show, and their members
    "blob": ("type", "data", "mimeType", "displayName"),
    "selection": ("type", "text", "selection", "filePath", "displayName"),
}
_AGENT_MODES: Final = frozenset(("interactive", "plan"))  # autopilot asks the model again and again for one message
_DECISIONS: Final = frozenset(  # others outlive the session, on a server that others use
    (
        "approve-once",
        "approve-for-session",
        "approved",
        "approved-for-session",
        "cancelled",
        "denied-by-content-exclusion-policy",
        "denied-by-permission-request-hook",
        "denied-by-rules",
        "denied-interactively-by-user",
        "denied-no-approval-rule-and-could-not-request-from-user",
        "reject",
        "user-not-available",
    )
)


def sanitised_send(params: Mapping[str, Any], policy: Policy, mark: str | None = None) -> dict[str, Any]:
    """Parameters of ``session.send``. Raises Refused.

    ``mark``, the gateway's own name for this message, is stored with it as ``source`` = ``gateway-<mark>``, by which
    a send in doubt is found among the stored events; ``NameSpace`` keeps it from clients.
    """
    return _envelope(params, policy) | _message(params, policy, mark)


def sanitised_send_messages(params: Mapping[str, Any], policy: Policy, mark: str | None = None) -> dict[str, Any]:
    """Parameters of ``session.sendMessages``; the first message bears the mark."""
    messages = of_type("messages", params.get("messages"), list)
    marks = [mark, *[None] * len(messages)]
    items = [_message(of_type("messages[]", each, dict), policy, m) for each, m in zip(messages, marks, strict=False)]
    return _envelope(params, policy) | {"messages": items}


def _envelope(params: Mapping[str, Any], policy: Policy) -> dict[str, Any]:
    if params.get("requestHeaders") and not policy.opens_host:
        raise refused("requestHeaders", None, "go out with the tenant's credential; leave them out")
    mode = params.get("agentMode")
    if mode is not None and mode not in _AGENT_MODES and not policy.opens_host:
        raise refused("agentMode", mode, f"choose one of {', '.join(sorted(_AGENT_MODES))}")
    more = {"requiredTool": str, "billable": bool, "requestHeaders": dict} if policy.opens_host else {}
    return _typed(params, {**_SEND, **more})


def _message(message: Mapping[str, Any], policy: Policy, mark: str | None) -> dict[str, Any]:
    sent = _typed(message, _MESSAGE)
    if "attachments" in sent and not policy.opens_host:
        sent["attachments"] = [_inline(of_type("attachments[]", each, dict)) for each in sent["attachments"]]
    return sent if mark is None else sent | {"source": MARK + mark}


def _inline(attachment: Mapping[str, Any]) -> dict[str, Any]:
    kind = of_type("attachments[].type", attachment.get("type"), str)
    if kind not in _INLINE:
        raise refused("attachments[].type", kind, "is read on the server; send its content as a blob")
    return {name: attachment[name] for name in _INLINE[kind] if name in attachment}


def _typed(given: Mapping[str, Any], types: Mapping[str, type]) -> dict[str, Any]:
    return {name: of_type(name, given[name], kind) for name, kind in types.items() if given.get(name) is not None}


def sanitised_other(
    method: str, params: Mapping[str, Any], policy: Policy, credential: Credential | None
) -> dict[str, Any]:
    """Parameters of a method that has no function of its own. Raises Refused."""
    known = rule(method, policy.isolation)
    if known.verdict is not Verdict.FORWARD:
        raise Refused(METHOD_NOT_FOUND, f"Unhandled method {method}")
    if known.needs is not None:
        _check_need(method, known.needs, policy)
    fields = known.fields if method not in _NARROW or policy.opens_host else _NARROW[method]
    sent = dict(params) if fields is None else {name: value for name, value in params.items() if name in fields}
    judge = _JUDGES.get(method)
    return sent if judge is None else judge(sent, policy, credential)


def plain_fields(known: Rule) -> frozenset[str] | None:
    """The parameters that ``sanitised_other`` lets pass, whatever the policy and their values; None: it depends."""
    depends = known.needs is not None or known.method in _NARROW or known.method in _JUDGES
    if known.verdict is not Verdict.FORWARD or known.fields is None or depends:
        return None
    return frozenset(known.fields)


def _check_need(method: str, need: Need, policy: Policy) -> None:
    opened = {Need.HOST_TOOLS: policy.opens_host, Need.MCP_SERVERS: policy.opens_mcp}
    if not opened[need]:
        why = f"this pool does not allow it (spec.sessions.policy.{need.value})"
        raise Refused(METHOD_NOT_FOUND, f"Unhandled method {method}: {why}")


# Judges of single methods: parameters in, parameters out, or Refused

_Judge = Callable[[dict[str, Any], Policy, Credential | None], dict[str, Any]]

# The parameters left to clients without host tools, where the CLI knows some that act beyond the session.
_NARROW: Final[Mapping[str, tuple[str, ...]]] = {
    "session.mode.set": ("sessionId", "mode", "expectedMode"),
    "session.model.switchTo": (
        "sessionId",
        "modelId",
        "autoTier",
        "contextTier",
        "modelCapabilities",
        "reasoningEffort",
        "reasoningSummary",
        "verbosity",
    ),
    "session.tools.getBuiltinDescriptors": ("sessionId",),
    "models.list": ("gitHubToken",),
    "models.listTokenPriceUnits": (),
    "account.getQuota": ("gitHubToken",),
}
_OPTIONS: Final = frozenset(("sessionId", "coauthorEnabled"))
_OPTIONS_AS_THEY_ARE: Final[Mapping[str, Any]] = {  # SDKs say these again; other values are for an open host
    "customAgentsLocalOnly": True,
    "includedBuiltinSkills": [],
    "installedPlugins": [],
    "manageScheduleEnabled": False,
    "skipCustomInstructions": True,
}


def _mode_set(sent: dict[str, Any], policy: Policy, _: Credential | None) -> dict[str, Any]:
    if sent.get("mode") not in _AGENT_MODES and not policy.opens_host:
        raise refused("mode", sent.get("mode"), f"choose one of {', '.join(sorted(_AGENT_MODES))}")
    return sent


def _switch_to(sent: dict[str, Any], policy: Policy, _: Credential | None) -> dict[str, Any]:
    check_model("modelId", sent.get("modelId"), policy)
    return sent


def _switch_auto_tier(sent: dict[str, Any], policy: Policy, _: Credential | None) -> dict[str, Any]:
    check_model("modelId", "auto", policy)
    return sent


def _start_agent(sent: dict[str, Any], policy: Policy, _: Credential | None) -> dict[str, Any]:
    if sent.get("model") is not None:
        check_model("model", sent["model"], policy)
    return sent


def _options(sent: dict[str, Any], policy: Policy, _: Credential | None) -> dict[str, Any]:
    for name, value in sent.items():
        said_again = name in _OPTIONS_AS_THEY_ARE and (policy.opens_host or value == _OPTIONS_AS_THEY_ARE[name])
        if name not in _OPTIONS and not said_again:
            raise refused(name, value, "is the pool's to set; leave it out")
    return sent


def _decision(sent: dict[str, Any], policy: Policy, _: Credential | None) -> dict[str, Any]:
    result = of_type("result", sent.get("result"), dict)
    if result.get("kind") not in _DECISIONS and not policy.opens_host:
        raise refused(
            "result.kind", result.get("kind"), "outlives the session; use approve-once or approve-for-session"
        )
    return sent


def _wait(sent: dict[str, Any], policy: Policy, _: Credential | None) -> dict[str, Any]:
    wait = sent.get("waitMs")
    return sent if wait is None else sent | {"waitMs": min(of_type("waitMs", wait, int), MAX_WAIT_MS)}


def _local(sent: dict[str, Any], policy: Policy, _: Credential | None) -> dict[str, Any]:
    return sent | {"source": "local"}


def _metadata(sent: dict[str, Any], policy: Policy, _: Credential | None) -> dict[str, Any]:
    if sent.get("clear"):
        raise refused("clear", sent["clear"], "would take the pool's own labels away; name yours in remove")
    return sent


def _rewind(sent: dict[str, Any], policy: Policy, _: Credential | None) -> dict[str, Any]:
    """A CLI takes a message with a source, our mark of a send that may be in doubt, for no turn of a user."""
    way_out = "the gateway's mark on messages keeps the CLI from it; session.history.truncate with this event does it"
    raise refused("eventId", sent.get("eventId"), f"cannot be rewound to: {way_out}, but for files")


def _models(sent: dict[str, Any], policy: Policy, credential: Credential | None) -> dict[str, Any]:
    if credential is None or credential.git_hub_token is None or sent.get("gitHubToken"):
        return sent
    return sent | {"gitHubToken": credential.git_hub_token}


def _quota(sent: dict[str, Any], policy: Policy, _: Credential | None) -> dict[str, Any]:
    if not sent.get("gitHubToken"):
        raise refused("gitHubToken", None, "the pool's quota is not shown; give a token of your own")
    return sent


_JUDGES: Final[Mapping[str, _Judge]] = {
    "account.getQuota": _quota,
    "models.list": _models,
    "session.eventLog.read": _wait,
    "session.history.rewind": _rewind,
    "session.metadata.updateClientMetadata": _metadata,
    "session.mode.set": _mode_set,
    "session.model.switchAutoTier": _switch_auto_tier,
    "session.model.switchTo": _switch_to,
    "session.options.update": _options,
    "session.permissions.handlePendingPermissionRequest": _decision,
    "session.tasks.readOutput": _wait,
    "session.tasks.startAgent": _start_agent,
    "sessions.list": _local,
}
