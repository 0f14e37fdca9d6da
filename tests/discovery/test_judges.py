"""Programs by others judge ours: avahi for multicast DNS both ways, dnsmasq for unicast DNS-SD."""

from __future__ import annotations

import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from discovery.links import Host, Net, until
from discovery.parties import Maker, registrar
from tools import need


class Avahi:
    """avahi-daemon on a host, with a message bus that both have to themselves."""

    def __init__(self, net: Net, host: Host, directory: Path) -> None:
        self._host = host
        daemon, bus = need("avahi-daemon", "avahi-daemon"), need("dbus-daemon", "dbus")
        need("avahi-browse", "avahi-utils")
        directory.mkdir()
        socket = directory / "bus"
        self._environment = {"DBUS_SYSTEM_BUS_ADDRESS": f"unix:path={socket}"}
        (directory / "bus.conf").write_text(
            "<busconfig><type>system</type><auth>EXTERNAL</auth>"
            f"<listen>unix:path={socket}</listen>"
            '<policy context="default"><allow user="*"/><allow own="*"/><allow send_type="method_call"/>'
            '<allow send_type="signal"/><allow receive_type="method_call"/><allow receive_type="signal"/>'
            '<allow receive_type="method_return"/><allow receive_type="error"/>'
            '<allow send_requested_reply="true"/></policy></busconfig>'
        )
        (directory / "avahi.conf").write_text(
            "[server]\nuse-ipv4=yes\nuse-ipv6=yes\nallow-interfaces=eth0\nenable-dbus=yes\n"
            "[publish]\npublish-aaaa-on-ipv4=yes\npublish-a-on-ipv6=yes\n"
            "[rlimits]\n"
        )
        # avahi wants /run for itself; the host's own avahi, if it has one, must not notice. The processes are
        # a namespace's own, so that the bus in the background ends with avahi, the first of them.
        inside = (
            "mount -t tmpfs none /run && mkdir /run/avahi-daemon && "
            f"{bus} --config-file={directory}/bus.conf --nofork & "
            f"while [ ! -S {socket} ]; do sleep 0.05; done; mkdir -p /run/avahi-daemon; "
            f"exec {daemon} --file={directory}/avahi.conf --no-drop-root --no-chroot --no-rlimits"
        )
        self.process = host.start(
            "env",
            f"DBUS_SYSTEM_BUS_ADDRESS=unix:path={socket}",
            *("unshare", "--mount", "--pid", "--mount-proc", "--fork", "--kill-child"),
            *("sh", "-c", inside),
        )
        net.closing(self.process.kill)  # unshare(1) blocks SIGTERM while it waits for its child
        until(lambda: self._tool("avahi-browse", "-at").returncode == 0)

    def _tool(self, *words: str) -> subprocess.CompletedProcess[str]:
        return self._host.run(*words, check=False, environment=self._environment)

    def browse(self, service: str) -> str:
        """What avahi finds of *service* and resolves, one line each."""
        return self._tool("avahi-browse", "-rtp", service).stdout

    def publish(self, name: str, service: str, port: int) -> None:
        words = [f"{key}={value}" for key, value in self._environment.items()]
        self._host.start("env", *words, "avahi-publish", "-s", name, service, str(port))


def test_nothing_of_avahi_outlives_its_host(tmp_path: Path) -> None:
    place = tmp_path / "avahi"

    def running() -> list[str]:
        """Whose command lines name the directory of this avahi."""
        found = []
        for each in Path("/proc").glob("[0-9]*/cmdline"):
            with suppress(OSError):
                found.append(each.read_bytes().replace(b"\0", b" ").decode(errors="replace"))
        return [line for line in found if str(place) in line]

    with Net() as net:
        net.link("lan")
        Avahi(net, net.host("other", eth0=("lan", "10.9.0.7/24")), place)
        assert any(Path(line.split()[0]).name == "dbus-daemon" for line in running())
    until(lambda: not running(), 5)


def test_avahi_finds_our_proxy(net: Net, maker: Maker, tmp_path: Path) -> None:
    net.link("lan")
    host = net.host("proxy", eth0=("lan",))
    other = net.host("other", eth0=("lan", "10.9.0.7/24"))
    config = tmp_path / "proxy.yaml"
    (tmp_path / "anchors.pem").touch()
    config.write_text(
        "manufacturer: {anchors: anchors.pem}\nregistrars: ['[2001:db8::1]:443']\n"
        f"state-directory: {tmp_path}\njoin-proxy: {{interfaces: [eth0], port: 4443}}\n"
    )
    avahi = Avahi(net, other, tmp_path / "avahi")
    proxy = host.start(sys.executable, "-m", "holdfast.cli.main", "-c", str(config), "proxy", "--json")
    proxy.line()
    until(lambda: host.link_local("eth0") in avahi.browse("_brski-proxy._tcp"))
    found = avahi.browse("_brski-proxy._tcp")
    assert ";4443;" in found


