"""The one console script: picks a command and imports only what that command needs.

The agent runs beside every server and must stay small, so nothing of the operator is imported here.
"""

import importlib
import sys
from typing import Final

COMMANDS: Final = {
    "run": ("copilot_operator.app", "the operator"),
    "agent": ("copilot_operator.agent.main", "the sidecar of a CLI server"),
    "gateway": ("copilot_operator.gateway.main", "the data plane of a pool"),
    "export": ("copilot_operator.export.main", "servers as plain Kubernetes, or for Azure Container Instances"),
    "sbom": ("copilot_operator.ops.sbom", "what it consists of, as CycloneDX (JSON)"),
    "crds": ("copilot_operator.api.crd", "write the CustomResourceDefinitions"),
}


def main(argv: list[str] | None = None) -> int:
    """Run ``copilot-operator COMMAND [ARG ...]``; returns the exit code (2: unknown command)."""
    arguments = sys.argv[1:] if argv is None else argv
    if not arguments or arguments[0] not in COMMANDS:
        print("usage: copilot-operator COMMAND [ARG ...]\n", file=sys.stderr)
        for name, (_, what) in COMMANDS.items():
            print(f"  {name:8}{what}", file=sys.stderr)
        return 2
    module = importlib.import_module(COMMANDS[arguments[0]][0])
    result: int | None = module.main(arguments[1:])
    return result or 0


if __name__ == "__main__":
    sys.exit(main())
