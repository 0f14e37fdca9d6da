"""A configuration is read completely or refused with every fault at its line."""

from __future__ import annotations

import json
import os
from dataclasses import fields, is_dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from jsonschema import Draft202012Validator

from holdfast.host import config_formats as formats
from holdfast.host.config import (
    SYSTEMCTL,
    DeploySettings,
    DiscoverySettings,
    HookSettings,
    RevocationSettings,
    Settings,
    load,
    schema_text,
)
from holdfast.host.config_model import (
    CmpSettings,
    EstSettings,
    IdentitySettings,
    ManufacturerSettings,
    read_secret,
)
from holdfast.life.search import Source
from holdfast.wire.errors import ConfigError
from holdfast.wire.model import KeyAlgorithm

LONG = "{unit: u.service, timeout-seconds: 201}"
MINIMAL = "registrars: [registrar.example:8443]\nmanufacturer: {anchors: anchors.pem}\n"


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "anchors.pem").write_text("PEM")
    (tmp_path / "password").write_text("s3cret-value\n")
    (tmp_path / "password").chmod(0o600)
    return tmp_path


def written(home: Path, text: str | bytes) -> Path:
    path = home / "holdfast.yaml"
    path.write_bytes(text if isinstance(text, bytes) else text.encode())
    return path


def faults(home: Path, text: str | bytes, **options: Any) -> list[str]:
    """The faults of *text* without the file name: ``line: key.path: message``."""
    path = written(home, text)
    with pytest.raises(ConfigError) as caught:
        load(path, **options)
    lines = caught.value.detail.split("\n")
    assert all(line.startswith(f"{path}:") for line in lines)
    return [line.removeprefix(f"{path}:") for line in lines]


def identity(text: str) -> str:
    """A configuration whose only identity has the block *text*; that starts on line 5."""
    return f"{MINIMAL}identities:\n  - name: ldevid\n" + "".join(
        f"    {line}\n" for line in text.splitlines()
    )


def est(text: str) -> str:
    """A configuration whose EST block is *text*; that starts on line 7."""
    return identity("protocols:\n  - est:\n" + "".join(f"      {line}\n" for line in text.splitlines()))


def cmp(text: str) -> str:
    """A configuration whose CMP block is *text*; that starts on line 7."""
    return est(text).replace("- est:", "- cmp:")


# --- what is read ---------------------------------------------------------------------------------------


def test_registrars_and_anchors_are_enough_and_the_rest_are_the_records_defaults(home: Path) -> None:
    assert load(written(home, MINIMAL)) == Settings(
        ("registrar.example:8443",), ManufacturerSettings(home / "anchors.pem")
    )


