"""The whole job on one machine: a factory, a device with a software TPM, the owner's servers, the agent."""
