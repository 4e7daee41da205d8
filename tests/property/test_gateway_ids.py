"""Whatever ids clients choose and whatever servers say: each tenant sees its own, by its own names, and no other's."""

import json
import string
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.gateway.rules.ids import InvalidId, NameSpace
from copilot_operator.gateway.rules.methods import Row, Verdict, table
from copilot_operator.gateway.rules.places import EVENT_PLACES
from copilot_operator.rpc.ids import MAX_ID_LENGTH

CHARACTERS = string.ascii_letters + string.digits + "_-"
CODE_LENGTH = 12
LONGEST = MAX_ID_LENGTH - CODE_LENGTH

codes = st.text(CHARACTERS, min_size=CODE_LENGTH, max_size=CODE_LENGTH)
ids = st.text(CHARACTERS, min_size=1, max_size=20) | st.text(CHARACTERS, min_size=LONGEST - 1, max_size=LONGEST)
texts = st.text(max_size=20)
jsons = st.recursive(
    st.none() | st.booleans() | st.integers(-(2**53), 2**53) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=8,
)

OURS, OTHERS = "ours-0000000", "others-00000"
SPACE = NameSpace(OURS)
# An id as a server may put it anywhere: ours, of another tenant, of another and made to look like ours inside.
server_ids = st.builds(lambda code, id: code + id, st.sampled_from([OURS, OTHERS, OTHERS + OURS]), ids)

FORWARDED = {name: row for name, row in table().methods.items() if row.shared is Verdict.FORWARD}


@given(code=codes | st.just(""), id=ids)
def test_an_id_comes_back_as_it_was_sent(code: str, id: str) -> None:
    space = NameSpace(code)
    assert space.inner(space.outer(id)) == id
    assert len(space.outer(id)) <= MAX_ID_LENGTH


@given(mine=codes, theirs=codes, id=ids)
def test_no_tenant_reads_an_id_of_another(mine: str, theirs: str, id: str) -> None:
    shown = NameSpace(mine).inner(NameSpace(theirs).outer(id))
    assert shown == (id if mine == theirs else None)


@given(code=codes, one=ids, other=ids)
def test_two_sessions_of_a_tenant_stay_two(code: str, one: str, other: str) -> None:
    space = NameSpace(code)
    assert (space.outer(one) == space.outer(other)) == (one == other)


@given(code=codes, id=texts | st.text(CHARACTERS, min_size=LONGEST - 1, max_size=LONGEST + 3) | jsons)
def test_an_id_is_good_exactly_when_it_has_the_characters_and_the_length(code: str, id: object) -> None:
    good = isinstance(id, str) and 1 <= len(id) <= LONGEST and set(id) <= set(CHARACTERS)
    try:
        outer = NameSpace(code).outer(id)
    except InvalidId:
        assert not good
    else:
        assert good
        assert outer == f"{code}{id}"


def with_ids_at(places: tuple[str, ...], ids: list[str]) -> dict[str, Any]:
    return {
        place.removesuffix("[]"): ids if place.endswith("[]") else ids[index % len(ids)]
        for index, place in enumerate(places)
    }


@given(method=st.sampled_from(sorted(FORWARDED)), ids=st.lists(ids, min_size=1, max_size=3), more=jsons)
def test_what_goes_to_a_server_reads_back_as_the_client_said_it(method: str, ids: list[str], more: object) -> None:
    said = with_ids_at(FORWARDED[method].ids, ids) | {"more": more}
    sent = SPACE.to_server(method, said)
    assert sent.keys() == said.keys()
    assert sent["more"] == more
    for name in said.keys() - {"more"}:
        back = [SPACE.inner(id) for id in sent[name]] if isinstance(said[name], list) else SPACE.inner(sent[name])
        assert back == said[name]


# What servers say


def put(place: str, id: str, ids: list[str]) -> Any:
    """A value with ids at a place of the table's notation, built here on its own account."""
    if not place:
        return id
    head, _, rest = place.partition(".")
    name = head.rstrip("[]{}")
    match head[len(name) :]:
        case "[]":
            value: Any = [put(rest, each, ids) for each in ids]
        case "{}":
            value = dict.fromkeys(ids, 1)
        case _:
            value = put(rest, id, ids)
    return {name: value} if name else value


