SUMMARY = "A small image with Holdfast and its tests"
DESCRIPTION = "Boots in QEMU with a software TPM; for tests of the layer, and no example of a product."
LICENSE = "MIT"

inherit core-image features_check

REQUIRED_DISTRO_FEATURES = "systemd tpm2 usrmerge"

IMAGE_INSTALL:append = " \
    packagegroup-holdfast \
    holdfast-ptest \
"
