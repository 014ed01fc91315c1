"""The command line ``natterlog``: what is typed, what it does, and what it shows.

``commands`` has a file a command; the other folders hold what commands are made of. It may
import the supervisor, and of the services what it shows and reads with; no service imports it.
"""
