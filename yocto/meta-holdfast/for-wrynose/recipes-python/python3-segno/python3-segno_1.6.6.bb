SUMMARY = "QR Code and Micro QR Code generator"
DESCRIPTION = "Makes QR codes in pure Python, as SVG, PNG or text."
HOMEPAGE = "https://github.com/heuer/segno"
SECTION = "devel/python"
LICENSE = "BSD-3-Clause"
LIC_FILES_CHKSUM = "file://LICENSE;md5=5d59d1644383230a2e3a4dd6bdd05676"

SRC_URI[sha256sum] = "e60933afc4b52137d323a4434c8340e0ce1e58cec71439e46680d4db188f11b3"

inherit pypi python_flit_core
