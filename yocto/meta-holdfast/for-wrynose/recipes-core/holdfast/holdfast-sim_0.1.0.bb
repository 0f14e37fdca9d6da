SUMMARY = "The network of an owner on loopback"
DESCRIPTION = "Registrar, MASA, and a CA that speaks EST, CMP, SCEP and ACME, for tests of any client, with faults on request. It does not belong on a gateway."

require recipes-core/holdfast/holdfast-source.inc

SRC_URI += "file://simulator;subdir=${BP}"

# One distribution holds all three; what is the agent's comes with the agent.
do_install:append() {
    find ${D}${bindir} -type f ! -name ${PN} -delete
    rm -rf ${D}${datadir} ${D}${PYTHON_SITEPACKAGES_DIR}/holdfast-*.dist-info
}

RDEPENDS:${PN} += "\
    holdfast (= ${EXTENDPKGV}) \
    python3-aiohttp (>= 3.11) \
    python3-asyncio \
    python3-email \
    python3-zeroconf (>= 0.131) \
"
