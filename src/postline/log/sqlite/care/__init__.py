"""Care of the file: copying it while it is written, putting a copy in its place, examining it, giving room back."""
