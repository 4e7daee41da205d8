"""The fields of ``session.create`` and ``session.resume`` that a CLI or its SDKs know, by who may set them. Pure."""

from collections.abc import Mapping
from typing import Any, Final

# What a client may set in any pool, by JSON type.
OPEN: Final[Mapping[str, type]] = {
    "askUserVariant": str,
    "clientName": str,
    "contextTier": str,
    "continuePendingWork": bool,
    "disableResume": bool,
    "enableCitations": bool,
    "enableSessionTelemetry": bool,
    "excludedTools": list,
    "hooks": bool,
    "includeSubAgentStreamingEvents": bool,
    "infiniteSessions": dict,
    "interactiveUser": bool,
    "model": str,
    "modelCapabilities": dict,
    "name": str,
    "reasoningEffort": str,
    "reasoningSummary": str,
    "requestAutoModeSwitch": bool,
    "requestElicitation": bool,
    "requestExitPlanMode": bool,
    "requestPermission": bool,
    "requestUserInput": bool,
    "sessionId": str,
    "skipEmbeddingRetrieval": bool,
    "streaming": bool,
    "systemMessage": dict,
    "toolFilterPrecedence": str,
    "tools": list,
    "traceparent": str,
    "tracestate": str,
}
# What holds for every session that has no host tools. Each closes a way to the host that was seen to work.
CLOSED: Final[Mapping[str, Any]] = {
    "enableConfigDiscovery": False,
    "enableFileHooks": False,
    "enableHostGitOperations": False,
    "enableOnDemandInstructionDiscovery": False,
    "enableSessionStore": False,  # session.delete does not erase that copy of the conversation
    "enableSkills": False,
    "skipCustomInstructions": True,
}
PAYING: Final = frozenset(("gitHubToken", "gitHubTokenProviderRegistrationId", "provider", "providers"))
CREDENTIALS: Final = PAYING | {"models", "capi"}  # what they are for, or go to
MCP: Final = frozenset(("mcpServers", "githubMcpToolConfig", "requestMcpApps"))
NEVER: Final = frozenset(  # out of sight of lists and deletes, out of the cluster, or answered by reverse requests
    (
        "configDir",
        "cloud",
        "remoteSession",
        "canvases",
        "canvasProvider",
        "openCanvases",
        "requestCanvasRenderer",
        "hasSkillProvider",
        "enableGitHubTelemetryForwarding",
    )
)
# Known to the CLI and kept from clients without host tools; what is not even here the CLI ignores, and so do we.
HOST: Final = frozenset(
    (
        *CLOSED,
        "additionalDirectories",
        "agent",
        "agentDirectories",
        "allowTranscriptRecovery",
        "authClientIdMetadataUrl",
        "autopilot",
        "commands",
        "customAgents",
        "defaultAgent",
        "diagnostics",
        "enableFileChangeTracking",
        "enableManagedSettings",
        "enforceManagedModelDefaults",
        "expAssignments",
        "extensionInfo",
        "extensionSdkPath",
        "featureFlags",
        "hookDirectories",
        "imageGeneration",
        "instructionDirectories",
        "isExperimentalMode",
        "largeOutput",
        "managedSettings",
        "memory",
        "organizationCustomInstructions",
        "pluginDirectories",
        "refreshCustomInstructions",
        "requestExtensions",
        "requestedEnvironmentVariables",
        "sandboxConfig",
        "skillDirectories",
        "toolSearch",
        "trustWorkingDirectory",
        "workflows",
    )
)
ASKS_NOTHING: Final[Mapping[str, Any]] = {"skipCustomInstructions": True}  # beside null, false and empty

# Tools of the CLI itself; a client's tool of such a name would have to take its place.
HOST_TOOLS: Final = frozenset(
    (
        "apply_patch",
        "ask_user",
        "bash",
        "create",
        "edit",
        "exit_plan_mode",
        "glob",
        "grep",
        "list_agents",
        "list_bash",
        "read_agent",
        "read_bash",
        "report_intent",
        "semantic_code_search",
        "skill",
        "sql",
        "stop_bash",
        "str_replace_editor",
        "task",
        "task_complete",
        "view",
        "web_fetch",
        "write_agent",
        "write_bash",
    )
)