def test_every_setting_arrives(home: Path) -> None:
    for name in ("chain.pem", "idevid.pem"):
        (home / name).touch()
    text = f"""
state-directory: /data/holdfast
keys: {{store: tpm, tcti: 'swtpm:host=localhost,port=2321', srk: 0x81000007, storage: persistent,
        auth-file: password, owner-auth-file: password}}
idevid:
  handle: 0x81020001
  certificate: {{file: idevid.pem}}
  chain-file: chain.pem
  auth-file: password
manufacturer:
  anchors: {home}/anchors.pem
  voucher-signers: ["{"aB" * 32}"]
  allow-nonceless: true
  assertions: [proximity]
registrars: ["[2001:db8::1]:8443", https://r.example, "R2.example:1"]
proxy: http://proxy.example:3128
clock: untrusted
limits: {{connect-seconds: 1.5, read-seconds: 2, total-seconds: 3, header-bytes: 2048, body-bytes: 5000,
         inline-wait-seconds: 0}}
identities:
  - name: ldevid
    protocols: [est: {{url: 'https://ca.example:9443/.well-known/est/devices', username: gw,
                      password-file: password, tls-unique: true}}]
    key: {{algorithm: rsa3072}}
    subject: {{common-name: 'gw-{{serial}}', organization: Example}}
    san: {{dns: ['{{serial}}.gw.example'], uri: ['urn:dev:{{serial}}']}}
    renew: {{fraction: 0.5, same-key: true, before-end-days: 1.5, after-expiry: true}}
    revocation: {{check: false, interval-hours: 2}}
    verify: {{url: https://check.example/hello}}
    deploy:
      directory: /etc/gateway
      owner: gateway
      group: "1234"
      mode: "0444"
      key-mode: "0440"
      hooks:
        - {{unit: nginx.service, action: restart}}
        - {{unit: a@b.socket}}
        - {{command: [/usr/local/bin/tell, -x, a b], timeout-seconds: 1.5}}
  - name: mqtt-1
    protocols: [est: {{label: mqtt}}]
"""
    got = load(written(home, text))
    assert got.state_directory == Path("/data/holdfast")
    assert (got.keys.srk, got.keys.storage, got.keys.identities) == (
        0x81000007,
        "persistent",
        ("ldevid", "mqtt-1"),
    )
    tpm = got.keys.tpm_settings(home)
    assert tpm.tcti == "swtpm:host=localhost,port=2321"
    assert tpm.auth is not None
    assert tpm.owner_auth is not None
    assert (tpm.auth(), tpm.owner_auth()) == (b"s3cret-value", b"s3cret-value")
    assert got.idevid.handle == 0x81020001
    assert (got.idevid.certificate_file, got.idevid.chain_file) == (home / "idevid.pem", home / "chain.pem")
    assert got.idevid.auth is not None
    assert got.idevid.auth() == b"s3cret-value"
    assert got.manufacturer.voucher_signers == {b"\xab" * 32}
    assert got.manufacturer.allow_nonceless
    assert got.manufacturer.assertions == {"proximity"}
    assert got.registrars == ("[2001:db8::1]:8443", "r.example:443", "r2.example:1")
    assert (got.proxy, got.clock) == ("http://proxy.example:3128", "untrusted")
    limits = got.limits
    assert (limits.connect_seconds, limits.read_seconds, limits.total_seconds) == (1.5, 2, 3)
    assert (limits.header_bytes, limits.body_bytes, limits.inline_wait_seconds) == (2048, 5000, 0)
    first, second = got.identities
    assert first.protocols[0].url == "https://ca.example:9443"
    assert (first.protocols[0].label, first.protocols[0].tls_unique, first.key.algorithm) == (
        "devices",
        True,
        KeyAlgorithm.RSA3072,
    )
    assert first.protocols[0].credentials is not None
    assert (first.protocols[0].credentials.username, first.protocols[0].credentials.password) == (
        "gw",
        "s3cret-value",
    )
    assert dict(first.subject) == {"common-name": "gw-{serial}", "organization": "Example"}
    assert (first.san.dns, first.san.uri) == (("{serial}.gw.example",), ("urn:dev:{serial}",))
    assert (first.renew.fraction, first.renew.same_key) == (0.5, True)
    assert first.renew.before_end == timedelta(days=1.5)
    assert first.renew.after_expiry
    assert first.revocation == RevocationSettings(check=False, interval_hours=2)
    assert first.deploy == DeploySettings(
        directory=Path("/etc/gateway"),
        owner="gateway",
        group="1234",
        mode=0o444,
        key_mode=0o440,
        hooks=(
            HookSettings((SYSTEMCTL[0], "--no-ask-password", "restart", "--", "nginx.service"), 30),
            HookSettings((SYSTEMCTL[0], "--no-ask-password", "reload-or-restart", "--", "a@b.socket")),
            HookSettings(("/usr/local/bin/tell", "-x", "a b"), 1.5),
        ),
    )
    assert (first.verify_url, first.deploy_directory) == (
        "https://check.example:443/hello",
        Path("/etc/gateway"),
    )
    assert second == IdentitySettings("mqtt-1", protocols=(EstSettings(label="mqtt"),))
    assert "s3cret-value" not in repr(got)


