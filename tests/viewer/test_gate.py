"""Who may come in at the viewer and what arrives there, over a real socket: viser's server and a fake run."""

import asyncio
import random
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
import viser
from nerfstudio.configs.method_configs import all_methods
from support.browser import free_port
from support.fakes import FakeScreen, FakeSession, uncalibrated
from support.nonsense import nonsense
from support.raw_client import RawClient
from support.tiny_run import tiny_model
from support.waiting import wait_until
from websockets.exceptions import InvalidStatus

from nerfstudio_prune.nerf.config import PruneConfig
from nerfstudio_prune.nerf.subject import subject_of
from nerfstudio_prune.viewer.access import may_open
from nerfstudio_prune.viewer.gate import Gate, addresses
from nerfstudio_prune.viewer.panel import PrunePanel
from nerfstudio_prune.viewer.scene_view import SceneView


class Door:
    """A server with a panel on a fake run."""

    def __init__(self, host: str = "127.0.0.1", local: bool = True) -> None:
        self.server = viser.ViserServer(host, free_port(), verbose=False)
        self.port = self.server.get_port()
        self.gate = Gate(self.server, lambda origins, hosts: may_open(origins, hosts, local, None))
        model = tiny_model()
        self.session = FakeSession(PruneConfig().filled(), subject_of("obs", model, uncalibrated))
        scene = SceneView(model, FakeScreen(), lambda: None)
        self.panel = PrunePanel(self.server.gui, self.session, scene, lambda: None)
        self.gate.complain = self.panel.complain
        for element, check in self.panel.checks():
            self.gate.guard(element, check)

    def come(self, **options: Any) -> RawClient:
        """A client that the server knows."""
        known = self.server.get_clients().keys()
        client = RawClient(self.port, **options)
        wait_until(lambda: bool(self.server.get_clients().keys() - known))
        return client


@pytest.fixture(scope="module")
def door() -> Iterator[Door]:
    found = Door()
    yield found
    found.server.stop()


@pytest.fixture(autouse=True)
def fresh(door: Door) -> None:
    wait_until(lambda: not door.server.get_clients())
    door.session.requests.clear()
    door.session.obstacles = {}


@pytest.mark.parametrize("name", ["nerf-prune", "nerf-prune-demo", "nerf-prune-real"])
def test_methods_listen_on_this_machine_only(name: str) -> None:
    """The host's own default is every address that the machine has."""
    assert all_methods[name].viewer.websocket_host == "127.0.0.1"
    assert PruneConfig().panel == "auto"


FOREIGN: dict[str, dict[str, Any]] = {
    "another site": {"origin": "https://evil.example"},
    "another machine": {"origin": "http://192.168.1.7:7007"},
    "a sandbox": {"origin": "null"},
    "a name of theirs that points here": {"origin": "http://evil.example:7007", "host": "evil.example"},
    "nearly this machine": {"origin": "http://localhost.evil.example"},
    "nonsense": {"origin": "http://[::1"},
}


@pytest.mark.parametrize("headers", FOREIGN.values(), ids=FOREIGN)
def test_page_of_another_site_is_turned_away(door: Door, headers: dict[str, Any]) -> None:
    """A browser lets any page open a websocket to 127.0.0.1: without a look at the header Origin every page that a
    person has open, an advertisement say, could press «Prune now»."""
    with pytest.raises(InvalidStatus) as refused:
        RawClient(door.port, **headers)
    assert refused.value.response.status_code == 403
    assert not door.server.get_clients()


OWN = {
    "the page itself": {"origin": "http://127.0.0.1:7007"},
    "through a tunnel": {"origin": "http://localhost:9000", "host": "localhost"},
    "IPv6": {"origin": "http://[::1]:7007"},
    "a script": {},
}


@pytest.mark.parametrize("headers", OWN.values(), ids=OWN)
def test_own_page_presses(door: Door, headers: dict[str, Any]) -> None:
    """What keeps strangers out must not keep out the person whose training it is, at whatever port a tunnel ends."""
    with door.come(**headers) as client:
        client.set(door.panel.prune, True)
        wait_until(lambda: bool(door.session.requests))
        assert [name for name, _ in door.session.requests] == ["prune"]


def test_names_of_the_own_address_open_a_viewer_that_listens_elsewhere() -> None:
    """Bound to all addresses the viewer is opened by its machine's name; other pages stay out."""
    door = Door("0.0.0.0", local=False)
    try:
        assert addresses(door.server) == ["0.0.0.0"]
        door.come(origin="http://box.lan:7007", host="box.lan").close()
        with pytest.raises(InvalidStatus):
            RawClient(door.port, origin="http://evil.example", host="box.lan")
    finally:
        door.server.stop()


def test_who_came_before_the_gate_has_to_come_again() -> None:
    """The server listens some seconds before there is a panel; a page that waits for it must not slip in."""
    server = viser.ViserServer("127.0.0.1", free_port(), verbose=False)
    try:
        early = RawClient(server.get_port(), origin="https://evil.example")
        wait_until(lambda: len(server.get_clients()) == 1)
        Gate(server, lambda origins, hosts: may_open(origins, hosts, True, None))
        wait_until(lambda: not server.get_clients())
        with pytest.raises(Exception, match="close"):
            while True:
                early.socket.recv(timeout=10)
    finally:
        server.stop()


