"""Arrays in, arrays out: values that know where they are, the model, and what runs it."""
