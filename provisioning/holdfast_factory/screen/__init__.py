"""The line screen: a small server-rendered page for the people at the line."""
