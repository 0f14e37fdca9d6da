"""Every kind of event that the resident process tells. The ids are stable; ``systemd/holdfast.catalog``
explains each to a person (``journalctl -x``), and a test holds the two together."""

from __future__ import annotations

from typing import Final

from holdfast.host.journal import ERROR, INFO, NOTICE, WARNING, Message

STARTED: Final = Message("cfdaad9fd7ba492dbeff5c9760cdacec", INFO)
STOPPED: Final = Message("8092e4edd64b4fd8b11cbe6ea9e02d84", INFO)
STEP_DONE: Final = Message("c2d670833221457ab196fa5e3f92b077", INFO)
STEP_FAILED: Final = Message("695fccd598dd47d5be89672570538877", WARNING)
OPERATOR_NEEDED: Final = Message("21d5bdfa56d64d90abc0e03cf7f4ecd2", ERROR)
WORKER_BROKEN: Final = Message("3305c73b38ab403f96a6803775c2ed17", ERROR)
IDENTITY_ACTIVE: Final = Message("f49ea1c3e244432abc1c40818520b54d", NOTICE)
IDENTITY_LOST: Final = Message("1b933127080c4099be316bf2dae45b6d", ERROR)
RELOADED: Final = Message("f8ab7ef39f794fe3b599d0f88a8caffc", INFO)
CLOCK_SET: Final = Message("db69af0bcf0941ec82f875617b44158c", INFO)
NETWORK_UP: Final = Message("63b540b088024df3829ba006d97acf71", INFO)
CHANGE_ASKED: Final = Message("8abcd26a9def4b2eaac616b7242abf49", NOTICE)
METRICS_FAILED: Final = Message("040591cf9a6a4b1387ffeab01d9ccb77", WARNING)
