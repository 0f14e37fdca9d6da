SUMMARY = "Python support for YAML"
DESCRIPTION = "A parser and emitter of YAML 1.1."
HOMEPAGE = "https://pyyaml.org/"
SECTION = "devel/python"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://LICENSE;md5=6d8242660a8371add5fe547adf083079"

DEPENDS = "libyaml python3-cython-native"

SRC_URI[sha256sum] = "d584d9ec91ad65861cc08d42e834324ef890a082e591037abe114850ff7bbc3e"

PYPI_PACKAGE = "pyyaml"

inherit pypi python_setuptools_build_meta

# Newer than the series: only for who asks (conf/include/holdfast-scarthgap.inc).
DEFAULT_PREFERENCE = "-1"

RDEPENDS:${PN} += "\
    python3-datetime \
    python3-netclient \
"

BBCLASSEXTEND = "native nativesdk"
