#!/bin/bash
# Inside the root: the directory server and the CA, in the foreground.
#   run.sh tomcat                               the CA alone, as set-up.sh needs it
#   run.sh all LDAP HTTP HTTPS AJP SHUTDOWN     both, listening on these ports of 127.0.0.1
set -euo pipefail

tomcat() {
    set -a
    . /usr/share/pki/etc/tomcat.conf
    CATALINA_HOME=/usr/share/tomcat9
    NAME=pki-tomcat
    . /etc/default/pki-tomcat
    . /usr/share/pki/etc/pki.conf
    . /etc/pki/pki.conf
    JAVA_OPTS="${JAVA_OPTS:-} -XX:TieredStopAtLevel=1 -XX:+UseSerialGC"
    set +a
    exec setpriv --reuid pkiuser --regid pkiuser --init-groups /bin/sh /usr/share/pki/tomcat-start.sh
}

all() {
    hostname pki.holdfast.invalid
    sed -i -e "s/10389/$1/g" /etc/dirsrv/slapd-ca/dse.ldif
    sed -i -e '/^nsslapd-port:/i nsslapd-listenhost: 127.0.0.1' /etc/dirsrv/slapd-ca/dse.ldif
    sed -i -e "s/10389/$1/g;s/10080/$2/g;s/10443/$3/g;s/10009/$4/g;s/10005/$5/g" \
        /etc/pki/pki-tomcat/server.xml /etc/pki/pki-tomcat/ca/CS.cfg /etc/pki/pki-tomcat/ca/proxy.conf
    sed -i -E 's/<Connector (name="(Unsecure|Secure)")/<Connector address="127.0.0.1" \1/' /etc/pki/pki-tomcat/server.xml
    mkdir -p /run/dirsrv /run/lock && chown dirsrv:dirsrv /run/dirsrv
    mkdir -p /run/lock/dirsrv/slapd-ca && chown -R dirsrv:dirsrv /run/lock/dirsrv
    ns-slapd -D /etc/dirsrv/slapd-ca -i /run/dirsrv/slapd-ca.pid
    # Not in the place of this shell: a process that changes its user no longer ends with its parent (prctl(2)).
    tomcat &
    wait
}

"$@"
