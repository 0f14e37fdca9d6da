"""What a token store does beyond the contract, over SoftHSM2."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pkcs11
import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec, padding
from cryptography.hazmat.primitives.serialization import Encoding
from pkcs11 import Attribute, ObjectClass

from holdfast.keys import pkcs11_module
from holdfast.keys.api import HasUri, HoldsCertificates, KeyRef, KeySpec
from holdfast.keys.open import Pkcs11Settings, open_store
from holdfast.keys.pkcs11 import Pkcs11Store
from holdfast.keys.pkcs11_pin import REFUSED
from holdfast.keys.pkcs11_session import TURNS
from holdfast.keys.pkcs11_uri import parse
from holdfast.wire.errors import ConfigError, KeyLocked, KeyNotFound, KeyStoreError, KeyStoreUnavailable
from holdfast.wire.model import KeyAlgorithm
from holdfast_factory.softhsm import SoftToken, make_token
from keys.pki import Pki
from keys.token_home import PIN, need

pytestmark = pytest.mark.pkcs11

PKI = Pki()
LABEL = "holdfast-ldevid-1"
REF = KeyRef(f"pkcs11:object={LABEL};id={''.join(f'%{o:02X}' for o in LABEL.encode())};type=private")


@pytest.fixture
def token(tmp_path: Path) -> SoftToken:
    need("softhsm2-util:softhsm2")
    made = make_token(tmp_path / "token", "gateway", PIN)
    made.see()
    return made


def opened(token: SoftToken, uri: str = "", *, pin: str = PIN, prefix: str = "holdfast") -> Pkcs11Store:
    return open_store(
        Pkcs11Settings(
            token.module, parse(uri or token.uri), token.directory / "keys", pin.encode, prefix=prefix
        )
    )


@pytest.fixture
def store(token: SoftToken):
    with opened(token) as store:
        yield store


def sign(key) -> None:
    signer = key.signer()
    signature = signer.sign(b"data", ec.ECDSA(hashes.SHA256()))
    signer.public_key().verify(signature, b"data", ec.ECDSA(hashes.SHA256()))


def raw(store: Pkcs11Store, operation):
    """Something done to the token past the store's rules, in its session."""
    return store._token.run("test", operation)


def contents(store: Pkcs11Store) -> list[tuple[str, str, bytes]]:
    def look(session):
        return sorted(
            (o.object_class.name, o[Attribute.LABEL], o[Attribute.ID]) for o in session.get_objects()
        )

    return raw(store, look)


def plant(session, kind: ObjectClass, label: str, identifier: bytes) -> None:
    """One object of a key pair; the other half is taken away."""
    parameters = session.create_domain_parameters(
        pkcs11.KeyType.EC, {Attribute.EC_PARAMS: bytes.fromhex("06082a8648ce3d030107")}, local=True
    )
    halves = parameters.generate_keypair(
        mechanism=pkcs11.Mechanism.EC_KEY_PAIR_GEN, store=True, label=label, id=identifier
    )
    halves[0 if kind is ObjectClass.PRIVATE_KEY else 1].destroy()


def test_a_plan_touches_no_hardware_and_loads_no_module(token):
    store = open_store(Pkcs11Settings(Path("/does/not/exist.so"), parse(token.uri), token.directory))
    assert store.plan("ldevid", 1) == REF
    store.close()


def test_labels_and_ids_are_those_of_the_documentation(store):
    assert store.generate(store.plan("ldevid", 1), KeySpec()).ref == REF
    store.generate(store.plan("mqtt", 12), KeySpec(KeyAlgorithm.RSA2048))
    assert contents(store) == [
        ("PRIVATE_KEY", "holdfast-ldevid-1", b"holdfast-ldevid-1"),
        ("PRIVATE_KEY", "holdfast-mqtt-12", b"holdfast-mqtt-12"),
        ("PUBLIC_KEY", "holdfast-ldevid-1", b"holdfast-ldevid-1"),
        ("PUBLIC_KEY", "holdfast-mqtt-12", b"holdfast-mqtt-12"),
    ]


