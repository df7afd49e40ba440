"""What the commands do, one file each, as functions that return plain records; ``cli`` prints them."""
