"""Click models: train, judge against the champion, promote. See README.md."""
