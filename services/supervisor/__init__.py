"""``natterlog up``: the nats-server and the services as children that are kept running.

It starts services as processes and imports none of them; only the command line imports it.
"""
