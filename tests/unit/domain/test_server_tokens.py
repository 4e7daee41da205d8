"""A server's token is exchanged under another key: which one it has, which it shall have, and who is told which."""

import base64

from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.domain.desired.connection import connection
from copilot_operator.domain.desired.deployment import changed_intent, deployment, token_source
from copilot_operator.domain.server_tokens import key_of, parts_of, rotations
from copilot_operator.domain.snapshot import ServerToken
from tests.support.snapshots import NOW_TEXT, TOKEN, a_snapshot

NOON = "20260301T120000Z"
ONE = "20260301T130000Z"
TIMES = ("2026-03-01T11:00:00Z", NOW_TEXT, "2026-03-01T13:00:00Z")
ROTATIONS = st.sampled_from(["", *(each.replace("-", "").replace(":", "") for each in TIMES)])


def test_a_key_tells_its_server_and_its_rotation() -> None:
    assert key_of("copilot-alice", "") == "copilot-alice"
    assert key_of("copilot-alice", NOW_TEXT) == key_of("copilot-alice", NOON) == f"copilot-alice.{NOON}"
    assert parts_of("copilot-alice") == ("copilot-alice", "")
    assert parts_of(f"copilot-alice.{NOON}") == ("copilot-alice", NOON)


def test_a_server_is_at_the_rotation_that_its_deployment_names() -> None:
    assert rotations({"", NOON}, "", NOW_TEXT) == ("", NOON), "drained first"
    assert rotations({"", NOON}, NOON, NOW_TEXT) == (NOON, NOON)
    assert rotations({"", NOON}, "", "") == ("", ""), "nobody wants it any more, and nobody was told of it"
    assert rotations({"", NOON}, None, NOW_TEXT) == (NOON, NOON), "it starts with the newest"
    assert rotations({NOON}, "", "") == (NOON, NOON), "a key that somebody wrote there, and that does not exist"
    assert rotations(set(), NOON, "") == (NOON, NOON), "all were lost"
    assert rotations(set(), None, "") == ("", ""), "it never had one"


def test_no_rotation_goes_back_in_time() -> None:
    assert rotations({ONE}, ONE, NOW_TEXT) == (ONE, ONE)


@given(st.frozensets(ROTATIONS), st.none() | ROTATIONS, st.sampled_from(["", *TIMES]))
def test_a_rotation_comes_to_one_end(held: frozenset[str], named: str | None, due: str) -> None:
    current, wanted = rotations(held, named, due)
    assert current in held or not held, "what it is at is not thrown away"
    assert wanted >= current
    kept = frozenset({current, wanted})
    assert rotations(kept, named if named in kept else None, due)[1] == wanted, "it is the same once the rest is gone"
    assert rotations(kept, wanted, due) == (wanted, wanted)
    assert rotations({wanted}, wanted, "") == (wanted, wanted), "nor is it taken back with the field"


def test_applications_are_told_the_token_that_their_server_knows() -> None:
    rotated = ServerToken("another", TOKEN.shard, NOON)
    before, during, after = a_snapshot(), a_snapshot(token=rotated, former_token=TOKEN), a_snapshot(token=rotated)
    told = [base64.b64decode(connection(each)["data"]["token"]).decode() for each in (before, during, after)]
    assert told == ["s3cret", "s3cret", "another"]
    assert changed_intent(deployment(before), deployment(during)) == ["connectionToken"]
    assert token_source(deployment(during)) == (TOKEN.shard, f"copilot-alice.{NOON}")
