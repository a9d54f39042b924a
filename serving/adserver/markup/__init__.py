"""What the player or page gets: VAST, banners, trackers."""
