SUMMARY = "Fast serialization and validation library"
DESCRIPTION = "Decodes JSON, MessagePack, YAML and TOML straight into typed records."
HOMEPAGE = "https://github.com/jcrist/msgspec"
SECTION = "devel/python"
LICENSE = "BSD-3-Clause"
LIC_FILES_CHKSUM = "file://LICENSE;md5=c21402f8022478021f697044388b97c4"

DEPENDS = "python3-setuptools-scm-native"

SRC_URI[sha256sum] = "2313508e394b0d208f8f56892ca9b2799e2561329de9763b19619595a6c0f72c"

inherit pypi python_setuptools_build_meta

RDEPENDS:${PN} += "python3-json"
