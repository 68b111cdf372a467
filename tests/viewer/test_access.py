"""Who may steer, and which pages may open the viewer: a table of addresses and headers."""

from typing import Any

import pytest

from nerfstudio_prune.viewer.access import is_loopback, may_open, notice, why_closed

LOOPBACK = ("127.0.0.1", "127.0.1.1", "127.255.255.255", "::1", "[::1]", "localhost", "LOCALHOST", "localhost.")
LOOPBACK += ("::ffff:127.0.0.1",)
REACHABLE = ("0.0.0.0", "::", "", "192.168.1.7", "10.0.0.1", "fe80::1%eth0", "box", "localhost.evil.example", "127.1")
REACHABLE += ("::ffff:10.0.0.1", "127.0.0.1.evil.example", "2130706433")


@pytest.mark.parametrize(("host", "only_here"), [*((h, True) for h in LOOPBACK), *((h, False) for h in REACHABLE)])
def test_loopback(host: str, only_here: bool) -> None:
    """What is taken for this machine and is not, lets strangers prune; so an unknown name is not."""
    assert is_loopback(host) == only_here


@pytest.mark.parametrize("mode", ["auto", "show", "steer"])
@pytest.mark.parametrize("addresses", [["127.0.0.1"], ["127.0.0.1", "::1"], ["0.0.0.0"], ["127.0.0.1", "10.0.0.1"]])
@pytest.mark.parametrize("shared", [False, True])
def test_who_may_steer(mode: Any, addresses: list[str], shared: bool) -> None:
    """Only this machine may, unless a person says otherwise; one address that others reach is enough for them."""
    private = not shared and not {"0.0.0.0", "10.0.0.1"} & set(addresses)
    assert (why_closed(mode, addresses, shared) == "") == (mode == "steer" or (mode == "auto" and private))
    told = notice(mode, addresses, shared, 7123)
    assert (told == "") == private
    if told and mode == "steer":
        assert "anyone who reaches it can prune" in told
    if told and mode != "steer":
        assert "only shows" in told and "ssh -L 7123:localhost:7123 HOST" in told and "prune.panel steer" in told


PAGES: list[tuple[list[str], list[str], bool, Any, bool]] = [
    ([], ["evil.example"], True, None, True),
    (["http://localhost:1"], ["127.0.0.1:7007"], True, None, True),
    (["https://127.0.0.1"], [], True, None, False),
    (["http://localhost", "http://localhost"], ["localhost"], True, None, False),
    (["http://evil.example"], ["localhost:7007"], True, None, False),
    (["http://evil.example:7007"], ["evil.example:7007"], True, None, False),
    (["http://box.lan:7007"], ["BOX.lan:7007"], False, None, True),
    (["http://evil.example"], ["box.lan:7007"], False, None, False),
    (["null"], ["localhost"], False, None, False),
    ([""], [""], False, None, False),
    (["https://a.share.example"], ["a.share.example"], True, "https://a.share.example", True),
    (["https://b.share.example"], ["b.share.example"], True, "https://a.share.example", False),
    (["https://b.share.example"], ["b.share.example"], True, "", False),
]


@pytest.mark.parametrize(("origins", "hosts", "local", "share_url", "welcome"), PAGES)
def test_pages(origins: list[str], hosts: list[str], local: bool, share_url: Any, welcome: bool) -> None:
    """Where the viewer is for this machine only, a name of a stranger's may point to it (DNS rebinding): that page and
    the address that it opens are of one site, and still it is not the viewer's own."""
    assert may_open(origins, hosts, local, share_url) == welcome
