SUMMARY = "High-level PKCS#11 support for Python"
DESCRIPTION = "Keys on smart cards, HSMs and other PKCS#11 tokens, for Python."
HOMEPAGE = "https://github.com/pyauth/python-pkcs11"
SECTION = "devel/python"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://LICENSE;md5=f68bda54505b4002e6ec86e08125ef79"

DEPENDS = "python3-cython-native python3-setuptools-scm-native"

SRC_URI[sha256sum] = "e0d7ccede3b3145a678d7c8c59b3c64dcebeb77c9146ad3394a4b1309c4ab2a2"

PYPI_PACKAGE = "python_pkcs11"

inherit pypi python_setuptools_build_meta

# setuptools of the series knows neither licence expressions nor extensions in pyproject.toml, nor that it is too old.
do_configure:prepend() {
    sed -i -e 's/^license = "MIT"/license = {text = "MIT"}/' -e '/^ext-modules = \[/,/^\]/d' ${S}/pyproject.toml
    printf '%s\n' 'from setuptools import Extension, setup' \
        'setup(ext_modules=[Extension("pkcs11._pkcs11", ["pkcs11/_pkcs11.pyx"])])' > ${S}/setup.py
}
PEP517_BUILD_OPTS = "--skip-dependency-check"

# Newer than the series: only for who asks (conf/include/holdfast-scarthgap.inc).
DEFAULT_PREFERENCE = "-1"

RDEPENDS:${PN} += "python3-asn1crypto"
