SUMMARY = "Configuration of Holdfast for a product"
DESCRIPTION = "Empty but for an example. A product's bbappend names holdfast.yaml and the PEM files that it refers to in \
SRC_URI; they are installed in /etc/holdfast, and with them the agent starts."
HOMEPAGE = "https://holdfast.invalid/"
SECTION = "net"
LICENSE = "Apache-2.0"
# There is nothing remote about it.
# nooelint: oelint.var.licenseremotefile
LIC_FILES_CHKSUM = "file://${COMMON_LICENSE_DIR}/Apache-2.0;md5=89aea4e17d99a7cacdbeed46a0096b10"

SRC_URI = "file://holdfast.yaml.example"

S = "${UNPACKDIR}"

inherit allarch

do_configure[noexec] = "1"
do_compile[noexec] = "1"

do_install() {
    install -d ${D}${sysconfdir}/holdfast
    for file in holdfast.yaml.example holdfast.yaml; do
        if [ -e ${UNPACKDIR}/$file ]; then
            install -m 0644 ${UNPACKDIR}/$file ${D}${sysconfdir}/holdfast/
        fi
    done
    find ${UNPACKDIR} -maxdepth 1 -name '*.pem' -exec install -m 0644 -t ${D}${sysconfdir}/holdfast {} +
}

CONFFILES:${PN} = "${sysconfdir}/holdfast/holdfast.yaml"
