"""HTTP: what the servers share, and a client for addresses that users chose."""