def test_we_find_what_avahi_publishes(net: Net, maker: Maker, tmp_path: Path) -> None:
    net.link("lan")
    pledge = net.host("pledge", eth0=("lan", "10.9.0.1/24"))
    owner = net.host("owner", eth0=("lan", "10.9.0.2/24"))
    runs = registrar(owner, tmp_path / "owner", maker, "--host", "10.9.0.2")
    avahi = Avahi(net, owner, tmp_path / "avahi")
    avahi.publish("The hall's registrar", "_brski-registrar._tcp", runs.port)
    until(lambda: str(runs.port) in avahi.browse("_brski-registrar._tcp"))
    device = maker.pledge(tmp_path / "pledge", "discovery: {order: [mdns]}\n")
    for _ in range(3):
        told = device.agent(pledge, "step")
        if told["trouble"] is None:
            break
    assert told["state"] == "domain vouched, ldevid active", told


def test_unicast_dns_sd_by_dnsmasq(net: Net, maker: Maker, tmp_path: Path) -> None:
    """The domain is the configuration's, the name server that of the host's resolv.conf."""
    dnsmasq = need("dnsmasq", "dnsmasq-base")
    net.link("lan")
    pledge = net.host("pledge", resolver="10.9.0.2", eth0=("lan", "10.9.0.1/24"))
    owner = net.host("owner", eth0=("lan", "10.9.0.2/24"))
    runs = registrar(owner, tmp_path / "owner", maker, "--host", "10.9.0.2")
    owner.start(
        dnsmasq,
        *("--keep-in-foreground", "--no-resolv", "--no-hosts", "--conf-file=/dev/null", "--user=root"),
        *("--pid-file=", "--listen-address=10.9.0.2", "--bind-interfaces"),
        "--ptr-record=_brski-registrar._tcp.site.example,hall._brski-registrar._tcp.site.example",
        f"--srv-host=hall._brski-registrar._tcp.site.example,reg.site.example,{runs.port}",
        "--host-record=reg.site.example,10.9.0.2",
    )
    order = "discovery: {order: [dns-sd], domains: [site.example]}\n"
    device = maker.pledge(tmp_path / "pledge", order)
    for _ in range(3):
        told = device.agent(pledge, "step")
        if told["trouble"] is None:
            break
    assert told["state"] == "domain vouched, ldevid active", told


@pytest.mark.parametrize("kind", ["http", "http with a password", "socks5"])
def test_all_traffic_through_a_proxy_by_others(net: Net, maker: Maker, tmp_path: Path, kind: str) -> None:
    """tinyproxy and microsocks, on a host between two links: the pledge has no route to the owner."""
    net.link("floor")
    net.link("office")
    pledge = net.host("pledge", eth0=("floor", "10.9.0.1/24"))
    between = net.host("between", eth0=("floor", "10.9.0.2/24"), eth1=("office", "10.9.1.2/24"))
    owner = net.host("owner", eth0=("office", "10.9.1.1/24"))
    runs = registrar(owner, tmp_path / "owner", maker, "--host", "10.9.1.1")
    password = kind.endswith("password")
    kind = kind.partition(" ")[0]
    if kind == "http":
        config = tmp_path / "tinyproxy.conf"
        config.write_text("Port 3128\nListen 10.9.0.2\nTimeout 60\nMaxClients 8\n")
        if password:
            config.write_text(f"{config.read_text()}BasicAuth gateway hunter2\n")
        between.start(need("tinyproxy", "tinyproxy"), "-d", "-c", str(config))
    else:
        between.start(need("microsocks", "microsocks"), "-i", "10.9.0.2", "-p", "3128")
    until(lambda: ":3128" in between.run("cat", "/proc/net/tcp").stdout.replace(":0C38", ":3128"))
    named = f"registrars: ['10.9.1.1:{runs.port}']\n"
    straight = maker.pledge(tmp_path / "straight", named)
    assert straight.agent(pledge, "step")["trouble"]["code"] == "transport.unreachable"
    proxied = f"{named}proxy: {kind}://10.9.0.2:3128\n"
    if password:
        locked_out = maker.pledge(tmp_path / "without", proxied).agent(pledge, "step")["trouble"]
        assert (locked_out["code"], "407" in locked_out["detail"]) == ("transport.proxy", True)
        secret = tmp_path / "proxy-password"
        secret.write_text("gateway:hunter2\n")
        secret.chmod(0o600)
        proxied += f"proxy-credentials: {secret}\n"
    device = maker.pledge(tmp_path / "pledge", proxied)
    told = device.agent(pledge, "step")
    assert told["state"] == "domain vouched, ldevid active", told
