"""The links of one tenant, by the number of the client they were opened for and the name of their server."""

from collections.abc import Callable, Collection, Iterator, Mapping

from copilot_operator.gateway.clients import Client
from copilot_operator.gateway.link import Link, Side
from copilot_operator.gateway.server import Server


class Links:
    """They are opened when they are first asked for. ``clients`` are those that are connected, by number."""

    def __init__(self, side: Side, server: Callable[[str], Server | None], clients: Mapping[int, Client]) -> None:
        self._side, self._server, self._clients = side, server, clients
        self._all: dict[tuple[int, str], Link] = {}

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self._all.values()))

    def __len__(self) -> int:
        return len(self._all)

    def get(self, number: int, server: str | None) -> Link | None:
        """One that is there already."""
        return self._all.get((number, server)) if server is not None else None

    def to(self, number: int, server: str) -> Link | None:
        """That of a client to a server; None: the server has left."""
        link = self._all.get((number, server))
        if link is None and (at := self._server(server)) is not None:
            link = self._all[number, server] = Link(self._side, number, server, at.address)
            if (client := self._clients.get(number)) and not client.reads:
                link.block(number, True)
        return link

    def forget(self, link: Link) -> bool:
        """It has ended; False: it had been forgotten before."""
        if self._all.get((link.number, link.server)) is not link:
            return False
        del self._all[link.number, link.server]
        return True

    def leave(self, server: str) -> None:
        """Forget and close all links to a server."""
        for link in self:
            if link.server == server:
                self.forget(link)
                link.close("the server has left the pool")

    def tidy(self, needed: Collection[tuple[int, str | None]]) -> None:
        """Close those that nothing needs: each costs its server every broadcast."""
        for link in self:
            idle = link.outstanding == 0 or link.number not in self._clients
            if idle and (link.number, link.server) not in needed:
                link.close("nothing is loaded over it")

    def close(self) -> None:
        for link in self:
            link.close("the gateway ends")