def test_nonsense_reaches_no_element(
    door: Door, capfd: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """viser casts what arrives to the type of the element, if it can: «True» is a number then, and any text a choice.
    Whatever arrives, an element holds a value that it offers, nothing is asked for, and nothing is printed raw."""
    draw, told = random.Random(0), list[str]()
    monkeypatch.setattr(door.gate, "complain", told.append)
    checks = door.panel.checks()
    buttons = [door.panel.prune, door.panel.undo, door.panel.retarget, door.panel.draw]
    with door.come() as client:
        for _ in range(200):
            element, check = draw.choice(checks)
            value = nonsense(draw, check)
            client.set(element, value)
        for updates in ({"disabled": True}, {"value": 0.5, "update_cb": []}, {"no_such": 1}, [1], None, {}):
            client.say("GuiUpdateMessage", id=door.panel.elements["value"]._impl.id, updates=updates)
        client.say("GuiUpdateMessage", id=[1], updates={"value": 1})
        wait_until(lambda: len(told) == 200 + 7)
        client.set(door.panel.pause, True)  # good values still pass
        wait_until(lambda: door.session.paused)
        client.set(door.panel.pause, False)
        wait_until(lambda: not door.session.paused)
    for element, check in checks:
        if element not in buttons:
            check(element.value)
    assert door.panel.elements["value"]._impl.update_cb
    assert door.session.requests == []
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err


def test_refused_value_is_taken_back(door: Door) -> None:
    """The page that sent it shows it already; what it shows must be what a cut would use."""
    slider = door.panel.elements["value"]
    with door.come() as client:

        def told() -> int:
            found = [m.get("updates") for m in client.messages if m.get("id") == slider._impl.id]
            return found.count({"value": slider.value})

        slider.value = 0.37
        client.read(lambda: told() == 1)
        client.set(slider, 7.0)
        client.read(lambda: told() == 2)
    assert door.panel.message.text == "value must be a number in [0, 1], got 7.0"


CAMERAS: list[dict[str, Any]] = [
    {"fov": float("nan")},
    {"aspect": 0.0},
    {"wxyz": (0.0, 0.0, 0.0, 0.0)},
    {"position": (float("inf"), 0.0, 0.0)},
    {"up_direction": (1.0, 0.0)},
]


@pytest.mark.parametrize("wrong", CAMERAS)
def test_camera_that_is_none_is_ignored(door: Door, wrong: dict[str, Any]) -> None:
    """The host computes with it while it holds a lock that an error would never release: no page would hear of
    anything any more."""
    with door.come() as client:
        (tab,) = door.server.get_clients().values()
        good = {"wxyz": (1.0, 0, 0, 0), "position": (0.0, 0, 4), "look_at": (0.0, 0, 0), "up_direction": (0.0, 1, 0)}
        client.say("ViewerCameraMessage", **{**good, "fov": 0.8, "aspect": 1.0, **wrong})
        client.move(3.0)
        wait_until(lambda: tab.camera.position[1] == 3.0)
        assert (tab.camera.fov, tab.camera.aspect) == (0.8, 1.0)


def test_client_that_says_no_message_is_seen_off(door: Door, capfd: pytest.CaptureFixture[str]) -> None:
    """viser ends its connection without a word to anybody: what renders for it would render for ever."""
    seen_off: list[int] = []
    door.server.on_client_disconnect(lambda client: seen_off.append(client.client_id))
    for nonsense_bytes in (b"\xc1", b"\x80", b"\x81\xa4type\xa4None"):
        client = door.come()
        (number,) = door.server.get_clients()
        client.socket.send(nonsense_bytes)
        wait_until(lambda number=number: number in seen_off)
        assert not door.server.get_clients()
    printed = capfd.readouterr()
    assert "Traceback" not in printed.out + printed.err
    assert "sent what is no message" in door.panel.message.text


def test_tab_that_has_gone_before_it_was_there(door: Door) -> None:
    """Messages are handled on other threads than the end of a connection: a tab that is closed at once may be noted
    after it was crossed out, and would then be rendered for as long as the training takes."""
    server, noted, crossed_out = door.server._websock_server, list[int](), list[int]()

    def note(client_id: int, message: Any) -> None:
        door.gate._see_off(client)  # it leaves while its first message is handled
        noted.append(client_id)

    def cross_out(connection: Any) -> None:
        if connection.client_id in noted:
            crossed_out.append(connection.client_id)

    async def connect() -> None:
        door.gate._connected(client)

    client = SimpleNamespace(client_id=10_000, _handle_incoming_message=note)
    server._client_disconnect_cb.append(cross_out)
    try:
        asyncio.run_coroutine_threadsafe(connect(), server._broadcast_buffer.event_loop).result(10)
        client._handle_incoming_message(10_000, "the first one")
        client._handle_incoming_message(10_000, "one that comes late")
    finally:
        server._client_disconnect_cb.remove(cross_out)
    assert (noted, crossed_out) == ([10_000], [10_000])
