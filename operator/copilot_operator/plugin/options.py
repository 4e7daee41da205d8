"""The options that every command has, as kubectl has them; given before or after the command."""

import functools
from collections.abc import Callable
from typing import Any, Final, TypeVar

import click
from click.shell_completion import CompletionItem

from copilot_operator.domain.kinds import POOL, TENANT, Kind
from copilot_operator.plugin.errors import PluginError
from copilot_operator.plugin.kube import REQUEST_S, Kubectl
from copilot_operator.rpc.errors import ServerError

F = TypeVar("F", bound=Callable[..., Any])
KEY: Final = "copilot_operator.plugin"
COMPLETION_S: Final = 3.0  # a shell waits for this
KINDS: Final = {
    "tenant": TENANT, "tenants": TENANT, "ctenant": TENANT, "copilottenant": TENANT, "copilottenants": TENANT,
    "pool": POOL, "pools": POOL, "cpool": POOL, "copilotpool": POOL, "copilotpools": POOL,
}  # fmt: skip


def connection_options(function: F) -> F:
    """--context, --kubeconfig, --namespace and --request-timeout."""
    for names, kind, text in reversed(OPTIONS):
        function = click.option(*names, type=kind, expose_value=False, callback=_remember, help=text)(function)
    return function


def everywhere_option(function: F) -> F:
    return click.option(
        "-A", "--all-namespaces", is_flag=True, default=None, expose_value=False, callback=_remember,
        help="All namespaces.",
    )(function)  # fmt: skip


def output_option(*forms: str) -> Callable[[F], F]:
    return click.option("-o", "--output", type=click.Choice(forms), help="A document, for programs.")


def wait_options(function: F) -> F:
    function = click.option(
        "--timeout", type=Seconds(), default="12m", show_default=True, help="How long to wait at most."
    )(function)
    return click.option("--wait/--no-wait", default=False, help="Wait until it is done, and show how it goes.")(
        function
    )


class Seconds(click.ParamType[float]):
    """A time: ``90``, ``90s``, ``12m``, ``1h``."""

    name = "duration"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> float:
        if isinstance(value, int | float):
            return float(value)
        number, unit = (value[:-1], value[-1]) if value[-1:] in "smh" and value else (value, "s")
        try:
            found = float(number) * {"s": 1, "m": 60, "h": 3600}[unit]
        except ValueError:
            found = -1.0
        if not 0 < found <= 7 * 86400:
            self.fail(f"{value!r}: write a time such as 90s, 12m or 1h", param, ctx)
        return found


OPTIONS: Final = (
    (("-n", "--namespace"), click.STRING, "Namespace; that of the context if left out."),
    (("--context",), click.STRING, "Context of the kubeconfig."),
    (("--kubeconfig",), click.STRING, "Path of the kubeconfig."),
    (("--request-timeout",), Seconds(), f"How long to wait for one answer of the API server ({REQUEST_S:g}s)."),
)


def _remember(ctx: click.Context, param: click.Parameter, value: Any) -> None:
    if value is not None and param.name:
        ctx.meta.setdefault(KEY, {})[param.name] = value


def given(ctx: click.Context, name: str, otherwise: Any = "") -> Any:
    return ctx.meta.get(KEY, {}).get(name, otherwise)


def kubectl_of(ctx: click.Context, request_s: float | None = None) -> Kubectl:
    seconds = request_s or given(ctx, "request_timeout", REQUEST_S)
    return Kubectl.find(given(ctx, "context"), given(ctx, "kubeconfig"), seconds)


def namespace_of(ctx: click.Context, kube: Kubectl) -> str:
    return str(given(ctx, "namespace") or kube.namespace())


def scope_of(ctx: click.Context, kube: Kubectl) -> str:
    """The namespace to list; "" is all of them."""
    return "" if given(ctx, "all_namespaces", False) else namespace_of(ctx, kube)


def kind_and_name(text: str, *kinds: Kind) -> tuple[Kind | None, str]:
    """``tenant/alice`` as its kind and name; the kind is None where only a name was given."""
    word, separator, name = text.partition("/")
    if not separator:
        return (kinds[0] if len(kinds) == 1 else None), text
    kind = KINDS.get(word.lower().split(".")[0])
    if kind is None or kind not in kinds or not name:
        forms = " or ".join(f"{each.kind.removeprefix('Copilot').lower()}/NAME" for each in kinds)
        raise PluginError(f"{text!r}: write {forms}")
    return kind, name


def find_object(kube: Kubectl, namespace: str, text: str, *kinds: Kind) -> tuple[Kind, dict[str, Any]]:
    """The pool or tenant that is meant; a tenant, where both have the name and nothing else is said."""
    kind, name = kind_and_name(text, *kinds)
    for each in (kind,) if kind else kinds:
        if found := kube.seek(each, namespace, name):
            return each, found
    sought = " or ".join(each.kind for each in ((kind,) if kind else kinds))
    raise PluginError(f"there is no {sought} {name} in namespace {namespace}; see: kubectl copilot status -A")


def complete_names(*kinds: Kind) -> Callable[[click.Context, click.Parameter, str], list[CompletionItem]]:
    """Completes names of objects; silently nothing where the cluster does not answer."""

    def complete(ctx: click.Context, param: click.Parameter, incomplete: str) -> list[CompletionItem]:
        try:
            kube = kubectl_of(ctx, COMPLETION_S)
            namespace = namespace_of(ctx, kube)
            found = []
            for kind in kinds:
                prefix = "" if len(kinds) == 1 or kind is TENANT else "pool/"
                found += [f"{prefix}{each['metadata']['name']}" for each in kube.list(kind, namespace)]
        except PluginError:
            return []
        return [CompletionItem(name) for name in sorted(found) if name.startswith(incomplete)]

    return complete


def name_argument(*kinds: Kind, metavar: str) -> Callable[[F], F]:
    """The object that a command is about."""

    def decorate(function: F) -> F:
        made: F = click.argument("name", metavar=metavar, shell_complete=complete_names(*kinds))(function)
        return made

    return decorate


def reporting(function: F) -> F:
    """What a command raises of ours is for its user."""

    @functools.wraps(function)
    def wrapped(*args: Any, **kwargs: Any) -> Any:
        try:
            return function(*args, **kwargs)
        except PluginError as error:
            raise click.ClickException(str(error)) from None
        except ServerError as error:
            raise click.ClickException(f"the server: {error}") from None

    return wrapped  # type: ignore[return-value]
