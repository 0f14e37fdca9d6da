SUMMARY = "Gives devices their maker's identity"
DESCRIPTION = "A small manufacturer: its PKI, IDevIDs in TPM 2.0 chips and on PKCS#11 tokens, the ledger, and a CA for attestation keys. It does not belong on a gateway."

require recipes-core/holdfast/holdfast-source.inc

SRC_URI += "file://provisioning;subdir=${BP}"

# One distribution holds all three; what is the agent's comes with the agent.
do_install:append() {
    find ${D}${bindir} -type f ! -name ${PN} -delete
    rm -rf ${D}${datadir} ${D}${PYTHON_SITEPACKAGES_DIR}/holdfast-*.dist-info
}

# Not psycopg: a ledger in PostgreSQL belongs on the factory's server, and SQLite does without.
RDEPENDS:${PN} += "\
    holdfast (= ${EXTENDPKGV}) \
    python3-aiohttp (>= 3.11) \
    python3-alembic (>= 1.14) \
    python3-asyncio \
    python3-email \
    python3-jinja2 (>= 3.1.5) \
    python3-rich (>= 13.9) \
    python3-segno (>= 1.6) \
    python3-sqlalchemy (>= 2.0.36) \
"
