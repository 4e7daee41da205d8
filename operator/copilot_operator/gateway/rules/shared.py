"""What a tenant may do in a session that it shares with others (``spec.shared.sharedSessions``). Pure.

Every method that is forwarded for a session has its manner here; one that has none is refused.
"""

from collections.abc import Mapping
from enum import StrEnum
from typing import Any, Final

from copilot_operator.gateway.rules.policy import INVALID_PARAMS, Refused, of_type, refused
from copilot_operator.gateway.session.calls import LEAVES, MAKES


class Manner(StrEnum):
    """What a request of a member does to the others."""

    JOINS = "joins"  # create and resume are the same: the session is there for its members
    LEAVES = "leaves"
    READS = "reads"  # or says again what holds anyway, as SDKs do (session.options.update)
    SPEAKS = "speaks"  # asks a model, or changes what the others see: only who has the lock
    TENDS = "tends"  # ends or answers for what runs: only whose turn it is, or anybody if he has gone
    REFUSED = "refused"


_SPEAKS: Final = frozenset(
    f"session.{name}"
    for name in (
        "agent.deselect", "history.clearContext", "history.compact", "history.rewind", "history.summarizeForHandoff",
        "history.truncate", "metadata.recomputeContextTokens", "metadata.updateClientMetadata", "mode.set",
        "model.setReasoningEffort", "model.switchAutoTier", "model.switchTo", "name.set", "name.setAuto",
        "permissions.resetSessionApprovals", "plan.delete", "plan.update", "queue.clear", "queue.duplicateAt",
        "queue.moveItem", "queue.removeAt", "queue.removeMostRecent", "queue.sendNow", "queue.updateText",
        "queue.withdrawMessage", "quota.refresh", "quota.takeWarnings", "send", "sendMessages", "skills.ensureLoaded",
        "tasks.remove", "tasks.sendMessage", "tools.initializeAndValidate", "ui.elicitation", "ui.ephemeralQuery",
    )
)  # fmt: skip
_TENDS: Final = frozenset(
    f"session.{name}"
    for name in (
        "abort", "cancelAllBackgroundAgents", "history.abortManualCompaction", "history.cancelBackgroundCompaction",
        "interruptMainTurn", "permissions.handlePendingPermissionRequest", "permissions.notifyPromptShown",
        "tasks.cancel", "tasks.promoteCurrentToBackground", "tasks.promoteToBackground",
        "tools.handlePendingToolCall", "ui.handlePendingAutoModeSwitch", "ui.handlePendingElicitation",
        "ui.handlePendingExitPlanMode", "ui.handlePendingSampling", "ui.handlePendingUserInput",
    )
)  # fmt: skip
_READS: Final = frozenset(
    f"session.{name}"
    for name in (
        "agent.getCurrent", "agent.list", "autopilotObjective.getState", "commands.list", "eventLog.read",
        "eventLog.registerInterest", "eventLog.releaseInterest", "eventLog.tail", "getMessages", "getMetadata",
        "gitHubAuth.getStatus", "history.listRewindPoints", "history.previewRewind", "instructions.getSources",
        "limitPrediction.predict", "managedSettings.get", "mcp.isServerRunning", "mcp.list", "mcp.listTools",
        "metadata.activity", "metadata.contextInfo", "metadata.getClientMetadata", "metadata.getContextAttribution",
        "metadata.getContextHeaviestMessages", "metadata.isProcessing", "metadata.snapshot", "mode.get",
        "model.getCurrent", "model.getReasoningSummaries", "model.list", "name.get", "options.update",
        "permissions.getMode", "permissions.paths.list", "permissions.pendingRequests", "plan.read",
        "plan.readSqlTodos", "plan.readSqlTodosWithDependencies", "queue.pendingItems", "quota.get",
        "sandbox.getEnforcementStatus", "skills.getInvoked", "skills.list", "tasks.getCurrentPromotable",
        "tasks.getProgress", "tasks.list", "tasks.readOutput", "tasks.refresh", "tasks.waitForPending",
        "tools.getBuiltinDescriptors", "tools.getCurrentMetadata", "tools.listPendingRequests", "usage.getMetrics",
        "workspaces.getWorkspace", "workspaces.listCheckpoints", "workspaces.listFiles", "workspaces.readCheckpoint",
    )
) | {"sessions.readPersistedEvents", "sessions.save"}  # fmt: skip
_REFUSED: Final = frozenset({"session.delete", "session.log", "session.suspend", "sessions.close"})
_MANNERS: Final[Mapping[str, Manner]] = {
    **dict.fromkeys(_SPEAKS, Manner.SPEAKS),
    **dict.fromkeys(_TENDS, Manner.TENDS),
    **dict.fromkeys(_READS, Manner.READS),
    **dict.fromkeys(MAKES, Manner.JOINS),
    **dict.fromkeys(LEAVES, Manner.LEAVES),
    **dict.fromkeys(_REFUSED, Manner.REFUSED),
}


def decided() -> frozenset[str]:
    """Methods that have a manner."""
    return frozenset(_MANNERS)


def manner(method: str) -> Manner:
    """How a method is taken."""
    return _MANNERS.get(method, Manner.REFUSED)


def why_refused(method: str, name: str) -> str:
    """The error message of a method that no member has."""
    if method == "session.delete":
        return (
            f"session {name} is shared: detach from it; to end it take it from spec.shared.sharedSessions of the pool"
        )
    return f"{method} ends or changes session {name} for all who share it, and is not served there"


# What would bind the session to one connection, or change it for the others.
_OF_ONE: Final = (
    "tools", "hooks", "requestUserInput", "requestElicitation", "requestExitPlanMode", "requestAutoModeSwitch",
    "systemMessage",
)  # fmt: skip
_OF_FIRST: Final[Mapping[str, type]] = {"model": str, "reasoningEffort": str}
_NOT_SHARED: Final = "is of one client, and the session is shared by several; leave it out"


def joining(params: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """What is left of a member's create or resume: to join the session that is there, and to make it if it is not.

    Raises Refused. Whoever makes it chooses its model; all else is as the pool says, and the same for all.
    """
    for name in _OF_ONE:
        if params.get(name):
            raise refused(name, None if name in ("tools", "systemMessage") else params[name], _NOT_SHARED)
    for name in ("provider", "providers", "gitHubToken", "gitHubTokenProviderRegistrationId"):
        if params.get(name):
            raise Refused(INVALID_PARAMS, f"{name}: shared sessions run on the pool's credential; leave it out")
    said = {"sessionId": params.get("sessionId"), "streaming": True}
    if params.get("requestPermission") is True:
        said["requestPermission"] = True
    first = {name: of_type(name, params[name], kind) for name, kind in _OF_FIRST.items() if params.get(name)}
    return said | {"disableResume": True, "continuePendingWork": True}, said | first
