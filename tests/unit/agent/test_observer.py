"""What the observer asks a CLI about."""

import asyncio

from copilot_operator.agent.observer import Observer, Sessions
from copilot_operator.rpc.errors import ServerError
from tests.support.eventually import eventually
from tests.support.standin import StandIn
from tests.unit.agent.conftest import SOON_S, TOKEN, begin


async def test_what_another_server_has_is_not_asked_about_and_what_is_ours_is(cli: StandIn) -> None:
    """Of thousands on a volume that servers share each asks about its own."""
    ours = {"ours"}
    clients = [await begin(cli, id, "hi") for id in ("ours", "theirs")]
    observer = Observer(cli.host, cli.port, TOKEN, may_be_loaded=lambda id: id in ours)
    running = asyncio.create_task(observer.run(lambda: None))

    async def look(full: bool = True) -> Sessions | None:
        try:
            return await observer.sessions(max_age_s=0, timeout_s=SOON_S, full=full)
        except ServerError:  # it is not connected yet
            return None

    try:
        found = await eventually(look, within_s=SOON_S, what="it has looked")
        assert (set(found.standings), found.stored) == ({"ours"}, 2)
        ours.add("theirs")
        found = await look()
        assert found is not None
        assert set(found.standings) == {"ours", "theirs"}, "once it is ours it is asked about, though it rested"
    finally:
        running.cancel()
        for client in clients:
            await client.close()
