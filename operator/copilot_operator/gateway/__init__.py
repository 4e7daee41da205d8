"""The data plane: tenants share servers, each alone with its sessions."""
