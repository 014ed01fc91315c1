"""The document front ends: uploads, jobs, and a socket that follows them."""
