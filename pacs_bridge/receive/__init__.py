"""The listener: Storage and Verification SCP, and the spool it writes."""