def test_a_systemd_credential_is_found_where_systemd_put_it(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = est("username: gw\npassword-credential: password")
    by_argument = load(written(home, text), credentials=home).identities[0].protocols[0]
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(home))
    assert load(written(home, text)).identities[0].protocols[0] == by_argument
    assert by_argument.password_file == home / "password"
    assert faults(home, text, credentials=home / "no") == [
        f"8: identities[0].protocols[0].est.password-credential: no such credential in {home / 'no'}"
    ]


def test_a_ladder_has_its_rungs_in_order_and_each_has_a_name(home: Path) -> None:
    text = "protocols:\n  - est: {url: 'https://a'}\n  - est: {url: 'https://b'}\n  - est: {name: last}\n"
    ladder = load(written(home, identity(text))).identities[0]
    urls = [protocol.url for protocol in ladder.protocols]
    assert urls == ["https://a:443", "https://b:443", None]
    assert ladder.rungs == ("est", "est-2", "last")


def test_words_and_times_of_yaml_1_1_stay_text(home: Path) -> None:
    assert load(written(home, MINIMAL.replace("registrar.example:8443", "no:8443, 10:30"))).registrars == (
        "no:8443",
        "10:30",
    )


# --- what is refused ------------------------------------------------------------------------------------


def test_without_registrars_the_network_is_searched_and_with_them_it_is_not(home: Path) -> None:
    alone = load(written(home, "manufacturer: {anchors: anchors.pem}\n"))
    assert alone.registrars == ()
    assert alone.discovery == DiscoverySettings()
    assert load(written(home, MINIMAL)).discovery is None
    both = load(written(home, MINIMAL + "discovery: {order: [mdns, list], domains: [Example.COM]}\n"))
    assert both.discovery == DiscoverySettings(order=(Source.MDNS, Source.LIST), domains=("example.com",))


