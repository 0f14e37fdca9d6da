"""What an ACME server looks for on this host: a page, a TLS certificate, a DNS record."""