def test_a_private_key_is_sensitive_and_does_one_thing(store):
    store.generate(REF, KeySpec())
    store.generate(store.plan("ldevid", 2), KeySpec(KeyAlgorithm.RSA2048))
    store.generate(store.plan("ldevid", 3), KeySpec(KeyAlgorithm.RSA2048, decrypt=True))

    def look(session):
        found = {}
        for key in session.get_objects({Attribute.CLASS: ObjectClass.PRIVATE_KEY}):
            asked = (Attribute.SENSITIVE, Attribute.EXTRACTABLE, Attribute.SIGN, Attribute.DECRYPT)
            found[key[Attribute.LABEL]] = tuple(key[a] for a in asked)
            assert not key[Attribute.DERIVE]
            assert not key[Attribute.UNWRAP]
        return found

    assert raw(store, look) == {
        "holdfast-ldevid-1": (True, False, True, False),
        "holdfast-ldevid-2": (True, False, True, False),
        "holdfast-ldevid-3": (True, False, True, True),
    }
    with pytest.raises(KeyStoreError, match=r"key\.cannot-decrypt"):
        store.load(store.plan("ldevid", 2)).signer().decrypt(bytes(256), padding.PKCS1v15())


def test_a_new_description_of_the_token_changes_no_reference(token, store):
    store.generate(REF, KeySpec())
    serial = raw(store, lambda session: session.token.serial.decode())
    for uri in (f"pkcs11:serial={serial}", f"{token.uri};serial={serial};model=SoftHSM%20v2", "pkcs11:"):
        with opened(token, uri) as other:
            assert other.refs() == frozenset({REF})
            sign(other.load(REF))


def test_objects_of_others_are_neither_listed_nor_touched(store):
    for label, identifier in (
        ("someone", b"x"),
        ("holdfast-ldevid-1", b"\x01"),
        ("holdfast-ldevid", b"holdfast-ldevid"),
        ("holdfast-Ldevid-1", b"holdfast-Ldevid-1"),
        ("gw2-ldevid-1", b"gw2-ldevid-1"),
    ):
        raw(store, lambda s, la=label, i=identifier: plant(s, ObjectClass.PRIVATE_KEY, la, i))
    before = contents(store)
    assert store.refs() == frozenset()
    store.destroy(REF)
    assert contents(store) == before
    for label in ("someone", "gw2-ldevid-1", "holdfast-ldevid"):
        foreign = KeyRef(parse("pkcs11:").with_object(label, label.encode(), "private").text())
        for operation in (store.load, store.destroy, lambda ref: store.generate(ref, KeySpec())):
            with pytest.raises(KeyStoreError, match=r"key\.not-ours"):
                operation(foreign)


def test_agents_with_other_prefixes_share_a_token(token, store):
    store.generate(REF, KeySpec())
    with opened(token, prefix="gw2") as other:
        assert other.refs() == frozenset()
        made = other.generate(other.plan("ldevid", 1), KeySpec())
        assert other.refs() == frozenset({made.ref})
    assert store.refs() == frozenset({REF})


@pytest.mark.parametrize("kind", [ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY], ids=lambda k: k.name)
def test_what_an_interrupted_attempt_left_is_listed_replaced_and_destroyed(store, kind):
    raw(store, lambda session: plant(session, kind, LABEL, LABEL.encode()))
    assert len(contents(store)) == 1
    assert store.refs() == frozenset({REF})
    with pytest.raises(KeyNotFound if kind is ObjectClass.PUBLIC_KEY else KeyStoreError) as caught:
        store.load(REF)
    assert caught.value.code in {"key.not-found", "key.corrupt"}
    sign(store.generate(REF, KeySpec()))
    assert len(contents(store)) == 2
    store.destroy(REF)
    raw(store, lambda session: plant(session, kind, LABEL, LABEL.encode()))
    store.destroy(REF)
    assert contents(store) == []


def test_a_certificate_alone_is_an_orphan_too(store):
    key = store.generate(REF, KeySpec())
    store.hold_certificate(REF, PKI.chain(key.signer().public_key())[0])

    def lose_the_keys(session):
        for kind in (ObjectClass.PRIVATE_KEY, ObjectClass.PUBLIC_KEY):
            for found in list(session.get_objects({Attribute.CLASS: kind})):
                found.destroy()

    raw(store, lose_the_keys)
    assert store.refs() == frozenset({REF})
    store.destroy(REF)
    assert contents(store) == []


def test_two_keys_of_one_name_are_used_by_nobody(store):
    store.generate(REF, KeySpec())
    raw(store, lambda session: plant(session, ObjectClass.PRIVATE_KEY, LABEL, LABEL.encode()))
    with pytest.raises(KeyStoreError, match=r"key\.ambiguous"):
        store.load(REF)


