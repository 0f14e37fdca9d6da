"""An ACME CA (RFC 8555) with device-attest-01 and renewal information, as request -> response functions."""