def test_eight_different_faults_are_told_at_once_each_with_its_line(home: Path) -> None:
    text = """\
registrars:
  - registrar.example
state-dir: /data
manufacturer:
  anchors: missing.pem
  voucher-signers: [abc]
clock: auto
clock: trusted
limits:
  connect-seconds: soon
  body-bytes: 1
identities:
  - name: LDevID
    key: {algorithm: p265}
"""
    assert faults(home, text) == [
        "2: registrars[0]: must be host:port, [IPv6]:port or an https URL",
        "3: state-dir: unknown key; did you mean state-directory?",
        f"5: manufacturer.anchors: {home}/missing.pem: No such file or directory",
        "6: manufacturer.voucher-signers[0]: must be: 64 hexadecimal digits",
        "8: clock: given twice, first on line 7",
        "10: limits.connect-seconds: must be a number",
        "11: limits.body-bytes: must be at least 4096",
        "13: identities[0].name: must be: 1 to 32 of a-z, 0-9 and -",
        "14: identities[0].key.algorithm: must be one of p256, p384, rsa2048, rsa3072; did you mean p256?",
    ]


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("", "1: the file is empty"),
        ("# nothing\n", "1: the file is empty"),
        ("~", "1: must be a mapping"),
        ("[1]", "1: must be a mapping"),
        ("a: [1", "1: not YAML: expected ',' or ']', but got '<stream end>'"),
        ("a: b\n c: d", "2: not YAML: mapping values are not allowed here"),
        ("a: b\nc: \x07", "2: not YAML: a character that is not allowed"),
        (b"a: b\nc: \xff", "2: not UTF-8"),
        (MINIMAL + "---\nx: 1\n", "3: a second document is not allowed"),
        ("a: &x 1\nb: 2\n", "1: anchors (&) and aliases (*) are not allowed"),
        (MINIMAL + "x: !!python/object/apply:os.system [id]\n", "3: tags (!) are not allowed"),
        (MINIMAL + "x: " + "[" * 20 + "]" * 20, "3: nested more than 16 deep"),
        (MINIMAL + "1: x\n", "3: a key must be text"),
        (MINIMAL + "? [a]\n: x\n", "3: a key must be text"),
        (MINIMAL + "<<: {clock: auto}\n", "3: <<: unknown key; known are"),
        ("registrars: [a:1]\n", "1: manufacturer: is missing"),
        (
            "manufacturer: {anchors: anchors.pem, cloud-registrar: 'c:1'}\n",
            "1: manufacturer.cloud-registrar: needs",
        ),
        (
            "manufacturer: {anchors: anchors.pem, cloud-anchors: anchors.pem}\n",
            "1: manufacturer.cloud-anchors: needs",
        ),
        (
            MINIMAL + "discovery: {order: [carrier-pigeon]}\n",
            "3: discovery.order[0]: must be one of list, dhcp",
        ),
        (MINIMAL + "discovery: {dhcp-option: 15}\n", "3: discovery.dhcp-option: must be at least 224"),
        ("registrars: [a:1]\nmanufacturer: {}\n", "2: manufacturer.anchors: is missing"),
        ("registrars: []\nmanufacturer: {anchors: anchors.pem}", "1: registrars: must have at least 1 entry"),
        (
            "registrars: [a:1, a:1]\nmanufacturer: {anchors: anchors.pem}",
            "1: registrars: holds the same entry",
        ),
        (MINIMAL + "identities: []\n", "3: identities: must have at least 1 entry"),
        (MINIMAL + "clock: yes\n", "3: clock: must be one of auto, trusted, untrusted"),
        (MINIMAL + "state-directory: data\n", "3: state-directory: must be a path from the root"),
        (MINIMAL + "state-directory: /a/../b\n", "3: state-directory: must be a path from the root"),
        (MINIMAL + "keys: {srk: 1}\n", "3: keys.srk: must be at least 0x81000000"),
        (MINIMAL + "keys: {srk: true}\n", "3: keys.srk: must be a whole number"),
        (MINIMAL + "keys: {tcti: ''}\n", "3: keys.tcti: must be: "),
        (MINIMAL + "idevid: {certificate: {}}\n", "3: idevid.certificate: must not be empty"),
        (
            MINIMAL + "idevid: {certificate: {file: anchors.pem, nv-index: 0x1c90200}}\n",
            "3: idevid.certificate: must have exactly one of nv-index, file",
        ),
        (MINIMAL + "idevid: {chain-file: .}\n", "3: idevid.chain-file: "),
        (MINIMAL + "limits: {total-seconds: 1.0e400}\n", "3: limits.total-seconds: must be at most 3600"),
        (
            MINIMAL + "limits: {connect-seconds: 5, total-seconds: 4, read-seconds: 3}\n",
            "3: limits.connect-seconds",
        ),
        (MINIMAL + "limits: {read-seconds: .nan}\n", "3: limits.read-seconds: must be a number"),
        (MINIMAL + "limits: {read-seconds: 9e99}\n", "3: limits.read-seconds: must be at most 600"),
        (identity("") + "  - name: ldevid\n", "5: identities[1].name: another identity has this name"),
        (identity("san: {ip: [a.example]}"), "5: identities[0].san.ip[0]: must be an IPv4 or IPv6 address"),
        (identity("san: {email: [nobody]}"), "5: identities[0].san.email[0]: must be a mail address"),
        (identity("san: {dns: ['{password}.x']}"), "5: identities[0].san.dns[0]: only {serial}, {mac}"),
        (identity("renew: {fraction: 1}"), "5: identities[0].renew.fraction: must be at most 0.95"),
        (
            identity("subject: {common-name: '{0.__class__}'}"),
            "5: identities[0].subject.common-name: only {serial}, {mac} and",
        ),
        (
            identity('subject: {common-name: "a\\nb"}'),
            "5: identities[0].subject.common-name: must be printable",
        ),
        (identity("subject: {cn: x}"), "5: identities[0].subject.cn: unknown key"),
        (identity("subject: {}"), "5: identities[0].subject: must not be empty"),
        (identity("san: {dns: ['a b']}"), "5: identities[0].san.dns[0]: must be a host name"),
        (identity("san: {uri: [nothing]}"), "5: identities[0].san.uri[0]: must be a URI"),
        (identity("verify: {url: 'http://a'}"), "5: identities[0].verify.url: must start with https://"),
        (identity("verify: {}"), "5: identities[0].verify.url: is missing"),
        (identity("deploy: {directory: rel}"), "5: identities[0].deploy.directory: must be a path from"),
        (
            identity("protocols: [" + ", ".join(["est: {}"] * 9) + "]"),
            "5: identities[0].protocols: must have at most 8",
        ),
        (identity("protocols: [{}]"), "5: identities[0].protocols[0]: must not be empty"),
        (identity("protocols: [morse: {}]"), "5: identities[0].protocols[0].morse: unknown key"),
        (
            identity("protocols:\n  - est: {}\n  - est: {username: gw}"),
            "7: identities[0].protocols[1].est.username: needs a password-file",
        ),
        (
            identity("protocols:\n  - est: {name: a}\n  - est: {name: a}"),
            "7: identities[0].protocols[1].est.name: a is the name of another protocol here",
        ),
        (
            identity("protocols:\n  - est: {name: est-3}\n  - est: {}\n  - est: {}"),
            "8: identities[0].protocols[2].est.name: est-3 is the name of another protocol here",
        ),
        (est("name: Main"), "7: identities[0].protocols[0].est.name: must be: 1 to 32"),
        (identity("deploy: {mode: 0644}"), "5: identities[0].deploy.mode: must be text"),
        (identity("deploy: {mode: '0666'}"), "5: identities[0].deploy.mode: must be: mode of chain and"),
        (
            identity("deploy: {key-mode: '0755'}"),
            "5: identities[0].deploy.key-mode: must be",
        ),
        (identity("deploy: {owner: 'a b'}"), "5: identities[0].deploy.owner: must be: user name"),
        (
            identity("deploy: {hooks: [{}]}"),
            "5: identities[0].deploy.hooks[0]: must have exactly one of unit",
        ),
        (
            identity("deploy: {hooks: [{unit: a.service, command: [/bin/true]}]}"),
            "5: identities[0].deploy.hooks[0]: must have exactly one of unit",
        ),
        (
            identity("deploy: {hooks: [{unit: nginx}]}"),
            "5: identities[0].deploy.hooks[0].unit: must be",
        ),
        (identity("deploy: {hooks: [{unit: -H.service; x}]}"), "5: identities[0].deploy.hooks[0].unit: must"),
        (
            identity("deploy: {hooks: [{command: [sh, -c, x]}]}"),
            "5: identities[0].deploy.hooks[0].command[0]: must be a path from the root",
        ),
        (
            identity("deploy: {hooks: [{command: [/bin/true], action: reload}]}"),
            "5: identities[0].deploy.hooks[0].action: needs a unit",
        ),
        (
            identity(f"deploy: {{hooks: [{LONG}, {LONG}, {LONG}]}}"),
            "5: identities[0].deploy.hooks: all timeouts together",
        ),
        (est("label: a/b"), "7: identities[0].protocols[0].est.label: must be: "),
        (est("username: gw"), "7: identities[0].protocols[0].est.username: needs a password-file"),
        (est("password-file: password"), "7: identities[0].protocols[0].est.password-file: needs a username"),
        (
            est("username: gw\npassword-file: password\npassword-credential: x"),
            "9: identities[0].protocols[0].est.password-credential: excludes password-file",
        ),
        (cmp("reference: gw"), "7: identities[0].protocols[0].cmp.reference: needs a secret-file"),
        (cmp("secret-file: password"), "7: identities[0].protocols[0].cmp.secret-file: needs a reference"),
        (cmp("mac: pbmac1"), "7: identities[0].protocols[0].cmp.mac: needs a secret-file"),
        (cmp("hmac-sha1: true"), "7: identities[0].protocols[0].cmp.hmac-sha1: needs a secret-file"),
        (cmp("url: ftp://h/"), "7: identities[0].protocols[0].cmp.url: must start with http:// or https://"),
        (cmp("recipient: somebody"), "7: identities[0].protocols[0].cmp.recipient: must be"),
        (cmp("request: kur"), "7: identities[0].protocols[0].cmp.request: must be"),
        (cmp("authorities: [zz]"), "7: identities[0].protocols[0].cmp.authorities[0]: must be"),
        (
            cmp("reference: gw\nsecret-file: password\nsecret-credential: x"),
            "9: identities[0].protocols[0].cmp.secret-credential: excludes secret-file",
        ),
        (
            cmp("reference: gw\nsecret-credential: x"),
            "8: identities[0].protocols[0].cmp.secret-credential: no such credential",
        ),
        (
            est("url: https://h/.well-known/est/a\nlabel: b"),
            "8: identities[0].protocols[0].est.label: the url names another label",
        ),
    ],
)
def test_each_fault_is_named_at_its_line(home: Path, text: str | bytes, expected: str) -> None:
    told = faults(home, text)
    assert any(line.startswith(expected) for line in told), told


