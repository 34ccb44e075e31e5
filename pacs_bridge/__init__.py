"""The service: everything that touches a peer, a disk or a clock."""
