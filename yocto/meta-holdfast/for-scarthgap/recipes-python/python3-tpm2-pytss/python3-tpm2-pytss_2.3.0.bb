SUMMARY = "Python bindings for the TPM2 software stack"
DESCRIPTION = "ESYS, FAPI, marshaling, TCTI loader and policies of the TPM2 software stack for Python."
HOMEPAGE = "https://github.com/tpm2-software/tpm2-pytss"
SECTION = "devel/python"
LICENSE = "BSD-2-Clause"
LIC_FILES_CHKSUM = "file://LICENSE;md5=500b2e742befc3da00684d8a1d5fd9da"

DEPENDS = " \
    python3-asn1crypto-native \
    python3-cffi-native \
    python3-cryptography-native \
    python3-packaging-native \
    python3-pkgconfig-native \
    python3-pycparser-native \
    python3-setuptools-scm-native \
    tpm2-tss \
"

SRC_URI[sha256sum] = "20071129379656f5f3c3bc16d364612672b147d81191fb4eb9f9ff9fbee48410"

PYPI_PACKAGE = "tpm2-pytss"

inherit pkgconfig pypi python_setuptools_build_meta

# Newer than the series: only for who asks (conf/include/holdfast-scarthgap.inc).
DEFAULT_PREFERENCE = "-1"

RDEPENDS:${PN} = " \
    libtss2 \
    python3-asn1crypto \
    python3-cffi \
    python3-cryptography \
    python3-packaging \
"