@pytest.mark.parametrize(
    ("text", "where"),
    [
        (est("username: gw\npassword: hunter2-secret"), "est.password: "),
        (cmp("reference: gw\nsecret: hunter2-secret"), "cmp.secret: "),
        (MINIMAL + "keys: {auth: hunter2-secret}\n", "keys.auth: "),
        (MINIMAL + "keys: {owner-auth: hunter2-secret}\n", "keys.owner-auth: "),
        (MINIMAL + "idevid: {pin: hunter2-secret}\n", "idevid.pin: "),
    ],
)
def test_a_secret_in_the_text_is_refused_and_not_repeated(home: Path, text: str, where: str) -> None:
    told = "\n".join(faults(home, text))
    assert f"{where}a secret never stands in the configuration; name the file that holds it" in told
    assert "hunter2" not in told


@pytest.mark.parametrize(
    "text",
    [
        MINIMAL.replace("registrar.example:8443", "'https://u:hunter2@r.example'"),
        MINIMAL + "proxy: http://u:hunter2@proxy.example:3128\n",
        est("url: https://u:hunter2@h/.well-known/est"),
        MINIMAL + "clock: hunter2\n",
        MINIMAL + "keys: {srk: hunter2, tcti: 'hunter2 x'}\n",
    ],
)
def test_no_message_repeats_a_value(home: Path, text: str) -> None:
    assert "hunter2" not in "\n".join(faults(home, text))


