"""Console scripts. The libraries of a terminal are an extra of the package, not in the operator's image."""

import sys
from typing import Final

MISSING: Final = "kubectl-copilot needs click and rich: pip install 'copilot-operator[plugin]'"


def main() -> int:
    """``kubectl-copilot``, which kubectl runs as ``kubectl copilot``."""
    try:
        from copilot_operator.plugin.program import cli
    except ModuleNotFoundError as error:
        if error.name not in ("click", "rich"):
            raise
        print(MISSING, file=sys.stderr)
        return 1
    cli.main(prog_name="kubectl copilot")
    return 0


def complete() -> int:
    """``kubectl_complete-copilot``, which kubectl's own completion asks: the words so far as arguments."""
    try:
        from copilot_operator.plugin.program import completion
    except ModuleNotFoundError:
        return 0
    print(completion.answer(sys.argv[1:]))
    return 0


if __name__ == "__main__":
    sys.exit(main())
