"""A small canvas and axes for vector figures; they know nothing of what is drawn, so that every room may draw."""