def test_a_secret_that_every_user_can_read_is_refused(home: Path) -> None:
    (home / "password").chmod(0o644)
    (told,) = faults(home, est("username: gw\npassword-file: password"))
    assert told.startswith("8: identities[0].protocols[0].est.password-file: ")
    assert "open to every user" in told


def test_a_fifo_in_the_place_of_a_file_does_not_hang(home: Path) -> None:
    os.mkfifo(home / "fifo")
    assert faults(home, MINIMAL.replace("anchors.pem", "fifo")) == [
        f"2: manufacturer.anchors: {home}/fifo: not a regular file"
    ]


def test_aliases_do_not_explode(home: Path) -> None:
    bomb = "a0: &a0 [x]\n" + "".join(f"a{n}: &a{n} [*a{n - 1}, *a{n - 1}]\n" for n in range(1, 60))
    with pytest.raises(ConfigError, match=r":1: anchors \(&\) and aliases \(\*\) are not allowed"):
        load(written(home, bomb))


def test_more_faults_than_an_error_can_carry_are_counted(home: Path) -> None:
    path = written(home, MINIMAL + "".join(f"unknown-{n}: 1\n" for n in range(500)))
    with pytest.raises(ConfigError) as caught:
        load(path)
    lines = caught.value.detail.split("\n")
    assert lines[0].startswith(f"{path}:3: unknown-0: ")
    assert lines[-1] == f"and {500 - len(lines) + 1} more"
    assert len(caught.value.detail) < 2000