@given(
    method=st.sampled_from(sorted(name for name, row in FORWARDED.items() if row.result_ids)),
    id=server_ids,
    ids=st.lists(server_ids, max_size=4),
)
def test_a_result_holds_our_ids_by_our_names_and_no_others(method: str, id: str, ids: list[str]) -> None:
    row: Row = FORWARDED[method]
    for place in row.result_ids:
        told = SPACE.from_server_result(method, put(place, id, ids))
        ours = [each.removeprefix(OURS) for each in ids if each.startswith(OURS)]
        if "[]" in place or "{}" in place:
            unique = list(dict.fromkeys(ours)) if "{}" in place else ours
            assert told == put(place, id, unique)
        else:
            assert told == (put(place, id.removeprefix(OURS), []) if id.startswith(OURS) else {})


exact_places = st.sampled_from(
    # Of an agent's id and a session's only the form would tell; it stands in events of the tenant's own sessions.
    [(kind, place) for kind, places in EVENT_PLACES.items() for place in places if place != "input.parentAgentId"]
)


@given(session=server_ids, place=exact_places, id=server_ids, ids=st.lists(server_ids, max_size=3))
def test_an_event_holds_our_ids_by_our_names_and_no_others(
    session: str, place: tuple[str, str], id: str, ids: list[str]
) -> None:
    kind, where = place
    body = compact("session.event", {"sessionId": session, "event": {"type": kind, "data": put(where, id, ids)}})
    told = SPACE.event(body)
    if not session.startswith(OURS):
        assert told is None
        return
    assert told is not None
    own = session.removeprefix(OURS)
    shown = id.removeprefix(OURS) if id.startswith(OURS) else own
    mine = [each.removeprefix(OURS) for each in ids if each.startswith(OURS)]
    expected = {"sessionId": own, "event": {"type": kind, "data": put(where, shown, mine)}}
    assert json.loads(told)["params"] == expected


def compact(method: str, params: object) -> bytes:
    text = json.dumps({"jsonrpc": "2.0", "method": method, "params": params}, separators=(",", ":"), ensure_ascii=False)
    return text.encode()


@given(id=ids, kind=st.sampled_from(["assistant.message_delta", "system.message", "model.x"]) | texts, data=jsons)
def test_all_else_of_an_event_stays_as_it_is(id: str, kind: str, data: object) -> None:
    if kind in EVENT_PLACES or kind in ("user.message", "session.error"):
        return
    event = {"type": kind, "data": data, "note": f"{OURS}{id}"}
    told = SPACE.event(compact("session.event", {"sessionId": OURS + id, "event": event}))
    assert told is not None
    assert json.loads(told) == json.loads(compact("session.event", {"sessionId": id, "event": event}))


@given(
    method=st.sampled_from(["session.event", "session.lifecycle", "host.event", "gitHubTelemetry.event"]) | texts,
    params=st.fixed_dictionaries({}, optional={"sessionId": server_ids | jsons, "type": texts, "event": jsons}) | jsons,
)
def test_only_what_is_known_to_be_ours_is_shown(method: str, params: object) -> None:
    told = SPACE.event(compact(method, params))
    session = params.get("sessionId") if isinstance(params, dict) else None
    ours = isinstance(session, str) and session.startswith(OURS) and session != OURS
    assert (told is not None) == (ours and method in ("session.event", "session.lifecycle"))
    if told is not None:
        assert OURS + json.loads(told)["params"]["sessionId"] == session


@given(junk=st.binary(max_size=60))
def test_no_bytes_break_it(junk: bytes) -> None:
    opening = b'{"jsonrpc":"2.0","method":"session.event","params":{"sessionId":"'
    for body in (junk, opening + junk, opening + OURS.encode() + junk):
        told = SPACE.event(body)
        assert told is None or OTHERS.encode() not in told
