"""Several processes as one: who they are, how they join, and what one of them lost means."""