def test_a_file_that_cannot_be_read_says_why(home: Path) -> None:
    with pytest.raises(ConfigError, match=r"config.unreadable.*No such file"):
        load(home / "none.yaml")
    with pytest.raises(ConfigError, match=r"config.too-large"):
        load(written(home, b"#" * ((1 << 20) + 1)))
    assert load(written(home, MINIMAL + "#" * ((1 << 20) - len(MINIMAL)))).clock == "auto"


@pytest.mark.parametrize("content", [b"", b"\n", b"x" * 4097])
def test_a_secret_file_without_a_usable_secret_is_refused(home: Path, content: bytes) -> None:
    (home / "password").write_bytes(content)
    with pytest.raises(ConfigError) as caught:
        read_secret(home / "password")
    assert caught.value.code == "config.secret"


def test_a_password_that_is_not_text_is_refused_without_showing_it(home: Path) -> None:
    (home / "password").write_bytes(b"\xffhunter2")
    with pytest.raises(ConfigError) as caught:
        _ = EstSettings(username="u", password_file=home / "password").credentials
    assert "hunter2" not in str(caught.value)
    assert caught.value.__suppress_context__


# --- formats --------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "host", "host:", "host:0", "host:65536", ":443", "a b:1", "a:1/x", "https://a/x", "http://a:1",
        "::1:443", "[::1]", "[::g]:1", "a..b:1", "-a:1", "a:1?x", "a:1#x", "u@a:1", "a:1\n",
        "ä:1", "a" * 64 + ":1", "[a]:1",
    ],
)  # fmt: skip
def test_what_is_no_registrar(text: str) -> None:
    with pytest.raises(ValueError):
        formats.registrar(text)


@pytest.mark.parametrize(
    "text", ["https://a:1", "http://a", "a:1", "http://a:1/x", "socks4://a:1", "http://u:p@a:1"]
)
def test_what_is_no_proxy(text: str) -> None:
    with pytest.raises(ValueError):
        formats.proxy(text)


@pytest.mark.parametrize(
    "text",
    ["http://a/.well-known/est", "https://a/est", "https://a/.well-known/est/x/y", "https://a/.well-known/est/%2e",
     "https://a/.well-known/brski", "https:///.well-known/est"],
)  # fmt: skip
def test_what_is_no_est_url(text: str) -> None:
    with pytest.raises(ValueError):
        formats.est_url(text)


@given(
    st.sampled_from(sorted(formats.FORMATS)),
    st.text(max_size=60) | st.sampled_from(["https://[", "http://]:x"]),
)
def test_a_format_accepts_or_raises_value_error(name: str, text: str) -> None:
    try:
        assert isinstance(formats.FORMATS[name](text), str)
    except ValueError as error:
        assert str(error)  # noqa: PT017 - that it may raise is the point


# --- the whole --------------------------------------------------------------------------------------------


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.data())
def test_mutated_files_give_settings_or_a_config_error(home: Path, data: st.DataObject) -> None:
    base = est("username: gw\npassword-file: password").encode()
    base += b"limits: {connect-seconds: 3}\nkeys: {srk: 0x81000001}\nproxy: http://p:1\n"
    at = data.draw(st.integers(0, len(base)))
    length = data.draw(st.integers(0, 12))
    middle = data.draw(
        st.binary(max_size=6)
        | st.sampled_from([b"{", b"[", b": ", b"\n- ", b"~", b"&a", b"!x", b"*a", b"1", b"''"])
    )
    try:
        assert isinstance(load(written(home, base[:at] + middle + base[at + length :])), Settings)
    except ConfigError as error:
        assert error.detail  # noqa: PT017


json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=8), inner, max_size=3),
    max_leaves=8,
)


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    st.dictionaries(st.sampled_from(sorted(json.loads(schema_text())["properties"])), json_values),
    json_values,
)
def test_any_shape_of_values_gives_settings_or_a_config_error(home: Path, top: Any, extra: Any) -> None:
    document = {"registrars": ["a:1"], "manufacturer": {"anchors": "anchors.pem"}, **top}
    document["identities"] = [{"name": "x", "protocols": extra, "subject": extra}, extra]
    with pytest.raises(ConfigError):
        load(written(home, json.dumps(document)))


