"""``connect``, ``chat``, ``sessions`` and ``logs``: what leads to a tenant's server."""

import asyncio
import contextlib
import os
import sys
import uuid
from collections.abc import Callable, Iterator
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from functools import partial
from pathlib import Path

import click

from copilot_operator.domain.kinds import POOL, TENANT
from copilot_operator.domain.manifest import Manifest
from copilot_operator.domain.naming import server_of
from copilot_operator.plugin import tables
from copilot_operator.plugin.conversation import Conversation, Decision
from copilot_operator.plugin.direct import direct
from copilot_operator.plugin.endpoint import Endpoint, endpoint_of, is_shared
from copilot_operator.plugin.errors import PluginError
from copilot_operator.plugin.forward import Relay, Way, connected, forwarded, until_told
from copilot_operator.plugin.group import command
from copilot_operator.plugin.kube import Kubectl
from copilot_operator.plugin.loop import LoopThread
from copilot_operator.plugin.options import (
    Seconds,
    find_object,
    kubectl_of,
    name_argument,
    namespace_of,
    output_option,
)
from copilot_operator.plugin.output import document_text
from copilot_operator.plugin.talker import Talker
from copilot_operator.plugin.times import age
from copilot_operator.plugin.tokens import how_to_get_it, token_of
from copilot_operator.plugin.turns import session_rows

INTERRUPTED = 130


@command(
    name_argument(TENANT, metavar="TENANT"),
    click.option("--port", type=click.IntRange(0, 65535), default=4321, show_default=True, help="Local port; 0: any."),
    click.option("--show-token", is_flag=True, help="Print the tenant's connection token."),
    click.option("--server", metavar="HOST:PORT", help="Connect there with TLS, and not through the API server."),
    click.option("--server-name", default="", metavar="NAME", help="What its certificate is for; the Service's name."),
    click.option(
        "--ca-file", type=click.Path(path_type=Path), help="Whom to trust (PEM); ca.crt of the pool's Secret."
    ),
)
def connect(
    ctx: click.Context,
    name: str,
    port: int,
    show_token: bool,
    server: str | None,
    server_name: str,
    ca_file: Path | None,
) -> None:
    """A local port that leads to a tenant's endpoint, also when the pod behind it is replaced."""
    if not server and (server_name or ca_file):
        raise click.UsageError("--server-name and --ca-file are about --server: name it, too")
    kube = kubectl_of(ctx)
    endpoint, pool = _endpoint_and_pool(ctx, kube, name)
    token = token_of(kube, endpoint) if show_token else ""
    way: Way = direct(kube, pool, server, server_name, ca_file) if server else partial(connected, kube, endpoint)
    what = f"{endpoint.what} at {server}, with TLS" if server else endpoint.what
    at_once = way if server else partial(forwarded, kube, endpoint)
    with contextlib.suppress(KeyboardInterrupt):
        asyncio.run(_serve(at_once, way, endpoint, what, port, token))


@command(
    name_argument(TENANT, metavar="TENANT"),
    click.option("--prompt", help="Have one turn and leave; - reads it from standard input."),
    click.option("--session", help="Id of the new session; made up if left out."),
    click.option("--resume", metavar="ID", help="Go on with a stored session; see: kubectl copilot sessions."),
    click.option("--model", default="", help="Model; the server's choice if left out."),
    click.option("--allow-tools", is_flag=True, help="Let tools do what they ask for, without asking you."),
    click.option("--turn-timeout", type=Seconds(), default="30m", show_default=True, help="Abort a longer turn."),
)
def chat(
    ctx: click.Context,
    name: str,
    prompt: str | None,
    session: str | None,
    resume: str | None,
    model: str,
    allow_tools: bool,
    turn_timeout: float,
) -> None:
    """A conversation with a tenant's server. Ctrl-C aborts a turn, Ctrl-D leaves."""
    if session and resume:
        raise PluginError("--session names a new session and --resume a stored one: write one of them")
    kube = kubectl_of(ctx)
    endpoint = _endpoint(ctx, kube, name)
    alone = prompt is not None
    text = sys.stdin.read() if prompt == "-" else prompt or ""
    if alone and not text.strip():
        raise PluginError("--prompt is empty: write what to say")
    with _talker(kube, endpoint) as talker:
        id = resume or session or f"chat-{uuid.uuid4().hex[:12]}"
        may = _permission(allow_tools, ask=not alone and sys.stdin.isatty())
        conversation = Conversation(talker, id, model=model, may=may)
        if resume:
            conversation.resume()
        else:
            conversation.create()
        if alone:
            turn = conversation.turn(text, turn_timeout)
            if turn.interrupted:
                ctx.exit(INTERRUPTED)
            if turn.aborted:
                raise PluginError(f"the turn was aborted by somebody else; to go on: --resume {id}")
            if turn.errors:
                raise PluginError("the turn failed, as said above")
            return
        _converse(conversation, talker, turn_timeout)
        print(f"To go on: kubectl copilot chat {name} -n {endpoint.namespace} --resume {id}", file=sys.stderr)


@command(name_argument(TENANT, metavar="TENANT"), output_option("json", "yaml"))
def sessions(ctx: click.Context, name: str, output: str | None) -> None:
    """A tenant's stored sessions, the last used first."""
    kube = kubectl_of(ctx)
    endpoint = _endpoint(ctx, kube, name)
    with _talker(kube, endpoint) as talker:
        rows = session_rows(talker.call("session.list"))
    if output:
        document = {"kind": "CopilotSessions", "namespace": endpoint.namespace, "tenant": name, "sessions": rows}
        click.echo(document_text(document, output))
        return
    if not rows:
        click.echo(f"No stored sessions of tenant {name}; a session is stored from its first turn on.", err=True)
        return
    now = datetime.now(UTC)
    cells = [(row["id"], f"{age(row['lastUsed'], now)} ago", row["summary"]) for row in rows]
    tables.show([tables.Table("", ("SESSION", "LAST USED", "SUMMARY"), cells)])


