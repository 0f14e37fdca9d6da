require holdfast-scarthgap.inc