def test_the_schema_is_a_schema_and_explains_its_top_level() -> None:
    schema = json.loads(schema_text())
    Draft202012Validator.check_schema(schema)
    assert all("description" in entry for key, entry in schema["properties"].items() if key != "limits")


def test_every_object_of_the_schema_is_closed_and_every_format_known() -> None:
    def visit(node: Any) -> None:
        if isinstance(node, dict):
            if node.get("type") == "object":
                assert node.get("additionalProperties") is False
            if isinstance(node.get("format"), str):
                assert node["format"] in formats.FORMATS
            for child in node.values():
                visit(child)
        elif isinstance(node, list):
            for child in node:
                visit(child)

    visit(json.loads(schema_text()))


def test_settings_are_frozen(home: Path) -> None:
    def visit(value: Any) -> None:
        if is_dataclass(value) and not isinstance(value, type):
            for each in fields(value):
                with pytest.raises((AttributeError, TypeError)):
                    setattr(value, each.name, None)
                visit(getattr(value, each.name))
        elif isinstance(value, tuple):
            for item in value:
                visit(item)
        else:
            assert not isinstance(value, list | dict | set)

    visit(load(written(home, MINIMAL)))


def test_every_setting_of_cmp_arrives(home: Path) -> None:
    pin = "ab" * 32
    text = (
        "name: pki\nurl: http://ca.example:8080/cmp/p1\nprofile: gateway\nrequest: p10cr\nreference: gw\n"
        "secret-file: password\nmac: pbmac1\nhmac-sha1: true\nrecipient: CN=RA,O=Owner\n"
        f"authorities: [{pin}]\nimplicit-confirm: false\nsupport-messages: false"
    )
    (found,) = load(written(home, cmp(text))).identities[0].protocols
    assert found == CmpSettings(
        name="pki",
        origin="http://ca.example:8080",
        path="/cmp/p1",
        profile="gateway",
        request="p10cr",
        reference="gw",
        secret_file=home / "password",
        mac="pbmac1",
        hmac_sha1=True,
        recipient="CN=RA,O=Owner",
        authorities=frozenset({bytes.fromhex(pin)}),
        implicit_confirm=False,
        support_messages=False,
    )
    (home / "password").write_text("s3cret-pass\n")
    assert found.secret == ("gw", b"s3cret-pass")
    assert "s3cret-pass" not in repr(found)


def test_cmp_at_the_registrar_needs_no_setting(home: Path) -> None:
    (found,) = load(written(home, identity("protocols: [cmp: {}]"))).identities[0].protocols
    assert found == CmpSettings()


def test_the_documented_example_is_valid(home: Path) -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")
    for block in page.split("```yaml\n")[1:]:
        text = block.split("```")[0].replace("/etc/holdfast/", f"{home}/")
        for name in (
            "manufacturer.pem",
            "idevid-chain.pem",
            "est-password",
            "owner-auth",
            "scep-challenge",
            "cmp-secret",
        ):
            (home / name).touch(mode=0o600)
        got = load(written(home, text))
        assert got.registrars or got.discovery


def test_the_page_names_every_key() -> None:
    page = (Path(__file__).parents[2] / "docs" / "configuration.md").read_text(encoding="utf-8")

    def visit(node: Any) -> None:
        for key, child in node.get("properties", {}).items():
            assert f"`{key}`" in page, key
            visit(child)
        visit(node["items"]) if "items" in node else None

    visit(json.loads(schema_text()))


def test_a_credential_of_another_service_is_a_fault_and_no_accident(
    home: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def denied(_path: Path) -> bool:
        raise PermissionError(13, "Permission denied")

    text = est("username: gw\npassword-credential: password")
    monkeypatch.setattr(Path, "is_file", denied)
    (fault,) = faults(home, text)
    assert fault == "8: identities[0].protocols[0].est.password-credential: Permission denied"
