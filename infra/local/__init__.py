"""The local stack: every system as a plain process on loopback, started, watched and stopped by one supervisor."""
