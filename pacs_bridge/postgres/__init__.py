"""Many machines: jobs handed over to workers elsewhere, through PostgreSQL."""
