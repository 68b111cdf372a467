"""Who may steer a training through its viewer, and which pages may open it. Knows no server."""

import ipaddress
from collections.abc import Sequence
from typing import Optional
from urllib.parse import urlsplit

from nerfstudio_prune.engine.options import PanelMode

TUNNEL = "ssh -L {0}:localhost:{0} HOST"
"""How to reach the viewer of another machine, by its port."""


def is_loopback(host: str) -> bool:
    """Whether an address can be reached from this machine only; a name other than `localhost` counts as reachable.

    Args:
        host: A name or an address, without a port.
    """
    name = host.strip("[]").rstrip(".").lower()
    if name == "localhost":
        return True
    try:
        address = ipaddress.ip_address(name.partition("%")[0])
    except ValueError:
        return False
    return (getattr(address, "ipv4_mapped", None) or address).is_loopback


def why_closed(mode: PanelMode, addresses: Sequence[str], shared: bool) -> str:
    """Why the panel only shows; empty if it steers.

    Args:
        mode: What `prune.panel` says.
        addresses: What the viewer listens on.
        shared: Whether there is a share link to it.
    """
    if mode == "steer":
        return ""
    if mode == "show":
        return "the panel only shows, as prune.panel says"
    if shared:
        return "the panel only shows while the viewer has a share link; prune.panel steer lets its visitors prune"
    open_to = [address for address in addresses if not is_loopback(address)]
    if open_to:
        return f"the panel only shows, for others reach {open_to[0]} too; prune.panel steer lets them prune"
    return ""


def notice(mode: PanelMode, addresses: Sequence[str], shared: bool, port: int) -> str:
    """What a person should know of a viewer that others can reach; empty where only this machine can.

    Args:
        mode: What `prune.panel` says.
        addresses: What the viewer listens on.
        shared: Whether there is a share link to it.
        port: What port it listens on.
    """
    open_to = [address for address in addresses if not is_loopback(address)]
    if not open_to and not shared:
        return ""
    where = f"The viewer listens on {open_to[0]}" if open_to else "The viewer has a share link"
    if mode == "steer":
        return f"{where}: anyone who reaches it can prune this training, undo, and change its plan (prune.panel steer)."
    return (
        f"{where}: its pruning panel only shows. To steer, leave --viewer.websocket-host at 127.0.0.1 and open it from "
        f"elsewhere through a tunnel: {TUNNEL.format(port)}. --pipeline.prune.panel steer lets anyone who reaches it "
        "prune and undo."
    )


def may_open(origins: Sequence[str], hosts: Sequence[str], local: bool, share_url: Optional[str]) -> bool:
    """Whether a page may open the viewer: its own, at whatever port of this machine a tunnel puts it.

    A browser lets every page connect to every address, and says in the header Origin which page it is. Who sends none
    is no page.

    Args:
        origins: The headers Origin of a connection.
        hosts: Its headers Host: where the page believes to connect to.
        local: Whether only names of this machine count as the viewer's own. A page of a stranger can let a name of its
            own point to 127.0.0.1, and be of the same site then.
        share_url: Share link of the viewer, if it has one.
    """
    if not origins:
        return True
    if len(origins) != 1 or len(hosts) != 1:
        return False
    page = _name(origins[0])
    if page is None:
        return False
    if is_loopback(page) or (share_url is not None and page == _name(share_url)):
        return True
    return not local and page == _name(f"//{hosts[0]}")


def _name(url: str) -> Optional[str]:
    try:
        return urlsplit(url).hostname
    except ValueError:
        return None
