require holdfast.inc
