"""What is known of every instance, series, job and delivery, on disk."""
