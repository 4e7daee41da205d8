"""What a server is told of a company's network, whatever people write: variables, and certificates in any order."""

from functools import cache

from hypothesis import given
from hypothesis import strategies as st

from copilot_operator.api.outside import ProxySpec
from copilot_operator.domain.authorities import check_bundle
from copilot_operator.domain.desired.outside import ALWAYS_DIRECT, proxy_variables
from tests.support.certificates import certificate

URLS = st.sampled_from(["http://proxy.example.com:3128", "https://proxy.example.com", "http://10.0.0.1:8080"])
DIRECT = st.sampled_from(
    ["example.com", "10.0.0.0/8", ".svc", "localhost", "*.corp", ".cluster.local", "::1", "[fd::1]"]
)
PROXIES = st.builds(
    ProxySpec,
    http_proxy=st.none() | URLS,
    https_proxy=URLS,
    no_proxy=st.lists(DIRECT, unique=True).map(tuple),
)


@given(PROXIES)
def test_variables_are_there_in_capitals_and_not_and_the_pod_itself_is_always_asked_directly(
    proxy: ProxySpec,
) -> None:
    found = proxy_variables(proxy, "cluster.local")
    names = {"HTTPS_PROXY", "NO_PROXY"} | ({"HTTP_PROXY"} if proxy.http_proxy else set())
    assert found.keys() == names | {name.lower() for name in names}
    assert all(found[name] == found[name.lower()] for name in names)
    assert (found["HTTPS_PROXY"], found.get("HTTP_PROXY")) == (proxy.https_proxy, proxy.http_proxy)
    direct = found["NO_PROXY"].split(",")
    assert direct[: len(proxy.no_proxy)] == list(proxy.no_proxy)
    assert {*ALWAYS_DIRECT, ".cluster.local"} <= set(direct)
    assert len(set(direct)) == len(direct)


@cache
def root(number: int) -> str:
    return certificate(f"authority-{number}.example.com")[0]


BETWEEN = st.sampled_from(
    ["", "\n", "# größer\n", "subject=CN = x\r\n", "-----BEGIN X509 CRL-----\nAA==\n-----END X509 CRL-----\n"]
)


@given(st.permutations(range(4)), st.lists(BETWEEN, min_size=5, max_size=5), st.integers(0, 4))
def test_neither_order_nor_what_stands_between_matters_and_one_broken_certificate_always_does(
    order: list[int], between: list[str], place: int
) -> None:
    def digest(texts: list[str]) -> str | None:
        text = "".join(gap + each for gap, each in zip(between, texts, strict=False))
        return check_bundle("ca", "ca.crt", {"data": {"ca.crt": text}}).digest

    plain = check_bundle("ca", "ca.crt", {"data": {"ca.crt": "".join(map(root, range(4)))}})
    texts = [root(number) for number in order]
    assert digest(texts) == plain.digest is not None
    broken = root(0)[:200] + "\n-----END CERTIFICATE-----\n"
    assert digest([*texts[:place], broken, *texts[place:]]) is None
