"""The Channels front ends' HTTP, in Django REST framework's manner, and their sockets."""
