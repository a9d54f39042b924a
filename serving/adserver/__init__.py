"""The ad server: decides, per imp, which ad is shown, and hands it out with sealed trackers."""
