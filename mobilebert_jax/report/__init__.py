"""Results of a run on the console and as a page that opens offline."""
