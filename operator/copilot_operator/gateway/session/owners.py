"""Who owns a session: links by their clients, those of clients that have left among them. Pure.

The CLI ends a session when the last connection that owns it closes. So a link whose client left in mid-turn stays
an owner; and because a client tool belongs to one connection, a client that returns is put on that link.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from copilot_operator.gateway.session.actions import ClientId, Link

# Of the parameters of a create or resume those that are about the connection rather than the session.
_OWN: Final = frozenset({"tools", "hooks", "requestPermission", "requestUserInput", "requestElicitation"})
_OF_THE_CALL: Final = frozenset({"sessionId", "disableResume", "continuePendingWork"})


def own_fields(params: Mapping[str, Any]) -> dict[str, Any]:
    """What of a create's or resume's parameters belongs to its connection."""
    return {name: value for name, value in params.items() if name in _OWN}


def common_fields(params: Mapping[str, Any]) -> dict[str, Any]:
    """What of a create's or resume's parameters holds for the session, whoever owns it."""
    return {name: value for name, value in params.items() if name not in _OWN | _OF_THE_CALL}


@dataclass(slots=True)
class Owner:
    """A link that owns the session, or is about to. ``client`` None: it lingers, since ``left_at``."""

    client: ClientId | None
    own: dict[str, Any] = field(default_factory=dict, repr=False)
    left_at: float = 0.0
    joining: bool = True  # its create or resume has not been answered


class Owners:
    """Owners of one session, the oldest first."""

    def __init__(self) -> None:
        self._by_link: dict[Link, Owner] = {}

    def __iter__(self) -> Iterator[Link]:
        return iter(list(self._by_link))

    def __len__(self) -> int:
        return len(self._by_link)

    def __contains__(self, link: Link | None) -> bool:
        return link in self._by_link

    def __getitem__(self, link: Link) -> Owner:
        return self._by_link[link]

    def get(self, link: Link | None) -> Owner | None:
        return None if link is None else self._by_link.get(link)

    @property
    def clients(self) -> list[ClientId]:
        """Clients that are to hear of the session, each once."""
        return list(dict.fromkeys(owner.client for owner in self._by_link.values() if owner.client is not None))

    @property
    def lingering(self) -> list[Link]:
        """Links whose client has left."""
        return [link for link, owner in self._by_link.items() if owner.client is None]

    def link_of(self, client: ClientId) -> Link | None:
        """The link over which ``client`` owns the session."""
        return next((link for link, owner in self._by_link.items() if owner.client == client), None)

    def by_itself(self, client: ClientId) -> bool:
        """Whether ``client`` owns the session over the link that was opened for it, which has its number."""
        owner = self._by_link.get(client)
        return owner is not None and owner.client == client

    def any_link(self) -> Link | None:
        """A link to ask and load over: of a client that is there, else of one that left."""
        lingering = self.lingering
        return next((link for link in self._by_link if link not in lingering), next(iter(self._by_link), None))

    def join(self, client: ClientId) -> Link | None:
        """The link over which ``client`` creates, resumes or attaches: its own again, one that lingers, a new one.

        Of several that linger it is the one that left last: most likely the same program. None: what would be its
        own has been taken over by another client, while this one had detached.
        """
        link = self.link_of(client)
        if link is not None:
            return link
        lingering = self.lingering
        if client in lingering or not lingering:  # it had only detached, or is new here
            link = client
        else:
            link = max(lingering, key=lambda each: self._by_link[each].left_at)
        owner = self._by_link.setdefault(link, Owner(None))
        if owner.client is not None:
            return None
        owner.client = client
        return link

    def leave(self, link: Link, now: float) -> None:
        """Its client has gone, or has detached; the link owns the session still."""
        owner = self._by_link[link]
        owner.client, owner.left_at = None, now

    def remove(self, link: Link) -> None:
        """The link owns the session no longer."""
        self._by_link.pop(link, None)
