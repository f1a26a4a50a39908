"""What a governed call costs, side by side with the same work done without a gateway; `python -m bench`."""
