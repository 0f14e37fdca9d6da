"""The text of ``io.holdfast.Agent``, as ``varlinkctl introspect`` shows it."""

from __future__ import annotations

from typing import Final

NAME: Final = "io.holdfast.Agent"

DESCRIPTION: Final = """\
# The resident agent of Holdfast: what this gateway's identities are, and what is done about them.
# Members of the agent's group may read; only root may cause changes. No method signs anything: keys are
# used through TLS and the key references of the deployed files, never through this socket.
interface io.holdfast.Agent

# One identity. state: none, active, expired, revoked. transaction: what is under way, or none.
# not_after is in seconds since 1970; it is left out where there is no certificate.
type Identity (
  name: string,
  state: string,
  generation: int,
  not_after: ?int,
  transaction: string,
  protocol: ?string,
  attempts: int
)

# The last failure that nothing has cured yet. retry: never, backoff, operator.
type Trouble (
  code: string,
  detail: string,
  clause: string,
  retry: string,
  at: ?string
)

# What the worker is at, and how long that may take.
type Progress (
  doing: string,
  identity: ?string,
  allow_seconds: float
)

# state is in words. due_at is when the next step begins, in seconds since 1970 by this host's clock.
type Status (
  version: string,
  state: string,
  due_at: int,
  clock: ?string,
  working: ?Progress,
  identities: []Identity,
  trouble: ?Trouble
)

# What the agent knows. It touches neither disk nor hardware.
method GetStatus() -> (status: Status)

# The status now and whenever it changes. Call it with more.
method Watch() -> (status: Status)

# Renew an identity now, whatever its age. Answers when the step has ended; with more, tells progress before.
method Renew(identity: string) -> (progress: ?Progress, status: ?Status)

# Do what is due now, and try again what waits because no server could be reached. Answers as Renew does.
method Step() -> (progress: ?Progress, status: ?Status)

# Read the configuration anew, and do what is due. Answers when the step has ended.
method Reload() -> (status: Status)

# The certificate chain of an identity as PEM, leaf first.
method GetCertificate(identity: string) -> (chain: string)

error NoSuchIdentity (identity: string)
error NoCertificate (identity: string)

# The step could not be made, or the configuration was refused.
error Failed (code: string, detail: string)
"""

SERVICE_DESCRIPTION: Final = """\
# The Varlink Service Interface is provided by every varlink service. It
# describes the service and the interfaces it implements.
interface org.varlink.service

# Get a list of all the interfaces a service provides and information
# about the implementation.
method GetInfo() -> (
  vendor: string,
  product: string,
  version: string,
  url: string,
  interfaces: []string
)

# Get the description of an interface that is implemented by this service.
method GetInterfaceDescription(interface: string) -> (description: string)

# The requested interface was not found.
error InterfaceNotFound (interface: string)

# The requested method was not found
error MethodNotFound (method: string)

# The interface defines the requested method, but the service does not
# implement it.
error MethodNotImplemented (method: string)

# One of the passed parameters is invalid.
error InvalidParameter (parameter: string)

# Client is denied access
error PermissionDenied ()

# Method is expected to be called with 'more' set to true, but wasn't
error ExpectedMore ()
"""
