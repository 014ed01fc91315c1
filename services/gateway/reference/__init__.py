"""The descriptions of the API, made from the route table, and the page that shows them.

Only ``app`` imports it.
"""
