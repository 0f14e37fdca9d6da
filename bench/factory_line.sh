#!/usr/bin/env bash
# From bare TPM to sealed device with tpm2-tools and openssl, as a line without Holdfast would do it: the same
# steps, the same checks and the same outcome, one tool a command. The other runner in bench/factory_line.py.
#
#   factory_line.sh DIR SERIAL     TPM2TOOLS_TCTI says which TPM; DIR holds roots.pem, ca.pem and ca-key.pem
set -euo pipefail
dir=$1 serial=$2
work=$(mktemp -d "$dir/unit.XXXXXX")
trap 'rm -rf "$work"' EXIT
cd "$work"
exec >/dev/null

raw() { printf '%s' "$1" | xxd -r -p >"$2"; }
raw 837197674484b3f81a90cc8d46a5d724fd52d76e06520b64f2a1da1b331469aa secret.pol
raw b2a69e6391e2684a0fe752d39e14acd2e5cb922e4bd035830eea31f2aabe9870 certify.pol
raw cd9917cf18c3848c3a2e606986a066c68142f9bc2710a278287a650ca3bbf245 activate.pol
raw 629c50b05f1adb5b4297feb241549d4217a1c792c162feb861022def88fa9501 idevid-nv.pol
raw 101e689dadf145222412c05b76e14532af1e5c74208e0ae7cdb0cff1906c8a09 iak-nv.pol
raw 06004944455649440600494445564944 idevid.unique # two TPM2B, sizes in the order of this machine
raw 030049414b030049414b iak.unique
fixed='fixedtpm|fixedparent|sensitivedataorigin|userwithauth|adminwithpolicy|sign'

satisfied() { # SESSION COMMAND BRANCH: bring a policy session to where the template lets COMMAND pass
    tpm2_startauthsession --policy-session -S "$1"
    tpm2_policysecret -S "$1" -c e
    tpm2_policycommandcode -S "$1" "$2"
    tpm2_policyor -S "$1" "sha256:secret.pol,certify.pol,activate.pol,$3"
}

# endorsement: the key, its certificate, and whether the certificate is good
tpm2_nvread -C 0x01C0000A 0x01C0000A -o ek.der 2>/dev/null
tpm2_createek -G ecc -c ek.ctx -u ek.pub
tpm2_flushcontext -t # the tools leave behind what they loaded
tpm2_readpublic -c ek.ctx -f pem -o ek.spki
tpm2_flushcontext -t
openssl x509 -inform DER -in ek.der -out ek.pem
openssl verify -partial_chain -CAfile "$dir/roots.pem" ek.pem
openssl x509 -in ek.pem -noout -ext extendedKeyUsage,subjectAltName >ek.txt
grep -q 2.23.133.8.1 ek.txt
grep -q 2.23.133.2.1 ek.txt
openssl x509 -in ek.pem -noout -pubkey | cmp - ek.spki

# keys: IAK, IDevID and storage root key; the IAK certifies the IDevID; the IDevID signs the request
key() { # NAME POLICY HANDLE ATTRIBUTES
    tpm2_createprimary -C e -g sha256 -G ecc256:ecdsa-sha256:null -a "$4" -L "$2" -u "$1.unique" -c "$1.ctx"
    tpm2_flushcontext -t
    tpm2_evictcontrol -C o -c "$1.ctx" "$3"
    tpm2_flushcontext -t
    tpm2_readpublic -c "$3" -f tss -o "$1.pub" -n "$1.name"
    tpm2_readpublic -c "$3" -f pem -o "$1.spki"
}
key iak 5437182326e414fca797d5f174615a1641f61255797c3a2b22c21d120b2d1e07 0x81020001 "$fixed|restricted"
key idevid ad6b3a2284fd698a0710bf5cc1b9bdf15e2532e3f601fa4b93a6a8fa8de579ea 0x81020000 "$fixed"
tpm2_createprimary -C o -G ecc -c srk.ctx
tpm2_flushcontext -t
tpm2_evictcontrol -C o -c srk.ctx 0x81000001
tpm2_flushcontext -t
satisfied certify.session TPM2_CC_Certify idevid-nv.pol
tpm2_certify -c 0x81020000 -P session:certify.session -C 0x81020001 -g sha256 -o attest -s attest.sig -f plain
tpm2_flushcontext certify.session
openssl dgst -sha256 -verify iak.spki -signature attest.sig attest
xxd -p idevid.name | tr -d '\n' >name
xxd -p attest | tr -d '\n' | grep -qF "$(cat name)"
cat <(printf '%s\0' "$serial") ek.der iak.pub idevid.pub attest attest.sig >request
tpm2_sign -c 0x81020000 -g sha256 -f plain -o request.sig request
openssl dgst -sha256 -verify idevid.spki -signature request.sig request

# activation: EK and IAK are in one TPM
openssl rand 32 >credential
tpm2_makecredential -T none -u ek.pub -s credential -n "$(xxd -p iak.name | tr -d '\n')" -o sealed
satisfied activate.session TPM2_CC_ActivateCredential iak-nv.pol
tpm2_startauthsession --policy-session -S ek.session
tpm2_policysecret -S ek.session -c e
tpm2_activatecredential -c 0x81020001 -p session:activate.session -C ek.ctx -P session:ek.session \
    -i sealed -o opened
tpm2_flushcontext activate.session
tpm2_flushcontext ek.session
tpm2_flushcontext -t
cmp credential opened

# issue
cat >idevid.ext <<X
keyUsage=critical,digitalSignature
subjectAltName=otherName:1.3.6.1.5.5.7.8.4;SEQUENCE:module
1.3.6.1.5.5.7.1.32=ASN1:IA5STRING:masa.example
[module]
type=OID:1.3.6.1.4.1.32473.1
serial=FORMAT:ASCII,OCT:$serial
X
printf 'keyUsage=critical,digitalSignature\nextendedKeyUsage=2.23.133.8.3\n' >iak.ext
for name in idevid iak; do
    openssl x509 -new -force_pubkey "$name.spki" -subj "/O=Works/OU=Gateway/serialNumber=$serial" \
        -CA "$dir/ca.pem" -CAkey "$dir/ca-key.pem" -days 36500 -extfile "$name.ext" -outform DER -out "$name.der"
done

# install and inspection
write() { # NAME INDEX
    tpm2_nvdefine -C p "$2" -s "$(stat -c %s "$1.der")" \
        -a 'ppwrite|writedefine|ppread|ownerread|authread|no_da|platformcreate'
    tpm2_nvwrite -C p "$2" -i "$1.der"
}
write idevid 0x01C90200
write iak 0x01C90100
tpm2_nvread -C 0x01C90200 0x01C90200 | cmp - idevid.der
tpm2_nvread -C 0x01C90100 0x01C90100 | cmp - iak.der
openssl rand 32 >challenge
tpm2_sign -c 0x81020000 -g sha256 -f plain -o challenge.sig challenge
openssl x509 -inform DER -in idevid.der -noout -pubkey >installed.spki
openssl dgst -sha256 -verify installed.spki -signature challenge.sig challenge

# lock
tpm2_nvwritelock -C p 0x01C90200
tpm2_nvwritelock -C p 0x01C90100
tpm2_dictionarylockout -s -n 32 -t 600 -l 86400
