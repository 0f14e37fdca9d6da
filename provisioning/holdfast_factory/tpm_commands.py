"""Names of TPM 2.0 commands by code (TPM 2.0 Library, Part 2, table of TPM_CC)."""

from __future__ import annotations

from typing import Final

_FIRST: Final = 0x11F
# In order of their codes; "-" marks a code that is not assigned.
_TEXT: Final = """
NV_UndefineSpaceSpecial EvictControl HierarchyControl NV_UndefineSpace - ChangeEPS ChangePPS Clear
ClearControl ClockSet HierarchyChangeAuth NV_DefineSpace PCR_Allocate PCR_SetAuthPolicy PP_Commands
SetPrimaryPolicy FieldUpgradeStart ClockRateAdjust CreatePrimary NV_GlobalWriteLock
GetCommandAuditDigest NV_Increment NV_SetBits NV_Extend NV_Write NV_WriteLock
DictionaryAttackLockReset DictionaryAttackParameters NV_ChangeAuth PCR_Event PCR_Reset
SequenceComplete SetAlgorithmSet SetCommandCodeAuditStatus FieldUpgradeData IncrementalSelfTest
SelfTest Startup Shutdown StirRandom ActivateCredential Certify PolicyNV CertifyCreation Duplicate
GetTime GetSessionAuditDigest NV_Read NV_ReadLock ObjectChangeAuth PolicySecret Rewrap Create
ECDH_ZGen MAC Import Load Quote RSA_Decrypt - MAC_Start SequenceUpdate Sign Unseal - PolicySigned
ContextLoad ContextSave ECDH_KeyGen EncryptDecrypt FlushContext - LoadExternal MakeCredential
NV_ReadPublic PolicyAuthorize PolicyAuthValue PolicyCommandCode PolicyCounterTimer PolicyCpHash
PolicyLocality PolicyNameHash PolicyOR PolicyTicket ReadPublic RSA_Encrypt - StartAuthSession
VerifySignature ECC_Parameters FirmwareRead GetCapability GetRandom GetTestResult Hash PCR_Read
PolicyPCR PolicyRestart ReadClock PCR_Extend PCR_SetAuthValue NV_Certify EventSequenceComplete
HashSequenceStart PolicyPhysicalPresence PolicyDuplicationSelect PolicyGetDigest TestParms Commit
PolicyPassword ZGen_2Phase EC_Ephemeral PolicyNvWritten PolicyTemplate CreateLoaded
PolicyAuthorizeNV EncryptDecrypt2 AC_GetCapability AC_Send Policy_AC_SendSelect CertifyX509
ACT_SetTimeout ECC_Encrypt ECC_Decrypt PolicyCapability PolicyParameters -
"""
_NAMES: Final = tuple(_TEXT.split())


def command_name(code: int) -> str:
    """The name without its ``TPM2_`` (``CreateLoaded``); the code in hexadecimal if it has none."""
    index = code - _FIRST
    if 0 <= index < len(_NAMES) and _NAMES[index] != "-":
        return _NAMES[index]
    return f"{code:#x}"
