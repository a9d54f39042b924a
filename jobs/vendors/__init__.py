"""The Ads Event Handler: tells verification and measurement partners what happened to their ads."""
