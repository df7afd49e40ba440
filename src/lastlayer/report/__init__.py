"""From a plain record to something people read."""
