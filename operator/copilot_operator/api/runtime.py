"""Which server of the CLI's package is run, and what one of them can't do (docs/runtimes.md)."""

from typing import Final, Literal

from copilot_operator.api.rules import Rule

Runtime = Literal["CLI", "CopilotRuntime"]

MOST_SESSIONS: Final = 100  # sessions: it closes the 129th connection, and a loaded session may take one

NO_ARGS_FOR_RUNTIME: Final = Rule(
    "self.runtime != 'CopilotRuntime' || !has(self.args) || self.args.size() == 0",
    "leave args out, or write runtime: CLI: CopilotRuntime takes no further flags of the CLI",
    lambda server: server.runtime != "CopilotRuntime" or not server.args,
    field_path=".args",
)
GATEWAY_FOR_RUNTIME: Final = Rule(
    "self.server.runtime != 'CopilotRuntime' || self.gateway.enabled",
    "write runtime: CLI, or gateway: {enabled: true}: CopilotRuntime unloads no idle session itself, and takes 128 "
    "connections only",
    lambda spec: spec.server.runtime != "CopilotRuntime" or spec.gateway.enabled,
    field_path=".server.runtime",
)
BOUND_FOR_RUNTIME: Final = Rule(
    "self.server.runtime != 'CopilotRuntime' || !self.gateway.enabled"
    f" || (has(self.sessions.maxConcurrent) && self.sessions.maxConcurrent <= {MOST_SESSIONS})",
    f"write maxConcurrent: {MOST_SESSIONS} or less: CopilotRuntime takes 128 connections, and a loaded session "
    "may need one",
    lambda spec: (
        spec.server.runtime != "CopilotRuntime"
        or not spec.gateway.enabled
        or (spec.sessions.max_concurrent is not None and spec.sessions.max_concurrent <= MOST_SESSIONS)
    ),
    field_path=".sessions.maxConcurrent",
)
NO_APP_FOR_RUNTIME: Final = Rule(
    "self.server.runtime != 'CopilotRuntime'"
    " || !has(self.auth) || !has(self.auth.gitHub) || !has(self.auth.gitHub.app)",
    "write tokenSecretRef instead, or runtime: CLI: CopilotRuntime reads no App's token",
    lambda spec: spec.server.runtime != "CopilotRuntime" or spec.auth is None or spec.auth.app is None,
    field_path=".auth.gitHub.app",
)
