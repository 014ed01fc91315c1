"""One file per dialect: a pair of translations, request to command and event to frames."""
