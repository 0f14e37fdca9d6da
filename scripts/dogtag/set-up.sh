#!/bin/bash
# Inside the root: a directory server and a CA on it, on placeholder ports that run.sh replaces.
set -euo pipefail
host=pki.holdfast.invalid

hostname "$host"
printf '127.0.0.1 localhost %s\n' "$host" >/etc/hosts
# The network is new, and there is no `ip` here.
python3 - <<'PYTHON'
import fcntl, socket, struct
with socket.socket() as sock:
    (flags,) = struct.unpack_from("h", fcntl.ioctl(sock, 0x8913, struct.pack("16sh22x", b"lo", 0)), 16)
    fcntl.ioctl(sock, 0x8914, struct.pack("16sh22x", b"lo", flags | 1))
PYTHON
# No systemd runs here: the directory server starts by itself, and systemctl is a small stand-in for Tomcat.
sed -i 's/^with_systemd = 1/with_systemd = 0/' /usr/share/dirsrv/inf/defaults.inf
# pkispawn asks the new server over TLS before any of its certificates is trusted; this Debian's requests refuses that.
sed -i 's/verify=True/verify=False/' /usr/lib/python3/dist-packages/pki/client.py

cat >/holdfast/directory.inf <<INF
[general]
full_machine_name = $host
strict_host_checking = False
[slapd]
instance_name = ca
port = 10389
root_password = Secret.123
self_sign_cert = False
[backend-userroot]
create_suffix_entry = True
suffix = dc=holdfast,dc=invalid
INF
cat >/holdfast/ca.cfg <<CFG
[DEFAULT]
pki_hostname=$host
pki_instance_name=pki-tomcat
pki_https_port=10443
pki_http_port=10080
pki_server_database_password=Secret.123
pki_security_domain_name=Peers
pki_security_domain_post_login_sleep_seconds=0
pki_ds_password=Secret.123
pki_ds_ldap_port=10389
[Tomcat]
pki_ajp_port=10009
pki_tomcat_server_port=10005
pki_security_manager=False
[CA]
pki_admin_email=caadmin@$host
pki_admin_name=caadmin
pki_admin_nickname=caadmin
pki_admin_password=Secret.123
pki_admin_uid=caadmin
pki_client_database_password=Secret.123
pki_client_database_purge=False
pki_client_pkcs12_password=Secret.123
pki_ds_base_dn=dc=ca,dc=holdfast,dc=invalid
pki_ds_database=ca
pki_ds_secure_connection=False
CFG
mkdir -p /run/dirsrv /run/lock && chown dirsrv:dirsrv /run/dirsrv
dscreate from-file /holdfast/directory.inf
pkispawn -v -f /holdfast/ca.cfg -s CA
systemctl stop pki-tomcatd@pki-tomcat.service
dsctl ca stop
# Holders renew and revoke by their own certificate: these profiles come disabled.
sed -i 's/^enable=false/enable=true/' /var/lib/pki/pki-tomcat/ca/profiles/ca/ca*FullCMCUserSignedCert.cfg
# For the tests: the CA, and the agent whom it trusts to ask for others; in PEM and as NSS database for its own clients.
certutil -L -d /etc/pki/pki-tomcat/alias -n 'caSigningCert cert-pki-tomcat CA' -a >/holdfast/ca.pem
openssl pkcs12 -in /root/.dogtag/pki-tomcat/ca_admin_cert.p12 -passin pass:Secret.123 -nodes -out /holdfast/admin.pem
cp -r /root/.dogtag/pki-tomcat/ca/alias /holdfast/nss
rm -rf /var/cache/apt /var/lib/apt /var/log/pki/*.log /var/lib/pki/pki-tomcat/work/*
