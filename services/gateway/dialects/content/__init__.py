"""The content front ends: pipelines that are started over HTTP and followed on a socket."""
