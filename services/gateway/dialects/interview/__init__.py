"""The interview front ends, which speak Ollama's API."""
