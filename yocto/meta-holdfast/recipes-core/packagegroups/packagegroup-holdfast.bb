SUMMARY = "A gateway's identity"
DESCRIPTION = "The agent, its configuration, and what one looks at a TPM with."

inherit features_check packagegroup

REQUIRED_DISTRO_FEATURES = "systemd tpm2 usrmerge"

RDEPENDS:${PN} = " \
    holdfast \
    holdfast-conf \
    tpm2-tools \
"
