"""What an operator can do about an error, by its code. An agent that waits without saying what for is stuck."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Final

_BUG: Final = (
    "This is a fault of Holdfast itself: please report it, with the output of holdfast status --json."
)
_WAIT: Final = "Nothing: it is tried again by itself."
_PEER: Final = (
    "Tell whoever runs that server: its answer breaks the named clause, and nothing of it was used. It is asked"
    " again by itself."
)
_DISTRUST: Final = (
    "Find out which server answered, and whose certificate it shows. If it is the right one, its CA or the"
    " maker's anchors on this device must be put right; if not, somebody stands in between."
)

_FACTORY: Final = (
    "Take this unit off the line, and see with the maker of its chip why it does not hold what it must."
)

_BY_CODE: Final[Mapping[str, str]] = {
    "acme.eab-required": "Get a key identifier and MAC key from the CA, and name them in the configuration.",
    "acme.profile": "Name one of the server's profiles in the configuration.",
    "acme.challenge-failed": "Check that the server can reach this device by the name that it is to prove.",
    "acme.solver": "Name a kind of challenge that this device can meet (challenges:).",
    "brski.no-answer": "Ask the owner whether this device's serial number waits for approval at the registrar.",
    "brski.registrar-changed": "Nothing, if the registrar got a new certificate: a new voucher request is made.",
    "certificate.revoked": "Ask the CA's operator why it was revoked. A new certificate is asked for by itself.",
    "certificate.revoked-by-operator": "Nothing: a new certificate is asked for by itself.",
    "chain.expired": "Check this device's clock, then ask the server's operator to renew its certificate.",
    "chain.not-yet-valid": "Check this device's clock, and wait for time synchronisation.",
    "cmc.algorithm": "Allow the server's SHA-1 (cmc: legacy: [sha1]), or set the server to SHA-256.",
    "cmc.badIdentity": "Check secret and identification, or let the CA's operator enter this device.",
    "cmc.digest": "Allow answers signed with SHA-1 (cmc: legacy: [sha1]), or set the server to SHA-256.",
    "cmc.key-cannot-decrypt": "Set key.algorithm to rsa2048, or possession to signature.",
    "cmc.no-answer": "Ask the CA's operator to approve or refuse the request that waits there.",
    "config.secret": "Put the secret into the named file, readable by the agent alone.",
    "config.unreadable": "Name the configuration with --config, or let the agent's user read it.",
    "discovery.nothing-found": (
        "Check that this device is on the owner's network and that a registrar or a join proxy is announced"
        " there (docs/discovery.md), or name one (registrars:)."
    ),
    "est.refused": "Look into the CA's log for the reason, or ask its operator.",
    "est.rejected": "Look into the CA's log for the reason, or ask its operator.",
    "est.redirect": "Name that server in the configuration if it is the right one.",
    "est.unauthorized": "Let the CA's operator enter this device, or correct user name and password.",
    "est.no-answer": "Ask the CA's operator to approve or refuse the request that waits there.",
    "key.auth-failed": "Correct the authorisation value in its file, then: holdfast renew",
    "key.auth-missing": "Name the file with the key's authorisation value (keys: auth-file), then: holdfast renew",
    "key.lockout": "Wait until the TPM forgives, or reset the lockout: tpm2_dictionarylockout --clear-lockout",
    "key.no-module": "Install the token's PKCS#11 module, or correct its path (keys: pkcs11: module).",
    "key.no-pkcs11": "Install the library for tokens: holdfast[pkcs11].",
    "key.no-tss": "Install the TPM library: holdfast[tpm].",
    "key.hardware-changed": (
        "Nothing, if the device still has its IDevID: it finds its owner again by itself. Else its maker must"
        " provision it anew."
    ),
    "key.parent-changed": "Nothing: the TPM was cleared, and new keys and certificates are made by themselves.",
    "key.pin-final-try": "Log in to the token by hand once, with the right PIN: pkcs11-tool --login --test",
    "key.pin-locked": "Unblock the token with its SO PIN: pkcs11-tool --login --login-type so --init-pin",
    "key.pin-missing": "Name the file with the token's PIN (keys: pkcs11: pin-file), and let the agent read it.",
    "key.pin-refused": "Correct the PIN in its file; if the token was wrong, remove keys/pin-refused.json.",
    "key.pin-unset": "Set the token's user PIN: pkcs11-tool --login --login-type so --init-pin",
    "key.pin-wrong": "Correct the PIN in its file. It is not tried again before.",
    "key.token-absent": "Put the token in, or correct its description (keys: pkcs11: uri).",
    "key.token-ambiguous": "Say more of the right token: its serial number (keys: pkcs11: uri).",
    "key.token-full": "Remove objects from the token that nobody needs: pkcs11-tool --list-objects",
    "key.tpm-full": "Use a resource manager (keys: tcti: device:/dev/tpmrm0), or flush what others left loaded.",
    "key.tpm-unreachable": "Check that the TPM is there and that the agent's user may open it: holdfast doctor",
    "scep.badAlg": "Ask the server's operator which algorithms it takes (scep: cipher, legacy).",
    "scep.badRequest": "Check the challenge (scep: challenge-...): it works once. Else look into the CA's log.",
    "scep.ca-untrusted": "Name the SHA-256 of the CA's certificate (scep: ca-fingerprint) if it is the right one.",
    "scep.challenge-command": "Run the command by hand as the agent's user, and see why it prints no challenge.",
    "scep.cipher": "Set the server to AES-CBC; for triple DES name it (scep: legacy: [3des]).",
    "scep.digest": "Allow replies signed with SHA-1 (scep: legacy: [sha1]), or set the server to SHA-256.",
    "scep.fingerprint": "Ask the CA's operator for the right SHA-256 of its certificate.",
    "scep.get-challenge": "Allow an encrypted challenge in a URL (scep: legacy: [get]), or let the server take POST.",
    "scep.key-cannot-decrypt": "Set key.algorithm to rsa2048, or decryption to transport-key (docs/scep.md).",
    "scep.no-recipient": "Give the server an RSA certificate, or set decryption to password if it has that.",
    "scep.ra-unmarked": "Name the SHA-256 of the RA's certificate (scep: ra-fingerprint) if it is the right one.",
    "scep.weak-server": "Name what the old server needs (scep: legacy), or have it replaced.",
    "proof.refused": "Check that the server trusts the CA that issued the new certificate; the old one stays in use.",
    "state.corrupt": "Nothing, if the device still has its IDevID: it starts anew. Keep the damaged file for a report.",
    "state.exposed": "Take away others' right to write there: chmod go-w on the state directory.",
    "state.full": "Make room on the file system of the state directory.",
    "state.locked": "Wait for the other step to end.",
    "state.denied": "Run the command as the agent's user or as root.",
    "state.read-only": "Make the state directory writable: its file system is mounted read-only.",
    "state.schema-too-new": "Install the newer agent that wrote this record.",
    "transport.dns": "Check the server's name in the configuration, and this device's name servers.",
    "transport.proxy": "Check the proxy in the configuration, its proxy-credentials, and whether it lets this device through.",
    "transport.tls-alert": "Look into the server's log: it did not take this device's certificate or TLS version.",
}

_BY_AREA: Final[Mapping[str, str]] = {
    "acme": "Look into the ACME server's log for the reason, or ask its operator.",
    "akca": "Look into the attestation CA's log for the reason, or ask its operator.",
    "ari": _PEER,
    "anchors": _DISTRUST,
    "attest": "See whether the attestation key's CA is one that the ACME server trusts, and renew its certificate.",
    "activation": "Let systemd make the runtime directory: RuntimeDirectory=holdfast in the unit.",
    "brski": _PEER,
    "ca": _PEER,
    "cbor": _PEER,
    "certificate": _PEER,
    "chain": _DISTRUST,
    "cli": "Correct the command: holdfast --help",
    "clock": "Set the clock, or see why time synchronisation does not work: timedatectl",
    "cmc": _PEER,
    "cmp": _PEER,
    "cms": _PEER,
    "control": "See whether the agent runs, and as whom you ask: systemctl status holdfast",
    "config": "Correct the configuration: holdfast config check",
    "credentials": "Check room, mount and rights of the directory for other programs: holdfast doctor",
    "csr": "Correct subject and san in the configuration, or the CA's wishes.",
    "devid": _FACTORY,
    "deploy": "Correct the deploy section, or the hook's program; it is run again by itself.",
    "dns": _PEER,
    "ek": _FACTORY,
    "est": _PEER,
    "grasp": _PEER,
    "hook": "Correct the hook's command or unit; it is run again by itself.",
    "http": _PEER,
    "idevid": "Ask the device's maker: the factory certificate does not hold what RFC 8995 needs.",
    "key": "See what the key store lacks: holdfast doctor",
    "ladder": _WAIT,
    "machine": _BUG,
    "manifest": "Ask the maker for the manifest again, and compare the signer's certificate with them.",
    "network": (
        "This network wants a person to sign in before it lets anybody through. Have this device let through, or"
        " connect it elsewhere."
    ),
    "ocsp": _PEER,
    "crl": _PEER,
    "proof": "Check that the server trusts the CA that issued the new certificate; the old one stays in use.",
    "proxy": "Name interfaces that are up (join-proxy: interfaces), and let no other program have the ports.",
    "registrar": "Ask the registrar's operator: it knows this device's serial number and why it refused.",
    "revocation": _PEER,
    "revoke": "See the CA's log, or ask its operator to revoke the certificate there.",
    "scep": _PEER,
    "signature": _DISTRUST,
    "state": "Check room, mount and rights of the state directory: holdfast doctor",
    "step": _BUG,
    "tls": _DISTRUST,
    "tpm": "See what the TPM says: holdfast doctor",
    "worker": "Nothing, if it was once: the agent starts another. Else report a bug with the agent's log.",
    "transport": "Check network, address and firewall between this device and the server: holdfast doctor",
    "voucher": (
        "Check that the maker knows this device as sold to this owner, and that the anchors under manufacturer in"
        " the configuration are the maker's."
    ),
}


def advice(code: str) -> str:
    """What to do about the error *code*; never empty."""
    return _BY_CODE.get(code) or _BY_AREA.get(code.partition(".")[0]) or _WAIT


def known(code: str) -> bool:
    """Whether the advice on *code* was written for it or its area."""
    return code in _BY_CODE or code.partition(".")[0] in _BY_AREA
