"""The flight recorder: commands that look at what happened, carry it elsewhere, and mend."""