def test_an_exportable_key_is_destroyed_at_once(store, monkeypatch):
    from holdfast.keys import pkcs11_objects

    real = pkcs11_objects._make

    def careless(session, label, algorithm, uses):
        real(session, label, algorithm, uses)
        found = pkcs11_objects.private_key(session, pkcs11_objects.Which.ours(label))
        monkeypatch.setattr(pkcs11_objects, "private_key", lambda *_: Exportable(found))

    class Exportable:
        def __init__(self, key):
            self.key = key

        def __getitem__(self, attribute):
            return True if attribute is Attribute.EXTRACTABLE else self.key[attribute]

    monkeypatch.setattr(pkcs11_objects, "_make", careless)
    with pytest.raises(KeyStoreError, match=r"key\.exportable"):
        store.generate(REF, KeySpec())
    assert contents(store) == []


def test_the_certificate_stands_beside_its_key_and_goes_with_it(store):
    assert isinstance(store, HoldsCertificates)
    key = store.generate(REF, KeySpec())
    first, second = (PKI.chain(key.signer().public_key())[0] for _ in range(2))
    for certificate in (first, first, second, second):
        store.hold_certificate(REF, certificate)
        assert [c for c in contents(store) if c[0] == "CERTIFICATE"] == [
            ("CERTIFICATE", LABEL, LABEL.encode())
        ]
        value = raw(
            store,
            lambda s: [c[Attribute.VALUE] for c in s.get_objects({Attribute.CLASS: ObjectClass.CERTIFICATE})],
        )
        assert value == [certificate.public_bytes(Encoding.DER)]
    store.destroy(REF)
    assert contents(store) == []


def test_the_idevid_of_the_maker(store):
    raw(store, lambda session: plant(session, ObjectClass.PRIVATE_KEY, "other", b"\x02"))
    parameters = bytes.fromhex("06082a8648ce3d030107")

    def make(session):
        local = session.create_domain_parameters(
            pkcs11.KeyType.EC, {Attribute.EC_PARAMS: parameters}, local=True
        )
        local.generate_keypair(
            mechanism=pkcs11.Mechanism.EC_KEY_PAIR_GEN, store=True, label="IDevID key", id=b"\x01"
        )

    raw(store, make)
    uri = parse("pkcs11:token=gateway;object=IDevID%20key")
    key = store.idevid(uri)
    sign(key)
    assert key.ref == "pkcs11:token=gateway;object=IDevID%20key"
    assert store.refs() == frozenset()
    with pytest.raises(KeyNotFound, match=r"key\.no-certificate"):
        store.idevid_certificate(uri)
    mine, foreign = PKI.chain(key.signer().public_key())[0], PKI.middle

    def put(session, certificate):
        der = certificate.public_bytes(Encoding.DER)
        session.create_object(
            {
                Attribute.CLASS: ObjectClass.CERTIFICATE,
                Attribute.CERTIFICATE_TYPE: pkcs11.CertificateType.X_509,
                Attribute.TOKEN: True,
                Attribute.ID: b"\x01",
                Attribute.LABEL: "IDevID certificate",
                Attribute.SUBJECT: certificate.subject.public_bytes(),
                Attribute.VALUE: der,
            }
        )

    raw(store, lambda session: put(session, mine))
    assert store.idevid_certificate(uri) == mine
    assert store.idevid_certificate(parse("pkcs11:id=%01;type=private")) == mine
    raw(store, lambda session: put(session, foreign))
    with pytest.raises(KeyStoreError, match=r"key\.ambiguous"):
        store.idevid_certificate(uri)

    def keep_the_foreign_one(session):
        for found in list(session.get_objects({Attribute.CLASS: ObjectClass.CERTIFICATE})):
            if found[Attribute.VALUE] == mine.public_bytes(Encoding.DER):
                found.destroy()

    raw(store, keep_the_foreign_one)
    with pytest.raises(KeyStoreError, match=r"key\.idevid-mismatch"):
        store.idevid_certificate(uri)
    for bad in ("pkcs11:token=gateway", "pkcs11:object=IDevID%20key;type=cert"):
        with pytest.raises(KeyStoreError, match=r"key\.reference"):
            store.idevid(parse(bad))
    with pytest.raises(KeyNotFound):
        store.idevid(parse("pkcs11:object=nobody"))


