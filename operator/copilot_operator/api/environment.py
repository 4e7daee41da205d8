"""Flags and variables that users may add to a server, and those that are the operator's."""

from typing import Annotated, Final, Literal

from pydantic import Field

from copilot_operator.api.model import Model
from copilot_operator.api.references import ConfigMapKeyRef, SecretKeyRef
from copilot_operator.api.rules import ATOMIC_LIST, Rule, list_map

LogLevel = Literal["none", "error", "warning", "info", "debug", "all"]

# What is ours, in groups that share a way out. The CLI takes a flag as "--flag value" and as "--flag=value".
REFUSED_FLAGS: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (("--log-level",), "use spec.server.logLevel instead of --log-level"),
    (
        ("--session-idle-timeout",),
        "use spec.sessions.idleTimeout instead of --session-idle-timeout",
    ),
    (
        ("--auth-token-env", "--auto-login", "--no-auto-login"),
        "use spec.auth.gitHub.tokenSecretRef instead of --auth-token-env, --auto-login and --no-auto-login",
    ),
    (
        ("--headless", "--server", "--managed-server", "--stdio", "--acp", "--host", "--port"),
        "leave out --headless, --server, --managed-server, --stdio, --acp, --host and --port: "
        "servers listen where the Services of the operator expect them",
    ),
    (
        ("--log-dir", "--config-dir", "--auto-update", "--no-auto-update"),
        "leave out --log-dir, --config-dir, --auto-update and --no-auto-update: directories are fixed, "
        "and the version is that of spec.server.image",
    ),
    (
        ("--", "-p", "--prompt", "-i", "--interactive", "--resume", "--continue", "-h", "--help", "-v", "--version"),
        "leave out --, --prompt, --interactive, --resume, --continue, --help and --version: "
        "with them the CLI is no server; applications start and resume sessions through the SDK",
    ),
)
REFUSED_VARIABLES: Final[tuple[tuple[tuple[str, ...], str], ...]] = (
    (
        ("COPILOT_SDK_AUTH_TOKEN", "COPILOT_GITHUB_TOKEN", "GH_TOKEN", "GITHUB_TOKEN"),
        "use spec.auth.gitHub.tokenSecretRef instead of COPILOT_SDK_AUTH_TOKEN, COPILOT_GITHUB_TOKEN, GH_TOKEN "
        "and GITHUB_TOKEN",
    ),
    (
        ("COPILOT_CONNECTION_TOKEN",),
        "leave out COPILOT_CONNECTION_TOKEN: the operator makes one for each server; applications find theirs in the "
        "Secret that the tenant's status.endpoint.secretName names",
    ),
    (
        ("HOME", "COPILOT_HOME", "COPILOT_CACHE_HOME", "COPILOT_PKG_CACHE_HOME", "COPILOT_AUTO_UPDATE"),
        "leave out HOME, COPILOT_HOME, COPILOT_CACHE_HOME, COPILOT_PKG_CACHE_HOME and COPILOT_AUTO_UPDATE: directories "
        "are fixed, and the version is that of spec.server.image",
    ),
)


def _flag_rule(flags: tuple[str, ...], way_out: str) -> Rule:
    return Rule(
        f"self.all(a, !(a.split('=', 2)[0] in {list(flags)!r}))",
        way_out,
        lambda args: not any(arg.split("=", 1)[0] in flags for arg in args),
    )


def _variable_rule(names: tuple[str, ...], way_out: str) -> Rule:
    return Rule(
        f"self.all(e, !(e.name in {list(names)!r}))",
        way_out,
        lambda variables: not any(variable.name in names for variable in variables),
    )


FLAG_RULES: Final = tuple(_flag_rule(*group) for group in REFUSED_FLAGS)
VARIABLE_RULES: Final = tuple(_variable_rule(*group) for group in REFUSED_VARIABLES)

# Kubernetes replaces $(NAME) in arguments, so a variable could smuggle in any of the flags above.
ARGS_ARE_LITERAL: Final = Rule(
    "self.all(a, !a.contains('$('))",
    "write the value itself instead of $(NAME), or set the variable in spec.server.env",
    lambda args: not any("$(" in arg for arg in args),
)

Args = Annotated[
    tuple[Annotated[str, Field(min_length=1, max_length=1024)], ...],
    Field(max_length=64),
    ATOMIC_LIST,
    ARGS_ARE_LITERAL,
    *FLAG_RULES,
]


class EnvVarSource(Model):
    """Where the value of a variable comes from."""

    rules = (
        Rule(
            "has(self.secretKeyRef) != has(self.configMapKeyRef)",
            "write exactly one of secretKeyRef and configMapKeyRef",
            lambda source: (source.secret_key_ref is None) != (source.config_map_key_ref is None),
        ),
    )

    secret_key_ref: SecretKeyRef | None = None
    """The key of a Secret in the pool's namespace."""
    config_map_key_ref: ConfigMapKeyRef | None = None
    """The key of a ConfigMap in the pool's namespace."""


class EnvVar(Model):
    """A variable of the CLI's environment."""

    rules = (
        Rule(
            "has(self.value) != has(self.valueFrom)",
            "write exactly one of value and valueFrom (value: '' for an empty variable)",
            lambda variable: (variable.value is None) != (variable.value_from is None),
        ),
    )

    name: Annotated[str, Field(min_length=1, max_length=256, pattern=r"^[-._a-zA-Z][-._a-zA-Z0-9]*$")]
    """Name of the variable."""
    value: Annotated[str, Field(max_length=8192)] | None = None
    """Its value. Anyone who may read the pool can read it: use valueFrom for secrets."""
    value_from: EnvVarSource | None = None
    """A key of a Secret or ConfigMap that holds its value; read when a server starts."""


Env = Annotated[tuple[EnvVar, ...], Field(max_length=64), list_map("name"), *VARIABLE_RULES]
