"""Names of children: valid everywhere, stable, and never the same for two owners."""

import re

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from copilot_operator.domain.naming import pool_object, server_of, slug, token_shard

DNS_LABEL_1035 = re.compile(r"[a-z]([-a-z0-9]{0,61}[a-z0-9])?")
LABEL_VALUE = re.compile(r"[A-Za-z0-9]([-A-Za-z0-9_.]{0,61}[A-Za-z0-9])?")
HASH = r"--[a-z2-7]{16}"

object_names = st.text(alphabet="abcxyz019-.", min_size=1, max_size=253).filter(lambda text: text.strip("-.") == text)
lookalikes = st.text(alphabet="ab-.", min_size=1, max_size=5)  # few letters, so that names nearly collide


@pytest.mark.parametrize("name", ["alice", "a", "0", "7-eleven", "a-b-c", "a" * 38])
def test_a_short_dns_label_is_used_as_it_is(name: str) -> None:
    assert slug(name) == name


@pytest.mark.parametrize(
    ("name", "readable"),
    [
        ("a" * 39, "a" * 20),
        ("a" * 63, "a" * 20),
        ("a" * 64, "a" * 20),
        ("b" * 253, "b" * 20),
        ("alice.example.com", "alice-example-com"),
        ("a--b", "a-b"),
        ("alice--aaaaaaaaaaaaaaaa", "alice-aaaaaaaaaaaaaa"),  # what a hashed name looks like
        ("a" * 19 + "-" + "b" * 30, "a" * 19),  # the cut leaves no dash behind
        ("x.", "x"),
        ("-x-", "x"),
        ("UPPER", "upper"),
        ("grüße", "gr-e"),
        ("日本", "x"),
        ("..", "x"),
        ("", "x"),
    ],
)
def test_any_other_name_becomes_its_readable_part_and_a_hash(name: str, readable: str) -> None:
    assert re.fullmatch(re.escape(readable) + HASH, slug(name))


def test_a_slug_never_changes_because_volumes_are_found_by_it() -> None:
    assert slug("a" * 253) == "aaaaaaaaaaaaaaaaaaaa--gkczuovwllcssmxb"


@given(name=st.one_of(object_names, lookalikes, st.text()))
@example(name="a" * 253)
@example(name="0" * 253)
def test_names_of_children_are_dns_1035_labels_and_label_values(name: str) -> None:
    for child in (server_of(name), pool_object(name)):
        assert DNS_LABEL_1035.fullmatch(child)
    assert LABEL_VALUE.fullmatch(slug(name))
    assert len(f"{server_of(name)}-0123456789-abcde") <= 63, "a pod's name is its host name"


@given(names=st.lists(st.one_of(object_names, lookalikes), unique=True, max_size=20))
@example(names=["a-b", "a.b", "a--b", "a..b", "A-b"])
@example(names=["a" * 253, "a" * 252 + "b", "a" * 38, "a" * 39])
def test_two_names_never_share_a_child(names: list[str]) -> None:
    hashed = [slug(name) for name in names if slug(name) != name]
    assert len({slug(name) for name in [*names, *hashed]}) == len({*names, *hashed}), "not even with a name like a slug"


@given(tenant=lookalikes, pool=lookalikes, number=st.integers(0, 12))
def test_a_tenants_and_a_pools_objects_never_meet(tenant: str, pool: str, number: int) -> None:
    assert len({server_of(tenant), pool_object(pool), token_shard(pool, number)}) == 3


@given(one=lookalikes, other=lookalikes, first=st.integers(0, 30), second=st.integers(0, 30))
@example(one="a", other="a-server-tokens-1", first=1, second=1)
def test_shards_of_two_pools_never_meet(one: str, other: str, first: int, second: int) -> None:
    assert (token_shard(one, first) == token_shard(other, second)) == ((one, first) == (other, second))