def test_what_other_programs_get(store, token):
    key = store.generate(REF, KeySpec())
    assert isinstance(key, HasUri)
    assert key.uri == REF.replace("pkcs11:", "pkcs11:token=gateway;")
    pem = key.reference_pem()
    assert pem is not None
    assert pem.startswith(b"-----BEGIN PKCS#11 PROVIDER URI-----\n")
    done = subprocess.run(
        ["openssl", "asn1parse"],
        input=pem.replace(b"PKCS#11 PROVIDER URI", b"X"),
        capture_output=True,
        check=True,
    )
    assert b"VISIBLESTRING     :PKCS#11 Provider URI v1.0" in done.stdout
    assert f"UTF8STRING        :{key.uri}".encode() in done.stdout


# --- PINs ----------------------------------------------------------------------------------------------


def locked(store: Pkcs11Store) -> KeyLocked:
    with pytest.raises(KeyLocked) as caught, store:
        store.refs()
    assert PIN not in str(caught.value)
    return caught.value


def new_pin(token: SoftToken, old: str, new: str) -> None:
    need("pkcs11-tool:opensc")
    subprocess.run(
        ["pkcs11-tool", "--module", token.module, "--login", "--pin", old, "--change-pin", "--new-pin", new],
        env={**os.environ, **token.environment},
        check=True,
        capture_output=True,
    )


def test_a_refused_pin_is_an_operators_affair_and_never_tried_again(token):
    first = locked(opened(token, pin="wrong-pin"))
    assert first.code == "key.pin-wrong"
    assert "more than one try is left, but wrong PINs have been counted" in first.detail
    assert "wrong-pin" not in first.detail
    # The token takes it from now on, so a second try would succeed: it must not happen.
    new_pin(token, PIN, "wrong-pin")
    for _ in range(2):
        again = locked(opened(token, pin="wrong-pin"))
        assert again.code == "key.pin-refused"
        assert "Correct the PIN" in again.detail
    # Removing the memory is how an operator says that it was the token that was wrong.
    (token.directory / "keys" / REFUSED).unlink()
    with opened(token, pin="wrong-pin") as store:
        assert store.refs() == frozenset()


def test_another_pin_may_be_tried_and_clears_the_memory(token):
    assert locked(opened(token, pin="wrong-pin")).code == "key.pin-wrong"
    memory = token.directory / "keys" / REFUSED
    assert b"wrong-pin" not in memory.read_bytes()
    assert memory.stat().st_mode & 0o777 == 0o600
    assert locked(opened(token, pin="other-pin")).code == "key.pin-wrong"
    assert locked(opened(token, pin="other-pin")).code == "key.pin-refused"
    with opened(token) as store:
        store.refs()
    assert not memory.exists()


def test_another_token_may_be_tried(token, tmp_path):
    assert locked(opened(token, pin="wrong-pin")).code == "key.pin-wrong"
    other = make_token(tmp_path / "other", "gateway", "wrong-pin")
    other.see()
    with open_store(
        Pkcs11Settings(other.module, parse(other.uri), token.directory / "keys", "wrong-pin".encode)
    ) as store:
        assert store.refs() == frozenset()


def test_a_good_pin_writes_nothing(token, store):
    store.refs()
    assert [f.name for f in (token.directory / "keys").iterdir()] == [TURNS], "an empty file for the turns"


def test_a_pin_that_cannot_be_read(token):
    def unreadable() -> bytes:
        raise ConfigError("config.secret", "/etc/pin: Permission denied")

    for pin, told in (
        (unreadable, "Permission denied"),
        (None, "none is configured"),
        (lambda: b"\xff", "UTF-8"),
    ):
        with open_store(
            Pkcs11Settings(token.module, parse(token.uri), token.directory / "keys", pin)
        ) as store:
            with pytest.raises(KeyLocked, match=r"key\.pin-missing") as caught:
                store.refs()
            assert told in caught.value.detail


def test_a_damaged_memory_of_a_refusal_is_not_read_as_none(token):
    memory = token.directory / "keys" / REFUSED
    memory.parent.mkdir()
    for content in (b"", b"{}", b"\xff"):
        memory.write_bytes(content)
        with opened(token) as store, pytest.raises(KeyStoreUnavailable, match=r"key\.directory"):
            store.refs()


# --- the module and the token come and go ----------------------------------------------------------------


