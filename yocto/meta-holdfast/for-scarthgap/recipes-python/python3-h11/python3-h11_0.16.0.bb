SUMMARY = "A pure-Python, bring-your-own-I/O implementation of HTTP/1.1"
DESCRIPTION = "The protocol alone; 0.16 refuses chunked bodies that could be read in two ways (CVE-2025-43859)."
HOMEPAGE = "https://github.com/python-hyper/h11"
SECTION = "devel/python"
LICENSE = "MIT"
LIC_FILES_CHKSUM = "file://LICENSE.txt;md5=f5501d19c3116f4aaeef89369f458693"

SRC_URI[sha256sum] = "4e35b956cf45792e4caa5885e69fba00bdbc6ffafbfa020300e549b208ee5ff1"

inherit pypi setuptools3

# Newer than the series: only for who asks (conf/include/holdfast-scarthgap.inc).
DEFAULT_PREFERENCE = "-1"

RDEPENDS:${PN} += "python3-profile"

BBCLASSEXTEND = "native nativesdk"