@command(
    name_argument(TENANT, metavar="TENANT"),
    click.option("-f", "--follow", is_flag=True, help="Go on with what is written from now on."),
    click.option("--tail", type=click.IntRange(-1), default=-1, help="Only so many lines from the end."),
    click.option("--since", help="Only what is younger, such as 10m."),
    click.option("-p", "--previous", is_flag=True, help="Of the container before its last restart."),
    click.option("--agent", is_flag=True, help="Of the agent beside the server."),
    click.option("--server", help="Which of the servers that store something of the tenant, in a Shared pool."),
)
def logs(
    ctx: click.Context,
    name: str,
    follow: bool,
    tail: int,
    since: str | None,
    previous: bool,
    agent: bool,
    server: str | None,
) -> None:
    """The log of a tenant's server, by kubectl logs."""
    kube = kubectl_of(ctx)
    namespace, tenant, pool = _tenant(ctx, kube, name)
    chosen = server or _only_server(tenant, pool)
    words = ["logs", f"deployment/{chosen}", f"--namespace={namespace}", f"--tail={tail}"]
    words.append(f"--container={'agent' if agent else 'copilot'}")
    words += ["--follow"] if follow else [f"--request-timeout={kube.request_s:g}s"]
    words += ["--previous"] if previous else []
    words += [f"--since={since}"] if since else []
    sys.stdout.flush()
    argv = kube.argv(*words)
    os.execvp(argv[0], argv)


def _only_server(tenant: Manifest, pool: Manifest | None) -> str:
    name, status = tenant["metadata"]["name"], tenant.get("status") or {}
    if pool is None or not is_shared(pool):
        return str(status.get("server") or server_of(name))
    homes = list(status.get("homes") or ())
    if len(homes) == 1:
        return str(homes[0])
    shared = pool["metadata"]["name"]
    if homes:
        raise PluginError(
            f"servers of pool {shared} that store something of tenant {name}: {', '.join(homes)}; --server names one"
        )
    raise PluginError(f"no server of pool {shared} stores anything of tenant {name}; --server names any of its servers")


def _tenant(ctx: click.Context, kube: Kubectl, name: str) -> tuple[str, Manifest, Manifest | None]:
    namespace = namespace_of(ctx, kube)
    _, tenant = find_object(kube, namespace, name, TENANT)
    pool = ((tenant.get("spec") or {}).get("poolRef") or {}).get("name", "")
    return namespace, tenant, kube.seek(POOL, namespace, pool) if pool else None


def _endpoint(ctx: click.Context, kube: Kubectl, name: str) -> Endpoint:
    return _endpoint_and_pool(ctx, kube, name)[0]


def _endpoint_and_pool(ctx: click.Context, kube: Kubectl, name: str) -> tuple[Endpoint, Manifest]:
    _, tenant, pool = _tenant(ctx, kube, name)
    endpoint = endpoint_of(tenant, pool)
    if endpoint.notice:
        click.echo(f"note: tenant {name} is not Ready: {endpoint.notice}", err=True)
    assert pool, "an endpoint is of a pool"
    return endpoint, pool


@contextlib.contextmanager
def _talker(kube: Kubectl, endpoint: Endpoint) -> Iterator[Talker]:
    with LoopThread() as loop:
        talker = Talker(loop, kube, endpoint, lambda: token_of(kube, endpoint))
        try:
            talker.open()
            yield talker
        finally:
            talker.close()


def _permission(allow: bool, *, ask: bool) -> Callable[[str], Decision]:
    def may(what: str) -> Decision:
        if allow:
            return Decision.ALLOWED
        if not ask:
            print(f"  not allowed: {what} (--allow-tools allows it)", file=sys.stderr)
            return Decision.NOBODY_THERE
        try:
            answer = input(f"  allow {what}? [y/N] ").strip().lower()
        except EOFError:
            answer = ""
        return Decision.ALLOWED if answer in ("y", "yes") else Decision.REFUSED

    return may


def _converse(conversation: Conversation, talker: Talker, turn_timeout_s: float) -> None:
    version = f", CLI {talker.version}" if talker.version else ""
    print(f"session {conversation.session}{version}; Ctrl-C aborts a turn, Ctrl-D leaves", file=sys.stderr)
    with contextlib.suppress(ImportError):
        import readline  # noqa: F401 - input() has history and editing with it
    while True:
        try:
            text = input("> ")
        except (EOFError, KeyboardInterrupt):
            print(file=sys.stderr)
            return
        if not text.strip():
            continue
        conversation.turn(text, turn_timeout_s)
        print(flush=True)


async def _serve(
    at_once: Callable[[], AbstractAsyncContextManager[object]],
    way: Way,
    endpoint: Endpoint,
    what: str,
    port: int,
    token: str,
) -> None:
    """Until Ctrl-C or SIGTERM. ``at_once`` is the way for one who waits for no pod to come."""
    async with at_once():
        pass  # what can't be reached is told at once, and not to the first who connects
    relay = Relay(way)
    address = await relay.listen(port)
    print(f"{address} leads to tenant {endpoint.tenant} ({what}); Ctrl-C ends it", flush=True)
    print(f"connection token: {token or how_to_get_it(endpoint)}", flush=True)
    await until_told()
    await relay.close()