def test_a_token_that_is_pulled_and_comes_back(token, store):
    key = store.generate(REF, KeySpec())
    sign(key)
    home, away = token.directory / "tokens", token.directory / "away"
    shutil.move(home, away)
    home.mkdir()
    for _ in range(2):
        with pytest.raises(KeyStoreError) as caught:
            sign(key)
    assert caught.value.code == "key.token-absent"
    assert "no token is pkcs11:token=gateway" in caught.value.detail
    home.rmdir()
    shutil.move(away, home)
    sign(key)


def test_two_tokens_that_fit(token):
    subprocess.run(
        [
            "softhsm2-util",
            "--init-token",
            "--free",
            "--label",
            "gateway",
            "--pin",
            PIN,
            "--so-pin",
            "12345678",
        ],
        env={**os.environ, **token.environment},
        check=True,
        capture_output=True,
    )
    with opened(token) as store, pytest.raises(KeyStoreError, match=r"key\.token-ambiguous"):
        store.refs()
    with opened(token, "pkcs11:token=stranger") as store:
        with pytest.raises(KeyStoreUnavailable, match=r"key\.token-absent") as caught:
            store.refs()
        assert "shows 'gateway', 'gateway'" in caught.value.detail


def test_an_unknown_attribute_finds_no_token(token):
    with opened(token, f"{token.uri};color=red") as store, pytest.raises(KeyStoreUnavailable):
        store.refs()


def test_a_store_that_opens_later_sees_keys_made_by_another_process(token, store):
    assert store.refs() == frozenset()
    done = subprocess.run(
        [
            *("pkcs11-tool", "--module", token.module, "--login", "--pin", PIN, "--keypairgen"),
            *("--key-type", "EC:prime256v1", "--label", LABEL, "--id", LABEL.encode().hex()),
        ],
        env={**os.environ, **token.environment},
        check=True,
        capture_output=True,
    )
    assert LABEL.encode() in done.stdout
    store.close()
    with opened(token) as fresh:
        assert fresh.refs() == frozenset({REF})
        sign(fresh.load(REF))


def test_no_use_after_a_fork(store, token):
    store.generate(REF, KeySpec())
    inside, outside = os.pipe()
    child = os.fork()
    if child == 0:
        said = "nothing was refused"
        try:
            store.refs()
        except KeyStoreUnavailable as error:
            said = error.code
        try:
            opened(token).refs()
        except KeyStoreUnavailable as error:
            said += " " + error.code
        store.close()
        os.write(outside, said.encode())
        os._exit(0)
    os.close(outside)
    _, status = os.waitpid(child, 0)
    assert status == 0
    with os.fdopen(inside) as answer:
        assert answer.read() == "key.forked key.forked"
    sign(store.load(REF))


def test_the_module_is_let_go_with_its_last_store(token):
    first, second = opened(token), opened(token)
    first.refs()
    second.refs()
    first.close()
    assert token.module in pkcs11_module._registry
    second.refs()
    second.close()
    assert token.module not in pkcs11_module._registry


def test_what_is_no_module(tmp_path):
    text = tmp_path / "text.so"
    text.write_text("no library")
    for path in (Path("/does/not/exist.so"), text, Path(shutil.which("true") or "/bin/true")):
        store = open_store(Pkcs11Settings(path, parse("pkcs11:"), tmp_path))
        with pytest.raises(KeyStoreUnavailable, match=r"key\.no-module"):
            store.refs()
        store.close()


def test_a_signature_of_another_key_never_leaves(token, store):
    """The token was exchanged for one with the same labels while the agent held its key."""
    ours = store.generate(REF, KeySpec())
    store.generate(store.plan("ldevid", 2), KeySpec(KeyAlgorithm.RSA2048, decrypt=True))
    rsa_key = store.load(store.plan("ldevid", 2))
    with opened(token) as other:
        other.generate(REF, KeySpec())
        other.generate(store.plan("ldevid", 2), KeySpec(KeyAlgorithm.RSA2048, decrypt=True))
    pss = padding.PSS(padding.MGF1(hashes.SHA256()), padding.PSS.DIGEST_LENGTH)
    for operation in (
        lambda: sign(ours),
        lambda: rsa_key.signer().sign(b"data", padding.PKCS1v15(), hashes.SHA256()),
        lambda: rsa_key.signer().sign(b"data", pss, hashes.SHA256()),
    ):
        with pytest.raises(KeyStoreError, match=r"key\.bad-signature"):
            operation()
