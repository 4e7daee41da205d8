"""The command that all others are below."""

from collections.abc import Callable
from typing import Any

import click

from copilot_operator.plugin.options import connection_options, reporting


@click.group(context_settings={"help_option_names": ["-h", "--help"]})
@connection_options
def cli() -> None:
    """Pools and tenants of GitHub Copilot CLI servers on Kubernetes."""


def command(*own: Callable[[Any], Any]) -> Callable[[Callable[..., Any]], click.Command]:
    """A command with the options that all have, and arguments and options of its ``own``, in this order."""

    def decorate(function: Callable[..., Any]) -> click.Command:
        made: Any = click.pass_context(reporting(function))
        for each in reversed((connection_options, *own)):
            made = each(made)
        return cli.command()(made)

    return decorate
