"""Completion: ``kubectl copilot completion SHELL``, and the answers to kubectl's own, which asks a program of the name
``kubectl_complete-copilot`` for one candidate a line and, in the last line, what the shell shall do with them.
"""

from collections.abc import Sequence
from typing import Final

import click
from click.shell_completion import BashComplete, ShellComplete, ZshComplete

from copilot_operator.plugin.group import cli

PROGRAM: Final = "kubectl-copilot"
VARIABLE: Final = "_KUBECTL_COPILOT_COMPLETE"
NO_FILES: Final = ":4"  # cobra's ShellCompDirectiveNoFileComp
FILES: Final = ":0"
SHELLS: Final[dict[str, type[ShellComplete]]] = {"bash": BashComplete, "zsh": ZshComplete}


def answer(words: Sequence[str]) -> str:
    """What kubectl's completion reads; the last word is the one that is being written."""
    *before, last = [*words] or [""]
    found = ShellComplete(cli, {}, PROGRAM, VARIABLE).get_completions([*before], last)
    files = any(each.type == "file" for each in found)
    lines = [f"{each.value}\t{each.help}" if each.help else each.value for each in found if each.type == "plain"]
    return "\n".join([*lines, FILES if files else NO_FILES])


@cli.command()
@click.argument("shell", type=click.Choice(list(SHELLS)))
def completion(shell: str) -> None:
    """A script that completes kubectl-copilot.

    source <(kubectl copilot completion bash)

    After `kubectl copilot`, kubectl's own completion asks kubectl_complete-copilot, which was installed beside this.
    """
    click.echo(SHELLS[shell](cli, {}, PROGRAM, VARIABLE).source())
